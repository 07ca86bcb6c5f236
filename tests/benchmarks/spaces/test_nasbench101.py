import hashlib
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasharness.benchmarks.spaces import nasbench101
from nasharness.benchmarks.spaces.base import InvalidArchitecture, SearchSpace
from nasharness.benchmarks.spaces.nasbench101 import (
    INPUT,
    MAX_EDGES,
    NUM_CLASSES,
    NUM_VECTORS,
    OPERATIONS,
    OUTPUT,
    Graph,
    NASBench101Space,
    canonical_graph,
    count_cost,
    enumerate_classes,
    graph_from_matrix,
    module_hash,
    module_widths,
    prune,
    vertex_channels,
    wiring,
)

SPACE = NASBench101Space()
CONV3, CONV1, POOL = OPERATIONS
INCEPTION = (  # the example of the official README
    [
        [0, 1, 1, 1, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 0],
    ],
    [INPUT, CONV1, CONV3, CONV3, CONV3, POOL, OUTPUT],
)
INCEPTION_HASH = "28cfc7874f6d200472e1a9dcd8650aa0"
LINE = Graph(2, 1, ())


@pytest.fixture(scope="module")
def specs(shared_data):
    """Answers of the official `ModelSpec` and of the functions around it to 48 cells, by name."""
    vectors = json.loads((shared_data / "official" / "nb101_spec_hashes.json").read_text())
    assert len(vectors["specs"]) == 48
    return vectors


@pytest.fixture(scope="module")
def enumeration(shared_data):
    """What the official hash says about all cells."""
    return json.loads((shared_data / "official" / "nb101_enumeration.json").read_text())


# ------------------------------------------------------------------------------ slow implementations, from the definitions


def slow_kept(matrix):
    """Vertices on a path from the first to the last, by the transitive closure of the matrix."""
    reaches = np.linalg.matrix_power(np.array(matrix, dtype=object) + np.eye(len(matrix), dtype=int), len(matrix)) > 0
    return [v for v in range(len(matrix)) if reaches[0, v] and reaches[v, -1]]


def slow_hash(matrix, labels):
    """The official hash of a pruned matrix with labels from -1 to -2."""

    def md5(text):
        return hashlib.md5(text.encode()).hexdigest()

    n = len(matrix)
    out_degrees, in_degrees = matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist()
    hashes = [md5(str(t)) for t in zip(out_degrees, in_degrees, labels, strict=True)]
    for _ in range(n):
        fresh = []
        for v in range(n):
            incoming = sorted(hashes[w] for w in range(n) if matrix[w, v])
            outgoing = sorted(hashes[w] for w in range(n) if matrix[v, w])
            fresh.append(md5("".join(incoming) + "|" + "".join(outgoing) + "|" + hashes[v]))
        hashes = fresh
    return md5(str(sorted(hashes)))


def relabellings(graph):
    """The same cell in every order of its vertices that keeps the matrix upper triangular."""
    matrix = graph.matrix
    for order in itertools.permutations(range(1, graph.vertices - 1)):
        whole = [0, *order, graph.vertices - 1]
        permuted = matrix[np.ix_(whole, whole)]
        if not np.tril(permuted).any():
            yield graph_from_matrix(permuted, [graph.operations[v] for v in whole])


def full_matrix(arch):
    """The 7x7 matrix of an architecture, before pruning."""
    matrix = np.zeros((7, 7), dtype=int)
    matrix[np.triu_indices(7, 1)] = arch[:21]
    return matrix


def slow_is_valid(arch):
    matrix = full_matrix(arch)
    kept = slow_kept(matrix)
    return len(kept) >= 2 and matrix[np.ix_(kept, kept)].sum() <= 9


def graphs(min_vertices=2, max_vertices=7):
    """Any graphs, connected or not, of any number of edges."""
    return st.integers(min_vertices, max_vertices).flatmap(
        lambda v: st.builds(
            Graph,
            st.just(v),
            st.integers(0, 2 ** (v * (v - 1) // 2) - 1),
            st.tuples(*[st.integers(0, 2)] * (v - 2)),
        )
    )


def pruned_graphs(**limits):
    return graphs(**limits).map(prune).filter(lambda graph: graph is not None)


architectures = st.integers(0, 2**32 - 1).map(lambda seed: SPACE.sample(np.random.default_rng(seed)))


def draw(seed, n):
    rng = np.random.default_rng(seed)
    return [SPACE.sample(rng) for _ in range(n)]


# -------------------------------------------------------------------------------------------------- official numbers


def test_official_specs(specs):
    """Validity, pruned matrix and operations, number of edges and hash of 48 cells are the official ones."""
    for spec in specs["specs"]:
        pruned = prune(graph_from_matrix(spec["matrix"], spec["ops"]))
        assert (pruned is not None) == spec["valid_spec"], spec["name"]
        if pruned is None:
            continue
        assert pruned.matrix.tolist() == spec["pruned_matrix"], spec["name"]
        assert pruned.operations == spec["pruned_ops"], spec["name"]
        assert pruned.num_edges == spec["num_edges"], spec["name"]
        assert module_hash(pruned) == spec["hash"], spec["name"]


def test_official_specs_as_architectures(specs):
    """The space takes exactly the cells that the official `is_valid` takes, and gives them their hash."""
    for spec in specs["specs"]:
        graph = graph_from_matrix(spec["matrix"], spec["ops"])
        if spec["is_valid"]:
            arch = SPACE.from_graph(graph)
            assert SPACE.is_valid(arch)
            assert SPACE.hash(arch) == spec["hash"], spec["name"]
        else:
            with pytest.raises(InvalidArchitecture):
                SPACE.from_graph(graph)
    assert sum(not spec["is_valid"] for spec in specs["specs"]) == 2


def test_official_vertex_channels(specs):
    """Channels of every vertex of 47 cells for five pairs of input and output channels."""
    compared = 0
    for spec in specs["specs"]:
        for pair, expected in (spec.get("vertex_channels") or {}).items():
            inputs, outputs = map(int, pair.split("->"))
            graph = prune(graph_from_matrix(spec["matrix"], spec["ops"]))
            assert vertex_channels(graph, inputs, outputs) == expected, spec["name"]
            compared += 1
    assert compared >= 46 * 5


def test_official_parameters(specs):
    """Trainable parameters of 46 cells, exactly."""
    expected = {s["name"]: s["trainable_parameters"] for s in specs["specs"] if s["is_valid"]}
    actual = {
        s["name"]: count_cost(graph_from_matrix(s["matrix"], s["ops"]))[0] for s in specs["specs"] if s["is_valid"]
    }
    assert len(expected) == 46
    assert actual == expected


def test_first_record(shared_data):
    """The first record of the real file: spelling, hash and parameters."""
    record = json.loads((shared_data / "official" / "nb101_first_real_record.json").read_text())
    text = f"{record['raw_adjacency']}:{record['raw_operations']}"
    arch = SPACE.from_string(text)
    assert SPACE.to_string(arch) == text
    assert SPACE.hash(arch) == record["module_hash"]
    assert count_cost(SPACE.graph(arch))[0] == record["metrics"]["trainable_parameters"]


def test_published_hashes():
    """The README's Inception-like cell, and the cell without an operation."""
    assert module_hash(graph_from_matrix(*INCEPTION)) == INCEPTION_HASH
    assert module_hash(LINE) == "043721b9c7fe8c5fad811d47d83132ec"


def test_published_parameters():
    """The parameters that the official notebook prints for the README's cell."""
    assert count_cost(graph_from_matrix(*INCEPTION))[0] == 2_694_282


@pytest.mark.parametrize("dtype", [int, float, bool, np.int8, np.uint64, np.float32])
def test_hash_does_not_depend_on_the_type_of_the_matrix(specs, dtype):
    """The official hash of a matrix of floats is not in the dataset; here it is that of the whole numbers."""
    pitfall = specs["matrix_dtype_pitfall"]
    (spec,) = (spec for spec in specs["specs"] if spec["name"] == pitfall["name"])
    graph = graph_from_matrix(np.array(spec["matrix"], dtype=dtype), spec["ops"])
    assert module_hash(prune(graph)) == pitfall["int_hash"] != pitfall["float_hash"]


def test_hash_does_not_depend_on_the_type_of_the_fields():
    """NumPy integers and bools in a graph, or in an architecture, are spelt as Python's."""
    plain = graph_from_matrix(*INCEPTION)
    nasbench101._first_hash.cache_clear()
    numpy = Graph(np.int64(7), np.int64(plain.edges), tuple(np.array(plain.labels)))
    assert module_hash.__wrapped__(numpy) == INCEPTION_HASH
    nasbench101._first_hash.cache_clear()
    chain = Graph(3, 0b101, (True,))
    assert module_hash.__wrapped__(chain) == module_hash.__wrapped__(Graph(3, 0b101, (1,)))
    nasbench101._first_hash.cache_clear()
    arch = tuple(np.array(SPACE.from_graph(plain)))
    assert SPACE.hash(arch) == INCEPTION_HASH
    assert all(type(label) is int for label in SPACE.graph(arch).labels)


@pytest.mark.parametrize(
    ("matrix", "operations", "case"),
    [
        ([[0, 1, 0], [0, 0, 1]], [INPUT, POOL, OUTPUT], "not square"),
        ([[0, 1], [0]], [INPUT, OUTPUT], "not square"),
        ([0, 1], [INPUT, OUTPUT], "not square"),
        (INCEPTION[0], INCEPTION[1][:-1], "len(ops) mismatch"),
        ([[0, 1], [1, 0]], [INPUT, OUTPUT], "not upper triangular"),
        ([[0, 1], [0, 1]], [INPUT, OUTPUT], "not upper triangular"),
    ],
)
def test_official_errors(specs, matrix, operations, case):
    """The three checks of the official `ModelSpec`, with its words."""
    words = specs["errors"][case].removeprefix("builtins.ValueError: ")
    with pytest.raises(ValueError, match=f"^{words}$"):
        graph_from_matrix(matrix, operations)


def test_official_enumeration_samples(enumeration):
    """300 cells of the official enumeration have their hash and are classes of their own canonical form."""
    for expected, vertices, edges, labels in enumeration["sample"]:
        graph = Graph(vertices, edges, tuple(map(int, labels)))
        assert prune(graph) == graph
        assert module_hash(graph) == expected
        canonical = canonical_graph(graph)
        assert module_hash(canonical) == expected
        assert SPACE.hash(SPACE.from_graph(canonical)) == expected
    assert len(enumeration["sample"]) == 300


def check_enumeration(enumeration, classes):
    """Compare enumerated classes with the official counts per number of vertices and with the sampled hashes."""
    vertices = {graph.vertices for graph, _ in classes}
    official = {int(v): n for v, n in enumeration["unique_by_V"].items() if int(v) in vertices}
    assert {v: sum(graph.vertices == v for graph, _ in classes) for v in vertices} == official
    by_hash = {name: graph for graph, name in classes}
    assert len(by_hash) == len(classes)
    compared = 0
    for name, v, edges, labels in enumeration["sample"]:
        if v in vertices:
            assert by_hash[name] == canonical_graph(Graph(v, edges, tuple(map(int, labels))))
            compared += 1
    return compared


def test_enumeration_up_to_five_vertices(enumeration):
    """1, 6, 84 and 2,441 classes of 2 to 5 vertices: exact isomorphism and the official hash agree."""
    classes = list(enumerate_classes(5))
    assert [sum(g.vertices <= v for g, _ in classes) for v in (2, 3, 4, 5)] == [1, 7, 91, 2532]
    check_enumeration(enumeration, classes)


@pytest.mark.slow
def test_enumeration_of_six_vertices(enumeration):
    """64,542 classes up to 6 vertices."""
    classes = list(enumerate_classes(6))
    assert len(classes) == 64_542
    assert check_enumeration(enumeration, classes) > 10


@pytest.mark.slow
def test_enumeration_of_the_whole_space(enumeration):
    """All 423,624 classes, and the digest of their sorted hashes."""
    classes = list(enumerate_classes(7))
    assert check_enumeration(enumeration, classes) == 300
    assert len(classes) == NUM_CLASSES == enumeration["total_unique"]
    hashes = sorted(name for _, name in classes)
    assert hashes[:5] == enumeration["first5"]
    assert hashes[-5:] == enumeration["last5"]
    digest = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    assert digest == enumeration["sha256_of_sorted_hashes_joined_by_newline"]


def test_enumeration_is_complete():
    """Up to 4 vertices: every labelled cell's hash, by the slow implementation, is listed, and no other."""
    expected = set()
    for v in (2, 3, 4):
        for entries in itertools.product((0, 1), repeat=v * (v - 1) // 2):
            matrix = np.zeros((v, v), dtype=int)
            matrix[np.triu_indices(v, 1)] = entries
            if len(slow_kept(matrix)) == v:
                for labels in itertools.product(range(3), repeat=v - 2):
                    expected.add(slow_hash(matrix, [-1, *labels, -2]))
    assert {name for _, name in enumerate_classes(4)} == expected


# ------------------------------------------------------------------------------------------------------------ graphs


@given(graphs())
def test_matrix_and_edges_agree(graph):
    """Bit x + y(y-1)/2 is the matrix's entry (x, y); `graph_from_matrix` is the inverse."""
    matrix = graph.matrix
    assert matrix.dtype == np.int8
    for x, y in itertools.product(range(graph.vertices), repeat=2):
        assert matrix[x, y] == (x < y and graph.edges >> x + y * (y - 1) // 2 & 1)
    assert graph.num_edges == matrix.sum()
    assert graph_from_matrix(matrix, graph.operations) == graph
    sources, targets = wiring(graph.vertices, graph.edges)
    assert [np.flatnonzero(column).tolist() for column in matrix.T] == [list(s) for s in sources]
    assert [np.flatnonzero(row).tolist() for row in matrix] == [list(t) for t in targets]


@given(graphs(max_vertices=9))
def test_prune_is_the_definition(graph):
    """Pruning keeps the rows, columns and operations of the vertices on paths from input to output."""
    kept = slow_kept(graph.matrix)
    pruned = prune(graph)
    if len(kept) < 2:
        assert pruned is None
    else:
        assert pruned.matrix.tolist() == graph.matrix[np.ix_(kept, kept)].tolist()
        assert pruned.operations == [graph.operations[v] for v in kept]
        assert prune(pruned) == pruned


@given(pruned_graphs())
def test_hash_is_the_definition(graph):
    assert module_hash(graph) == slow_hash(graph.matrix, [-1, *graph.labels, -2])


@settings(max_examples=40)
@given(pruned_graphs(max_vertices=6))
def test_isomorphic_cells_are_one(graph):
    """Every order of the vertices has the same hash and the same canonical form, which is one of these orders."""
    orders = set(relabellings(graph))
    assert graph in orders
    assert len({module_hash(other) for other in orders}) == 1
    assert {canonical_graph(other) for other in orders} <= orders
    assert len({canonical_graph(other) for other in orders}) == 1


@given(pruned_graphs(min_vertices=4, max_vertices=5), pruned_graphs(min_vertices=4, max_vertices=5))
def test_canonical_graphs_are_equal_only_for_isomorphic_cells(a, b):
    """Brute force over all orders, the canonical form and the hash agree on any two cells."""
    isomorphic = a in set(relabellings(b))
    assert (canonical_graph(a) == canonical_graph(b)) == isomorphic
    assert (module_hash(a) == module_hash(b)) == isomorphic


def test_canonical_graph_of_symmetric_cells():
    """Five interchangeable vertices, in every assignment of operations: one class per multiset of operations."""
    star = [[0, 1, 1, 1, 1, 1, 0], *([[0] * 6 + [1]] * 5), [0] * 7]
    canonical = {}
    for labels in itertools.product(range(3), repeat=5):
        graph = graph_from_matrix(star, [INPUT, *(OPERATIONS[label] for label in labels), OUTPUT])
        canonical.setdefault(canonical_graph(graph), set()).add(tuple(sorted(labels)))
    assert len(canonical) == 21
    assert all(len(multisets) == 1 for multisets in canonical.values())


@pytest.mark.parametrize(
    ("matrix", "operations", "words"),
    [
        ([[0, 2], [0, 0]], [INPUT, OUTPUT], "an entry 2"),
        ([[0, -1], [0, 0]], [INPUT, OUTPUT], "an entry -1"),
        ([[0, 0.5], [0, 0]], [INPUT, OUTPUT], "an entry 0.5"),
        ([[0, float("nan")], [0, 0]], [INPUT, OUTPUT], "an entry nan"),
        ([["0", "1"], ["0", "0"]], [INPUT, OUTPUT], "consist of numbers"),
        ([[0, 1j], [0, 0]], [INPUT, OUTPUT], "consist of numbers"),
        ([[0]], [INPUT], "1 vertices"),
        (np.zeros((0, 0)), [], "0 vertices"),
        ([[0, 1], [0, 0]], [OUTPUT, INPUT], "begin with 'input'"),
        ([[0, 1], [0, 0]], [INPUT, POOL], "end with 'output'"),
        (INCEPTION[0], [INPUT, *["conv5x5-bn-relu"] * 5, OUTPUT], "unknown operation 'conv5x5-bn-relu'"),
    ],
)
def test_graph_from_matrix_refuses(matrix, operations, words):
    with pytest.raises(ValueError, match=words):
        graph_from_matrix(matrix, operations)


# ------------------------------------------------------------------------------------------------------------- space


def test_dimensions():
    """21 edges and five operations; the first choices are the first row of the matrix."""
    assert SPACE.cardinalities == (2,) * 21 + (3,) * 5
    arch = (1, 0, 0, 0, 0, 0, *(0,) * 4, 1, *(0,) * 10, 2, 1, 0, 0, 0)
    matrix = np.zeros((7, 7), dtype=int)
    matrix[0, 1] = matrix[1, 6] = 1
    assert SPACE.graph(arch) == prune(graph_from_matrix(matrix, [INPUT, POOL, CONV1, CONV3, CONV3, CONV3, OUTPUT]))
    assert SPACE.graph(arch).operations == [INPUT, POOL, OUTPUT]


@given(st.tuples(*[st.integers(0, 1)] * 21, *[st.integers(0, 2)] * 5))
def test_is_valid_is_the_definition(arch):
    assert SPACE.is_valid(arch) == slow_is_valid(arch)


@given(st.sets(st.integers(0, 20), max_size=9), st.tuples(*[st.integers(0, 2)] * 5))
def test_sparse_architectures_are_valid_if_connected(edges, labels):
    """With at most nine edges before pruning, only a missing path makes a vector invalid."""
    arch = (*(int(d in edges) for d in range(21)), *labels)
    assert SPACE.is_valid(arch) == (len(slow_kept(full_matrix(arch))) > 0)


VALID = SPACE.from_graph(graph_from_matrix(*INCEPTION))


@pytest.mark.parametrize(
    "arch",
    [
        (),
        VALID[:-1],
        (*VALID, 0),
        (2, *VALID[1:]),
        (-1, *VALID[1:]),
        (300, *VALID[1:]),
        (95, *VALID[1:]),
        (0.5, *VALID[1:]),
        (*VALID[:-1], 3),
        (*VALID[:-1], -1),
        (0,) * 26,
        (1,) * 26,
    ],
)
def test_is_valid_refuses(arch):
    """Wrong length, choices out of range, no path, too many edges."""
    assert SPACE.is_valid(VALID)
    assert not SPACE.is_valid(arch)
    for refusing in (SPACE.check, SPACE.graph, SPACE.hash, SPACE.canonical, SPACE.to_string):
        with pytest.raises(InvalidArchitecture):
            refusing(arch)


def test_check_says_why():
    with pytest.raises(InvalidArchitecture, match="no path from its input to its output"):
        SPACE.check((0,) * 26)
    with pytest.raises(InvalidArchitecture, match="has 21 edges once pruned; at most 9"):
        SPACE.check((1,) * 21 + (0,) * 5)
    with pytest.raises(InvalidArchitecture, match="choice 3 in dimension 25"):
        SPACE.check((*VALID[:-1], 3))
    assert SPACE.check(np.array(VALID)) == VALID
    assert SPACE.check(list(VALID)) == VALID


def test_size_counts_the_valid_vectors():
    """The table of valid matrices has as many entries as the size says, and agrees with the definition where sampled."""
    valid = nasbench101._valid()
    assert len(valid) == 2**21
    assert valid.count(1) * 3**5 == SPACE.size == NUM_VECTORS
    assert len(nasbench101._valid_bits()) == valid.count(1)
    for rank in np.random.default_rng(1).integers(0, 2**21, 300).tolist():
        assert valid[rank] == slow_is_valid(SPACE.unrank(rank * 3**5))


@pytest.mark.slow
def test_size_by_pruning_every_matrix():
    """All 2**21 matrices, one at a time."""
    count = 0
    for edges in range(2**21):
        pruned = prune(Graph(7, edges, (0,) * 5))
        count += pruned is not None and pruned.num_edges <= MAX_EDGES
    assert count * 3**5 == NUM_VECTORS


def test_sample_is_uniform():
    """Each edge and each operation is chosen as often as in the list of all valid vectors, and as by rejection."""
    n = 4000
    archs = np.array(draw(2, n))
    assert all(map(slow_is_valid, archs[:200]))
    bits = nasbench101._valid_bits()
    exact = np.array([(bits >> 20 - d & 1).mean() for d in range(21)])
    deviations = (archs[:, :21].mean(axis=0) - exact) / np.sqrt(exact * (1 - exact) / n)
    assert np.abs(deviations).max() < 4.5
    for d in range(21, 26):
        assert np.abs(np.bincount(archs[:, d], minlength=3) / n - 1 / 3).max() < 4.5 * np.sqrt(2 / 9 / n)
    rng = np.random.default_rng(3)
    rejected = np.array([SearchSpace.sample(SPACE, rng) for _ in range(n)])
    assert np.abs(archs.mean(axis=0) - rejected.mean(axis=0)).max() < 4.5 * np.sqrt(2 * 2 / 3 / n)
    edges = [np.mean([SPACE.graph(tuple(a)).num_edges for a in drawn.tolist()]) for drawn in (archs, rejected)]
    assert abs(edges[0] - edges[1]) < 4.5 * np.sqrt(2 * 3**2 / n)


def test_sample_follows_the_generator():
    assert draw(4, 20) == draw(4, 20) != draw(5, 20)
    assert all(type(choice) is int for arch in draw(4, 20) for choice in arch)


@settings(max_examples=30)
@given(architectures)
def test_neighbours_are_the_valid_vectors_at_distance_one(arch):
    expected = set()
    for d, n in enumerate(SPACE.cardinalities):
        for choice in set(range(n)) - {arch[d]}:
            other = (*arch[:d], choice, *arch[d + 1 :])
            if slow_is_valid(other):
                expected.add(other)
    neighbours = SPACE.neighbours(arch)
    assert set(neighbours) == expected
    assert len(neighbours) == len(expected)
    assert SPACE.mutate(arch, np.random.default_rng(0)) in expected


def test_changing_a_pruned_vertex_keeps_the_cell():
    """The documented case: an operation without edges is a choice all the same."""
    arch = SPACE.from_graph(LINE)
    same = [other for other in SPACE.neighbours(arch) if SPACE.graph(other) == LINE]
    assert sum(other[:21] == arch[:21] for other in same) == 10


@given(graphs())
def test_from_graph_and_graph(graph):
    """A cell within the limits comes back pruned; any other is refused."""
    pruned = prune(graph)
    if pruned is not None and pruned.num_edges <= MAX_EDGES:
        arch = SPACE.from_graph(graph)
        assert SPACE.check(arch) == arch
        assert SPACE.graph(arch) == pruned
        assert SPACE.hash(arch) == module_hash(pruned)
    else:
        with pytest.raises(InvalidArchitecture):
            SPACE.from_graph(graph)


@given(architectures)
def test_from_graph_embeds_without_pruning(arch):
    """A graph of seven vertices keeps its vertices and edges, also those that pruning would remove."""
    operations = [INPUT, *(OPERATIONS[label] for label in arch[21:]), OUTPUT]
    assert SPACE.from_graph(graph_from_matrix(full_matrix(arch), operations)) == arch


def test_from_graph_uses_operation_0_for_what_is_left_over():
    arch = SPACE.from_graph(Graph(3, 0b101, (2,)))
    assert arch[21:] == (2, 0, 0, 0, 0)
    assert sum(arch[:21]) == 2


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (Graph(8, 1 << 21, (0,) * 6), "2 to 7 vertices, not 8"),
        (Graph(1, 0, ()), "2 to 7 vertices, not 1"),
        (Graph(3, 8, (0,)), "do not fit"),
        (Graph(3, -1, (0,)), "do not fit"),
        (Graph(3, 5, (0, 0)), "do not fit"),
        (Graph(3, 1, (0,)), "no path"),
        (Graph(3, 5, (3,)), "choice 3 in dimension 21"),
        (Graph(5, 2**10 - 1, (0, 0, 0)), "10 edges once pruned"),
    ],
)
def test_from_graph_refuses(graph, words):
    with pytest.raises(InvalidArchitecture, match=words):
        SPACE.from_graph(graph)


@settings(max_examples=30)
@given(architectures)
def test_canonical(arch):
    """Idempotent, of the same class, and the same for every order of the cell's vertices."""
    canonical = SPACE.canonical(arch)
    assert SPACE.canonical(canonical) == canonical
    assert SPACE.hash(canonical) == SPACE.hash(arch)
    orders = itertools.islice(relabellings(SPACE.graph(arch)), 10)
    assert {SPACE.canonical(SPACE.from_graph(order)) for order in orders} == {canonical}


def test_canonical_and_hash_count_the_same_classes():
    archs = draw(6, 2000)
    canonical, hashes = [SPACE.canonical(arch) for arch in archs], [SPACE.hash(arch) for arch in archs]
    assert len(set(canonical)) == len(set(hashes)) == len(set(zip(canonical, hashes, strict=True)))


@given(architectures)
def test_strings(arch):
    """The string is that of the pruned cell, in the spelling of the dataset, and gives the cell back."""
    text = SPACE.to_string(arch)
    graph = SPACE.graph(arch)
    assert text == "".join(map(str, graph.matrix.ravel())) + ":" + ",".join(graph.operations)
    again = SPACE.from_string(text)
    assert SPACE.graph(again) == graph
    assert SPACE.to_string(again) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not an architecture string"),
        ("0100", "is not an architecture string"),
        ("0100:input", "is not an architecture string"),
        ("0200:input,output", "is not an architecture string"),
        ("010:input,output", "is not an architecture string"),
        ("0110:input,output", "upper triangular"),
        ("0100:input,input", "end with 'output'"),
        ("010001000:input,conv,output", "unknown operation 'conv'"),
        ("0000:input,output", "no path"),
    ],
)
def test_from_string_refuses(text, words):
    with pytest.raises(InvalidArchitecture, match=words):
        SPACE.from_string(text)


@pytest.mark.parametrize("arch", [(0, *VALID[1:]), VALID])
def test_rank_and_unrank(arch):
    """The base class's, over all choice vectors."""
    assert SPACE.unrank(SPACE.rank(arch)) == arch


def test_repr_says_the_size():
    assert repr(SPACE) == f"NASBench101Space(size={NUM_VECTORS})"


# --------------------------------------------------------------------------------------------------- channels and cost


@given(pruned_graphs(), st.integers(1, 64), st.integers(5, 64))
def test_vertex_channels_obey_their_laws(graph, inputs, outputs):
    """What feeds the output adds up to it, evenly; no vertex has fewer channels than one it feeds, nor two more."""
    channels = vertex_channels(graph, inputs, outputs)
    assert (channels[0], channels[-1]) == (inputs, outputs)
    sources, targets = wiring(graph.vertices, graph.edges)
    feeding = [channels[v] for v in sources[-1] if v > 0]
    if feeding:
        assert sum(feeding) == outputs
        assert max(feeding) - min(feeding) <= 1
    for v in range(1, graph.vertices - 1):
        for w in targets[v]:
            if w < graph.vertices - 1:
                assert 0 <= channels[v] - channels[w] <= 1


def test_vertex_channels_refuses_too_few():
    """An Inception-like cell has four vertices at its output."""
    graph = graph_from_matrix(*INCEPTION)
    assert vertex_channels(graph, 3, 4) == [3, 1, 1, 1, 1, 1, 4]
    with pytest.raises(ValueError, match="4 vertices feed the output .* not 3"):
        vertex_channels(graph, 3, 3)


def test_module_widths():
    """The paper's nine modules; every stack doubles the channels in its first."""
    assert module_widths(128, 3, 3) == [
        *[(128, 128)] * 3,
        (128, 256),
        *[(256, 256)] * 2,
        (256, 512),
        *[(512, 512)] * 2,
    ]
    for bad in ((0, 3, 3), (8, 0, 3), (8, 3, 0)):
        with pytest.raises(ValueError, match="at least one channel, stack and module"):
            module_widths(*bad)


def test_cost_of_a_chain_by_hand():
    """A single 1x1 convolution, one stack of one module, on a 4x4 image of 2 channels."""
    params, flops = count_cost(
        Graph(3, 0b101, (1,)), num_classes=5, channels=3, stacks=1, modules=1, input_channels=2, image_size=4
    )
    assert params == (9 * 2 * 3 + 6) + (3 * 3 + 6) + (3 * 3 + 6) + (3 * 5 + 5)
    assert flops == 16 * (9 * 2 * 3 + 3 * 3 + 3 * 3) + (3 * 5 + 5)


def test_cost_refuses_a_cell_without_a_path():
    with pytest.raises(ValueError, match="no path"):
        count_cost(Graph(3, 1, (0,)))


@settings(max_examples=30)
@given(pruned_graphs(max_vertices=5))
def test_cost_is_that_of_the_class_where_channels_divide_evenly(graph):
    """60 channels divide by 1 to 5, so the order of the vertices does not matter to the cost."""
    costs = {count_cost(other, channels=60, stacks=2, modules=1) for other in relabellings(graph)}
    assert len(costs) == 1


def test_caches_do_not_keep_numpy_numbers():
    """A graph of NumPy's numbers is equal to one of Python's: what is remembered of it must not reach the next caller."""
    for cached in (nasbench101.canonical_graph, nasbench101._edge_choices):
        cached.cache_clear()
    plain = graph_from_matrix(*INCEPTION)
    numpy = Graph(np.int64(7), np.int64(plain.edges), tuple(np.array(plain.labels)))
    canonical_graph(numpy)
    nasbench101._edge_choices(np.int64(7), np.int64(plain.edges))
    assert {type(x) for x in (*SPACE.from_graph(plain), *SPACE.canonical(SPACE.from_graph(plain)))} == {int}
    graph = canonical_graph(plain)
    assert {type(x) for x in (graph.vertices, graph.edges, *graph.labels)} == {int}


@given(architectures)
def test_canonical_is_the_architecture_of_the_canonical_graph(arch):
    """What `canonical` puts together without checks is what `from_graph` makes with them."""
    canonical = SPACE.canonical(arch)
    assert canonical == SPACE.from_graph(canonical_graph(SPACE.graph(arch))) == SPACE.canonical(canonical)
    assert SPACE.is_valid(canonical)
