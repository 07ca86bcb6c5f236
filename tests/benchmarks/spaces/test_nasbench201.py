import hashlib
import itertools
import json

import numpy as np
import pytest

from nasharness.benchmarks.spaces import nasbench201
from nasharness.benchmarks.spaces.base import InvalidArchitecture
from nasharness.benchmarks.spaces.nasbench201 import (
    CONV1,
    CONV3,
    EDGES,
    NONE,
    POOL,
    SKIP,
    NASBench201Space,
    network_classes,
    network_string,
    unique_string,
)

SPACE = NASBench201Space()
ARCHS = list(SPACE)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def numbered(keys):
    """Number the keys by first appearance."""
    numbers = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]


@pytest.fixture(scope="module")
def vectors(shared_data):
    """Answers of the official API."""
    return json.loads((shared_data / "official" / "nats_tss_queries.json").read_text())["index"]


# -------------------------------------------------------------------------------------------- order, strings, indices


def test_official_order():
    """The 15,625 strings in official index order have the sha256 that the official file has."""
    text = "\n".join(SPACE.to_string(SPACE.from_index(i)) for i in range(SPACE.size))
    assert sha256(text) == "83abc799e45cf34e9d2163654668ab998b9a54d01c39e72ca1f71f2cdf356d84"


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (0, "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"),
        (1, "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"),
        (1651, "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"),
        (1835, "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"),
        (9930, "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"),
    ],
)
def test_known_indices(index, text):
    """Published pairs of index and string: the ends of the list, all-none, all-skip, and the best cell on CIFAR-10."""
    assert text == SPACE.to_string(SPACE.from_index(index))
    assert index == SPACE.index(SPACE.from_string(text))


def test_indices_of_the_official_answers(vectors):
    """Every string that the official answers give an index for is at that index here."""
    assert vectors["arch_strings"] == {i: SPACE.to_string(SPACE.from_index(int(i))) for i in vectors["arch_strings"]}


def test_index_and_from_index_are_inverse():
    """`index` is a bijection onto 0..15624 and `from_index` its inverse."""
    indices = [SPACE.index(arch) for arch in ARCHS]
    assert list(range(15_625)) == sorted(indices)
    assert [SPACE.from_index(i) for i in indices] == ARCHS


@pytest.mark.parametrize("index", [-1, 15_625])
def test_from_index_refuses_a_position_outside_the_files(index):
    """A position outside 0..15624 is refused and named."""
    with pytest.raises(InvalidArchitecture, match=rf"index {index} is not in 0\.\.15624"):
        SPACE.from_index(index)


def test_strings_round_trip_for_every_cell():
    """`from_string` inverts `to_string` on the whole space."""
    assert [SPACE.from_string(SPACE.to_string(arch)) for arch in ARCHS] == ARCHS


def test_from_string_ignores_white_space_around_the_text():
    """A line of a file, with its newline, is accepted."""
    assert SPACE.from_string(" |none~0|+|none~0|none~1|+|none~0|none~1|none~2|\n") == (NONE,) * 6


GOOD = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "'' has 1 nodes joined by"),
        ("|none~0|+|none~0|none~1|", "has 2 nodes joined by"),
        (GOOD + "+|none~0|", "has 4 nodes joined by"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|", r"node 3 of .* must list 3 edge\(s\) .* not '\|none~0\|none~1\|'"),
        ("none~0|+|none~0|none~1|+|none~0|none~1|none~2|", r"node 1 of .* must list 1 edge\(s\) .* not 'none~0\|'"),
        ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "edge 'none~0' of .*: expected 'op~1'"),
        ("|none~0|+|none~1|none~0|+|none~0|none~1|none~2|", "edge 'none~1' of .*: expected 'op~0'"),
        ("|none|+|none~0|none~1|+|none~0|none~1|none~2|", "edge 'none' of .*: expected 'op~0'"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|None~2|", "edge 'None~2' of .*: expected 'op~2'"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_5x5~2|", "unknown operation 'nor_conv_5x5' .*nor_conv_1x1"),
    ],
)
def test_from_string_names_the_bad_part(text, named):
    """A text that breaks the official grammar is refused with the part that breaks it."""
    with pytest.raises(InvalidArchitecture, match=named):
        SPACE.from_string(text)


# --------------------------------------------------------------------------------------------------- official classes


@pytest.fixture(scope="module")
def official_strings():
    return [unique_string(arch) for arch in ARCHS]


def test_number_of_classes(official_strings):
    """The three notions of "the same cell" have 6,466, 5,390 and 5,260 classes."""
    propagated = {unique_string(arch, propagate_zero=True) for arch in ARCHS}
    assert (len(set(official_strings)), len(propagated), len(set(network_classes()))) == (6466, 5390, 5260)


def test_class_sequence_is_the_official_one(official_strings, vectors):
    """Numbered by first appearance in index order, the official classes give the official sequence."""
    ids = numbered(official_strings[SPACE.rank(SPACE.from_index(i))] for i in range(SPACE.size))
    assert vectors["class_ids_first40"] == ids[:40]
    assert vectors["class_ids_sha256"] == sha256(",".join(map(str, ids)))


def test_unique_strings_are_the_official_ones(vectors):
    """`unique_string` writes the very text that the official `to_unique_str` writes."""
    samples = vectors["unique_str_samples"]
    assert samples == {text: unique_string(SPACE.from_string(text)) for text in samples}


def test_classes_of_the_collected_table(official_strings, shared_data):
    """The partition equals the isomorphism column that others published beside the results."""
    pytest.importorskip("pyarrow", reason="reading parquet needs pyarrow")
    import pandas as pd

    table = pd.read_parquet(shared_data / "nb201.parquet", columns=["unique_topology"])
    ids = [official_strings[SPACE.rank(SPACE.from_index(i))] for i in range(SPACE.size)]
    assert numbered(table["unique_topology"].tolist()) == numbered(ids)


def test_canonical_is_the_first_member_of_the_official_class(official_strings):
    """`canonical` is constant on official classes, idempotent, and the lexicographically first member."""
    first = {}
    for arch, string in zip(ARCHS, official_strings, strict=True):
        first.setdefault(string, arch)
    found = [SPACE.canonical(arch) for arch in ARCHS]
    assert [first[string] for string in official_strings] == found
    assert found == [SPACE.canonical(arch) for arch in found]


def test_zero_quirk():
    """Officially a node with two zero inputs is "#+#", not zero; so two cells that both compute zero differ.

    Both outputs below are zero: one through node 2, whose two inputs are zero, and one through nothing.
    """
    through_node_2 = (NONE, NONE, NONE, NONE, NONE, CONV3)
    nothing = (NONE,) * 6
    assert (unique_string(through_node_2), unique_string(nothing)) == ("#+#+(#+#)@nor_conv_3x3", "#+#+#")
    assert SPACE.canonical(through_node_2) != SPACE.canonical(nothing)
    assert unique_string(through_node_2, propagate_zero=True) == unique_string(nothing, propagate_zero=True) == "#"
    assert SPACE.network_class(through_node_2) == SPACE.network_class(nothing)


def test_zero_propagates_from_a_node_of_one_edge():
    """Node 1 has a single edge, so a zero there is officially a zero wherever it is used."""
    assert SPACE.canonical((NONE, SKIP, CONV3, SKIP, CONV1, SKIP)) == SPACE.canonical(
        (NONE, SKIP, NONE, SKIP, NONE, SKIP)
    )


# --------------------------------------------------------------------------------------------------------------- prune


def paths(arch, node=0):
    """Every way from `node` to the output over edges that have an operation, as lists of edge numbers."""
    if node == 3:
        return [[]]
    return [
        [edge, *rest]
        for edge, (target, source) in enumerate(EDGES)
        if source == node and arch[edge] != NONE
        for rest in paths(arch, target)
    ]


@pytest.fixture(scope="module")
def pruned():
    return [SPACE.prune(arch) for arch in ARCHS]


def test_prune_keeps_exactly_the_edges_on_a_path(pruned):
    """An edge keeps its operation where some path from input to output uses it, and is `none` elsewhere."""
    expected = []
    for arch in ARCHS:
        used = set(itertools.chain.from_iterable(paths(arch)))
        expected.append(tuple(op if edge in used else NONE for edge, op in enumerate(arch)))
    assert expected == pruned


def test_prune_is_idempotent(pruned):
    """Nothing is dead in a pruned cell."""
    assert pruned == [SPACE.prune(arch) for arch in pruned]


def test_prune_keeps_the_network_class(pruned):
    """A cell and its pruned form are in the same network class."""
    classes = network_classes()
    assert classes == [classes[SPACE.rank(arch)] for arch in pruned]


def test_prune_keeps_the_fully_propagated_string(pruned):
    """Pruning removes zeros and unused operations, which the fully propagated string never shows."""
    strings = [[unique_string(arch, propagate_zero=True) for arch in archs] for archs in (ARCHS, pruned)]
    assert strings[0] == strings[1]


# ------------------------------------------------------------------------------------------------------- network class


def fingerprint(arch, rng_seed=0):
    """A number that two pruned cells share exactly if some bijection of their convolutions makes them compute the same.

    The cell is evaluated on a fixed number. Each layer is a generic function of its input sum, and the k-th convolution
    of a kind takes the k-th of a fixed list of random weights, under every assignment of the weights to the
    convolutions. Equal computations have equal sets of outputs, different ones share no output but by accident, so the
    smallest output stands for the set. Pooling is a generic layer too: the classes are of layers in their wiring, not
    of functions, so `pool(a + b)` and `pool(a) + pool(b)` differ.
    """
    rng = np.random.default_rng(rng_seed)
    weights = {CONV1: rng.uniform(1, 2, 6), CONV3: rng.uniform(3, 4, 6)}
    edges = {op: [e for e in range(6) if arch[e] == op] for op in weights}
    orders = itertools.product(*(itertools.permutations(range(len(edges[op]))) for op in weights))
    columns = []
    for order1, order3 in orders:
        column = np.zeros(6)
        column[edges[CONV1]] = weights[CONV1][list(order1)]
        column[edges[CONV3]] = weights[CONV3][list(order3)]
        columns.append(column)
    given = np.array(columns).T
    values = [np.full(given.shape[1], 0.7), None, None, None]
    for edge, (target, source) in enumerate(EDGES):
        x, op = values[source], arch[edge]
        if op == NONE or x is None:
            continue
        if op == POOL:
            x = np.cos(1.3 * x + 0.2)
        elif op != SKIP:
            x = np.sin(given[edge] * x + 0.1 * given[edge] ** 2)
        values[target] = x if values[target] is None else values[target] + x
    return 0.0 if values[3] is None else float(values[3].min())


def test_network_classes_are_the_cells_that_compute_the_same(pruned):
    """Equal class exactly where a bijection of the convolutions makes the pruned computations equal: all 15,625 cells.

    Two fingerprints are equal if they are within 1e-12; that no two are between 1e-12 and 1e-10 shows that rounding
    decides nothing.
    """
    known = {arch: fingerprint(arch) for arch in set(pruned)}
    values = np.array([known[arch] for arch in pruned])
    order = np.argsort(values)
    gaps = np.diff(values[order])
    assert not ((gaps > 1e-12) & (gaps < 1e-10)).any()
    group = np.empty(len(values), dtype=int)
    group[order] = np.concatenate([[0], np.cumsum(gaps > 1e-12)])
    assert network_classes() == numbered(group.tolist())


def test_network_classes_are_numbered_by_first_member():
    """Class numbers appear in order along the ranks, and `network_class` reads them."""
    classes = network_classes()
    assert classes == numbered(classes)
    assert [classes[0], classes[7777], classes[-1]] == [SPACE.network_class(ARCHS[i]) for i in (0, 7777, -1)]


def test_a_shared_node_is_not_two_convolutions():
    """`c(x) + pool(c(x))` with one convolution and with two: one string class, two network classes."""
    shared = (CONV3, NONE, POOL, NONE, SKIP, SKIP)  # node 1 = c(x); output = node 1 + pool(node 1)
    double = (CONV3, CONV3, NONE, NONE, POOL, SKIP)  # node 1 = c(x), node 2 = d(x); output = pool(node 1) + node 2
    assert unique_string(shared, propagate_zero=True) == unique_string(double, propagate_zero=True)
    assert SPACE.network_class(shared) != SPACE.network_class(double)
    assert (network_string(shared), network_string(double)) == (
        "avg_pool_3x3(nor_conv_3x3a(x))+nor_conv_3x3a(x)",
        "avg_pool_3x3(nor_conv_3x3a(x))+nor_conv_3x3b(x)",
    )


def test_the_order_of_a_sum_does_not_matter():
    """`x + (pool(x) + c(x))` and `(x + pool(x)) + c(x)`: two official classes, one network class."""
    left = (SKIP, POOL, SKIP, CONV3, NONE, SKIP)  # node 2 = pool(x) + x; output = c(x) + node 2
    right = (POOL, CONV3, SKIP, SKIP, NONE, SKIP)  # node 2 = c(x) + pool(x); output = x + node 2
    assert SPACE.canonical(left) != SPACE.canonical(right)
    assert SPACE.network_class(left) == SPACE.network_class(right)


def test_letters_are_chosen_so_that_the_string_is_smallest():
    """Which convolution is called `a` does not depend on the edge that it stands on."""
    one = (CONV3, CONV3, NONE, NONE, POOL, SKIP)
    other = (CONV3, CONV3, NONE, NONE, SKIP, POOL)
    assert network_string(one) == network_string(other)


def test_the_zero_cell_is_a_class_of_its_own():
    """A cell whose output the input does not reach is "0"."""
    assert {"0"} == {network_string(arch) for arch in ARCHS if not paths(arch)}
    assert len({SPACE.network_class(arch) for arch in ARCHS if not paths(arch)}) == 1


def test_official_order_does_not_touch_global_randomness():
    """The official shuffle uses a generator of its own."""
    import random

    state = random.getstate()
    nasbench201._official_order.cache_clear()
    SPACE.from_index(3)
    assert state == random.getstate()
