import ast
import collections
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasharness.benchmarks.spaces import darts
from nasharness.benchmarks.spaces.base import InvalidArchitecture
from nasharness.benchmarks.spaces.darts import (
    FEATURE_NAMES,
    NODES,
    OPERATIONS,
    PAIRS,
    DARTSSpace,
    Genotype,
    count_cost,
)

SPACE = DARTSSpace()
PREFIX = "NetworkSelectorDatasetInfo:darts:"
ARCHS = st.tuples(*(st.integers(0, n - 1) for n in SPACE.cardinalities))
FAST = settings(max_examples=100, deadline=None)

DARTS_V2 = Genotype(  # the published cells of DARTS (second order), in their published order
    normal=(
        ("sep_conv_3x3", 0),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 0),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1),
        ("skip_connect", 0),
        ("skip_connect", 0),
        ("dil_conv_3x3", 2),
    ),
    normal_concat=(2, 3, 4, 5),
    reduce=(
        ("max_pool_3x3", 0),
        ("max_pool_3x3", 1),
        ("skip_connect", 2),
        ("max_pool_3x3", 1),
        ("max_pool_3x3", 0),
        ("skip_connect", 2),
        ("skip_connect", 2),
        ("max_pool_3x3", 1),
    ),
    reduce_concat=(2, 3, 4, 5),
)
V2 = (3, 3, 3, 3, 2, 3, 2, 5, 0, 0, 1, 0, 0, 0, 2, 0, 2, 0, 2, 2, 1, 4)


@pytest.fixture(scope="module")
def vectors(shared_data):
    """Configurations and feature vectors of the official code for 43 genotypes."""
    return json.loads((shared_data / "official" / "nb301_genotype_vectors.json").read_text())


@pytest.fixture(scope="module")
def networks(shared_data):
    """Parameter counts of the official networks of the same 43 genotypes."""
    return json.loads((shared_data / "official" / "nb301_networks.json").read_text())


def official(case):
    """The architecture of a case of the official vectors."""
    return SPACE.from_genotype((case["normal"], range(2, 6), case["reduce"], range(2, 6)))


# ---------------------------------------------------------------------------------------------------------- the space


def test_size():
    """Sixteen operations out of seven, and 3 * 6 * 10 input pairs per cell."""
    assert SPACE.size == 7**16 * 180**2 == math.prod(SPACE.cardinalities)
    assert len(SPACE.cardinalities) == 22


def test_choices_are_in_the_official_order(vectors):
    """Operations and input pairs are numbered as in the official configuration space."""
    choices = vectors["choices"]
    for cell in ("normal", "reduce"):
        for edge in range(14):
            assert choices[f"{PREFIX}edge_{cell}_{edge}"] == list(OPERATIONS)
        for node in (3, 4, 5):
            assert choices[f"{PREFIX}inputs_node_{cell}_{node}"] == [f"{a}_{b}" for a, b in PAIRS[node]]


# ---------------------------------------------------------------------------------------------------------- genotypes


def test_a_published_genotype():
    """DARTS_V2 as a vector: the smaller input of each node first."""
    assert SPACE.from_genotype(DARTS_V2) == V2
    assert SPACE.genotype(V2).normal[4:6] == (("skip_connect", 0), ("sep_conv_3x3", 1))
    assert SPACE.genotype(V2).reduce_concat == (2, 3, 4, 5)


@FAST
@given(ARCHS, st.lists(st.booleans(), min_size=8, max_size=8))
def test_genotypes_keep_the_architecture(arch, swaps):
    """An architecture survives its genotype, whatever the order inside the nodes, as lists or tuples."""
    genotype = SPACE.genotype(arch)
    assert SPACE.from_genotype(genotype) == arch
    cells = []
    for cell, flips in ((genotype.normal, swaps[:4]), (genotype.reduce, swaps[4:])):
        nodes = [list(cell[k : k + 2]) for k in range(0, 8, 2)]
        cells.append(
            [list(pair) for node, flip in zip(nodes, flips, strict=True) for pair in node[:: -1 if flip else 1]]
        )
    theirs = collections.namedtuple("Genotype", Genotype._fields)(cells[0], range(2, 6), cells[1], [2, 3, 4, 5])
    assert SPACE.from_genotype(theirs) == arch


def test_concat_is_ignored():
    """As officially: what the cells concatenate does not change the architecture."""
    for concat in (range(2, 6), [5, 2], (), None):
        assert SPACE.from_genotype((DARTS_V2.normal, concat, DARTS_V2.reduce, concat)) == V2


def changed(position, pair, cell="normal"):
    """DARTS_V2 with one (operation, input) replaced."""
    pairs = list(getattr(DARTS_V2, cell))
    pairs[position] = pair
    return DARTS_V2._replace(**{cell: tuple(pairs)})


@pytest.mark.parametrize(
    ("genotype", "named"),
    [
        (changed(3, ("none", 1)), "unknown operation 'none' in the normal cell; known: max_pool_3x3"),
        (changed(6, ("conv_7x1_1x7", 1), "reduce"), "unknown operation 'conv_7x1_1x7' in the reduce cell"),
        (changed(2, (3, 0)), "unknown operation 3"),
        (changed(2, ("sep_conv_3x3", 1)), "node 3 of the normal cell has input 1 twice"),
        (changed(0, ("sep_conv_3x3", 1)), "node 2 of the normal cell has input 1 twice"),
        (changed(1, ("sep_conv_3x3", 2)), r"input 2 of node 2 of the normal cell is not in 0..1"),
        (changed(7, ("sep_conv_3x3", 5), "reduce"), r"input 5 of node 5 of the reduce cell is not in 0..4"),
        (changed(7, ("sep_conv_3x3", -1)), "input -1 of node 5"),
        (changed(7, ("sep_conv_3x3", True)), "input True of node 5"),
        (changed(7, ("sep_conv_3x3", "0")), "input '0' of node 5"),
        (changed(7, ("sep_conv_3x3",)), "is not a pair"),
        (changed(7, None), "None in the normal cell is not a pair"),
        (DARTS_V2._replace(normal=DARTS_V2.normal[:7]), "the normal cell of a genotype is 8 pairs"),
        (DARTS_V2._replace(reduce=(*DARTS_V2.reduce, ("skip_connect", 0))), "the reduce cell of a genotype is 8 pairs"),
        (DARTS_V2._replace(normal="skip"), "the normal cell of a genotype is 8 pairs"),
        (DARTS_V2[:3], "a genotype is"),
        (7, "a genotype is .*, not 7"),
    ],
)
def test_a_genotype_outside_the_space_is_refused(genotype, named):
    """The official cases of ValueError, and broken lists, each with what is wrong."""
    with pytest.raises(InvalidArchitecture, match=named):
        SPACE.from_genotype(genotype)


# ------------------------------------------------------------------------------------------------------------ strings


def test_string_form():
    """The text is the one that the field pastes around."""
    assert SPACE.to_string(V2) == (
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),"
        " ('skip_connect', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), ('dil_conv_3x3', 2)],"
        " normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('max_pool_3x3', 1),"
        " ('skip_connect', 2), ('max_pool_3x3', 0), ('skip_connect', 2), ('max_pool_3x3', 1), ('skip_connect', 2)],"
        " reduce_concat=range(2, 6))"
    )
    assert "normal_concat=[4, 5], reduce=" in repr(DARTS_V2._replace(normal_concat=(4, 5)))


@FAST
@given(ARCHS)
def test_strings_keep_the_architecture(arch):
    """An architecture survives its text."""
    assert SPACE.from_string(SPACE.to_string(arch)) == arch


def test_other_spellings_of_the_text():
    """Lists and tuples, line breaks, positional fields, any order of the fields."""
    text = repr(DARTS_V2)
    assert SPACE.from_string(text) == V2
    assert SPACE.from_string(text.replace("range(2, 6)", "[2, 3, 4, 5]")) == V2
    assert SPACE.from_string(text.replace("range(2, 6)", "(2,3,4,5)").replace(", ", " ,\n\t")) == V2
    assert SPACE.from_string(f"\n  {text} \n".replace("[", "(").replace("]", ")").replace("'", '"')) == V2
    for name in Genotype._fields:
        text = text.replace(f"{name}=", "")
    assert SPACE.from_string(text) == V2
    normal, concat, reduce = list(DARTS_V2.normal), "range(2, 6)", list(DARTS_V2.reduce)
    assert (
        SPACE.from_string(f"Genotype({normal}, {concat}, reduce_concat={concat}, reduce={reduce})") == V2
    )  # fields by name in any order


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Genotype",
        "Genotype()",
        "3-3-3",
        "|none~0|",
        "Genotype(normal=[], normal_concat=[], reduce=[], reduce_concat=[])",
        "Genotype(normal=1, normal_concat=2, reduce=3)",
        "Genotype(1, 2, 3, 4, 5)",
        "Genotype(1, 2, 3, 4, normal=1)",
        "Genotype(1, 2, normal=3, reduce=4)",
        "Genotype(1, 2, 3, other=4)",
        "Genotype(*[1, 2, 3, 4])",
        "Genotype(**{})",
        "genotypes.Genotype(1, 2, 3, 4)",
        "Genotype(normal=[('sep_conv_3x3', 0",
        "Genotype(open('x'), 2, 3, 4)",
        "Genotype(1, range(2, 9999999999), 3, 4)",
        "Genotype(1, range(6), 3, 4)",
        "Genotype(1, range(2, x), 3, 4)",
        "Genotype(1, range(2, True), 3, 4)",
        "__import__('os')",
        "Genotype('\\x41', 2, 3, 4)",
        "Genotype(\x00)",
        "(" * 5000,
        "[" * 150 + "]" * 150,
        "Genotype(" + "(" * 190 + ")" * 190 + ", 2, 3, 4)",
        "1" * 9000,
        "1" * 20_000,
    ],
    ids=lambda text: text[:40],
)
def test_a_text_that_is_no_genotype_is_refused(text):
    """Whatever the text: an InvalidArchitecture of bounded length, and nothing in it is run."""
    with pytest.raises(InvalidArchitecture) as error:
        SPACE.from_string(text)
    assert len(str(error.value)) < 1000


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_texts(data):
    """A text with one character replaced is refused, or means what Python's own parser says it means."""
    text = SPACE.to_string(V2)
    at = data.draw(st.integers(0, len(text) - 1))
    text = text[:at] + data.draw(st.sampled_from("01256,()[]'= _x\n-\\#")) + text[at + 1 :]
    try:
        arch = SPACE.from_string(text)
    except InvalidArchitecture:
        return
    call = ast.parse(text, mode="eval").body
    fields = {k.arg: ast.literal_eval(k.value) for k in call.keywords if not k.arg.endswith("concat")}
    assert arch == SPACE.from_genotype((fields["normal"], None, fields["reduce"], None))


# --------------------------------------------------------------------------------------------- configuration space


def test_configurations_are_the_official_ones(vectors):
    """The 22 active parameters of 43 official genotypes, there and back."""
    assert len(vectors["cases"]) == 43
    for case in vectors["cases"]:
        arch = official(case)
        config = SPACE.configspace(arch)
        assert config == {PREFIX + name: value for name, value in case["config"].items()}
        assert SPACE.from_configspace(config) == arch == SPACE.from_configspace(case["config"])


@FAST
@given(ARCHS)
def test_configurations_keep_the_architecture(arch):
    """An architecture survives its configuration, with or without prefixes, and beside parameters that are not its own."""
    config = SPACE.configspace(arch)
    assert len(config) == 22
    assert SPACE.from_configspace(config) == arch
    plain = {name.removeprefix(PREFIX): value for name, value in config.items()}
    inactive = dict.fromkeys(set(FEATURE_NAMES) - set(config))
    assert SPACE.from_configspace({**plain, **inactive, "OptimizerSelector:sgd:learning_rate": 0.1}) == arch


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"edge_normal_0": None}, "edge_normal_0 is missing; give one of max_pool_3x3"),
        ({"inputs_node_reduce_5": None}, "inputs_node_reduce_5 is missing; give one of 0_1"),
        ({"inputs_node_normal_3": "1_1"}, "inputs_node_normal_3 is '1_1'; its values are 0_1, 0_2, 1_2"),
        ({"inputs_node_normal_3": "1_2"}, "edge_normal_4 is missing"),
        ({"edge_reduce_0": "none"}, "edge_reduce_0 is 'none'"),
        ({"edge_reduce_0": 3}, "edge_reduce_0 is 3"),
        ({"edge_normal_4": "skip_connect"}, "edge_normal_4 must not be given"),
        (
            {"edge_normal_14": "skip_connect", "inputs_node_normal_2": "0_1"},
            "edge_normal_14, inputs_node_normal_2 must",
        ),
    ],
)
def test_a_configuration_outside_the_space_is_refused(change, named):
    """A missing, unknown or inactive parameter and an illegal value are named."""
    config = {name.removeprefix(PREFIX): value for name, value in SPACE.configspace(V2).items()}
    with pytest.raises(InvalidArchitecture, match=named):
        SPACE.from_configspace(config | change)


# ----------------------------------------------------------------------------------------------------------- features


def slow_features(arch):
    """One feature vector from the genotype, by names."""
    values = dict.fromkeys(FEATURE_NAMES, -1.0) | darts._CONSTANTS
    genotype = SPACE.genotype(arch)
    first_edge = {2: 0, 3: 2, 4: 5, 5: 9}
    for cell, pairs in (("normal", genotype.normal), ("reduce", genotype.reduce)):
        for node in NODES:
            chosen = pairs[2 * node - 4 : 2 * node - 2]
            for op, source in chosen:
                values[f"{PREFIX}edge_{cell}_{first_edge[node] + source}"] = float(OPERATIONS.index(op))
            if node > 2:
                pair = tuple(source for _, source in chosen)
                number = list(itertools.combinations(range(node), 2)).index(pair)
                values[f"{PREFIX}inputs_node_{cell}_{node}"] = float(number)
    return [values[name] for name in FEATURE_NAMES]


def test_features_are_the_official_ones(vectors):
    """Names, constants and the vectors of 43 official genotypes, bit by bit."""
    assert list(FEATURE_NAMES) == vectors["parameter_order"]
    expected = np.array([case["vector"] for case in vectors["cases"]])
    actual = SPACE.features([official(case) for case in vectors["cases"]])
    assert actual.dtype == np.float64
    assert expected.tobytes() == actual.tobytes()
    for position, value in vectors["constant_positions"].items():
        assert darts._CONSTANTS[FEATURE_NAMES[int(position)]] == value


def test_features_of_a_published_genotype():
    """DARTS_V2 by hand: edges 0 and 1 and the input pairs come first, edges 10..13 before 2..9."""
    (features,) = SPACE.features([V2])
    assert features[10:14].tolist() == [3, 3, 0, 0]
    assert features[15:21].tolist() == [0, 0, 1, 2, 1, 4]
    assert features[32:36].tolist() == [-1, 5, -1, -1]  # normal edges 10..13
    assert features[36:44].tolist() == [3, 3, -1, 2, 3, -1, -1, 2]  # normal edges 2..9
    assert features[44:48].tolist() == [0, 2, -1, -1]  # reduction edges 10..13
    assert features[48:56].tolist() == [-1, 0, 2, 0, -1, 2, -1, -1]  # reduction edges 2..9
    assert (features[[0, 14, 28, 31]] == [0.5863451791322545, 0.003149999006299998, 1e-12, 0.7051278400653053]).all()


@FAST
@given(st.lists(ARCHS, max_size=5))
def test_features_agree_with_the_slow_way(archs):
    """The vectorised encoding equals the one that fills in names one by one."""
    actual = SPACE.features(archs)
    assert actual.shape == (len(archs), 56)
    assert actual.tolist() == [slow_features(arch) for arch in archs]
    assert SPACE.features(np.array(archs, dtype=np.int8).reshape(-1, 22)).tolist() == actual.tolist()


def test_features_tell_architectures_apart():
    """A neighbour has other features."""
    for other in SPACE.neighbours(V2):
        assert SPACE.features([other]).tolist() != SPACE.features([V2]).tolist()


@pytest.mark.parametrize(
    "archs",
    [
        [V2[:-1]],
        V2,
        [(*V2[:-1], 10)],
        [(-1, *V2[1:])],
        np.array([V2], dtype=float),
        [["a"] * 22],
        np.zeros((1, 2, 11), int),
    ],
    ids=["short", "one architecture", "too large", "negative", "floats", "strings", "three axes"],
)
def test_features_of_something_else_are_refused(archs):
    """Only whole numbers in range, of shape (n, 22)."""
    with pytest.raises(InvalidArchitecture, match="features"):
        SPACE.features(archs)


def test_features_of_several_lengths_are_refused():
    """With the name of the one that is wrong, not with NumPy's complaint."""
    with pytest.raises(InvalidArchitecture, match="has 21 choices; darts has 22"):
        SPACE.features([(0,) * 22, (0,) * 21])


# ---------------------------------------------------------------------------------------------------------- canonical


def edges(cell):
    """The edges (source, target, operation) of 11 choices."""
    targets = [node for node in NODES for _ in (0, 1)]
    sources = [s for node, pair in zip(NODES, (0, *cell[8:]), strict=True) for s in PAIRS[node][pair]]
    return list(zip(sources, targets, cell[:8], strict=True))


def form(cell):
    """A slow canonical form: the smallest edge list over all 24 bijections of the inner nodes, in any order."""
    graph = edges(cell)
    names = [(0, 1, *order) for order in itertools.permutations(NODES)]
    return min(tuple(sorted((new[s], new[t], op) for s, t, op in graph)) for new in names)


def test_canonical_cells_are_the_isomorphism_classes():
    """Over all 180 wirings and some operations, canonical vectors and isomorphism split the cells alike."""
    wirings = list(itertools.product(range(3), range(6), range(10)))
    patterns = [(2,) * 8] + [(2,) * k + (3,) + (2,) * (7 - k) for k in range(8)] + [(0, 1, 2, 3, 4, 5, 6, 0)]
    groups, seen = collections.defaultdict(set), collections.defaultdict(set)
    for operations in patterns:
        for wiring in wirings:
            cell = (*operations, *wiring)
            canonical = SPACE.canonical((*cell, *cell))
            assert canonical[:11] == canonical[11:]
            groups[canonical[:11]].add(form(cell))
            seen[form(cell)].add(canonical[:11])
    assert len(groups) > 500
    assert {len(forms) for forms in groups.values()} == {1}
    assert {len(cells) for cells in seen.values()} == {1}
    assert sum(1 for cell in groups if cell[:8] == (2,) * 8) == len({form((*(2,) * 8, *wiring)) for wiring in wirings})


@FAST
@given(ARCHS)
def test_canonical_is_an_equal_architecture(arch):
    """The representative is isomorphic, not larger, its own representative, and each cell is treated on its own."""
    canonical = SPACE.canonical(arch)
    assert SPACE.check(canonical) <= arch
    assert SPACE.canonical(canonical) == canonical
    assert form(canonical[:11]) == form(arch[:11])
    assert form(canonical[11:]) == form(arch[11:])
    assert SPACE.canonical((*canonical[:11], *arch[11:])) == canonical


@FAST
@given(ARCHS, st.permutations(NODES))
def test_renumbered_cells_have_one_canonical_form(arch, order):
    """Renumber the nodes of the normal cell; where that is a cell at all, it has the same representative."""
    new = (0, 1, *order)
    pairs = collections.defaultdict(list)
    for source, target, op in edges(arch[:11]):
        pairs[new[target]].append((OPERATIONS[op], new[source]))
    normal = [pair for node in NODES for pair in pairs[node]]
    if all(source < NODES[k // 2] for k, (_, source) in enumerate(normal)):
        other = SPACE.from_genotype((normal, None, SPACE.genotype(arch).reduce, None))
        assert SPACE.canonical(other) == SPACE.canonical(arch)
    else:
        with pytest.raises(InvalidArchitecture, match="is not in 0"):
            SPACE.from_genotype((normal, None, SPACE.genotype(arch).reduce, None))


# --------------------------------------------------------------------------------------------------------------- cost


def test_parameters_are_the_official_ones(vectors, networks):
    """Parameters of 43 official networks in four settings, exactly."""
    for case, counts in zip(vectors["cases"], networks["cases"], strict=True):
        assert case["name"] == counts["name"]
        for channels, layers in ((32, 8), (36, 20)):
            for auxiliary in (True, False):
                params, _ = count_cost(official(case), channels=channels, layers=layers, auxiliary=auxiliary)
                assert params == counts[f"C{channels}_L{layers}_{'with' if auxiliary else 'no'}_aux"], case["name"]


def test_parameters_of_a_published_network():
    """DARTS_V2 with 36 channels and 20 layers: the 3.35 million parameters that its authors print."""
    assert count_cost(V2, channels=36, layers=20, auxiliary=False)[0] == 3_349_342
    assert count_cost(V2)[0] == 1_387_956


def test_parameters_of_a_trained_network():
    """A training record of NAS-Bench-301's authors (50 channels, 20 layers): configuration and parameters."""
    operations = {
        "normal": {0: 2, 1: 3, 2: 3, 3: 2, 5: 5, 7: 6, 10: 3, 11: 2},
        "reduce": {0: 0, 1: 1, 2: 2, 3: 6, 6: 3, 7: 4, 11: 3, 12: 5},
    }
    inputs = {"normal": ("0_1", "0_2", "1_2"), "reduce": ("0_1", "1_2", "2_3")}
    config = {
        f"{PREFIX}edge_{cell}_{edge}": OPERATIONS[op] for cell, ops in operations.items() for edge, op in ops.items()
    } | {
        f"{PREFIX}inputs_node_{cell}_{node}": pair
        for cell in inputs
        for node, pair in zip((3, 4, 5), inputs[cell], strict=True)
    }
    config |= {f"{PREFIX}init_channels": 50, f"{PREFIX}layers": 20, "OptimizerSelector:optimizer": "sgd"}
    assert count_cost(SPACE.from_configspace(config), channels=50, layers=20)[0] == 6_369_358


def test_cost_does_not_depend_on_the_numbering():
    """Isomorphic architectures cost the same."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        arch = SPACE.sample(rng)
        assert count_cost(SPACE.canonical(arch)) == count_cost(arch)


@pytest.mark.parametrize("settings", [{"layers": 0}, {"channels": 0}, {"image_size": 30}, {"image_size": 0}])
def test_impossible_networks_have_no_cost(settings):
    """No layer, no channel, or an image that cannot be halved twice."""
    with pytest.raises(ValueError, match=r"must be positive, and the side divisible by"):
        count_cost(V2, **settings)
