"""The NAS-Bench-101 cell space.

Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019, sections 2.1 and 2.2 and the
supplement's S1. https://arxiv.org/abs/1902.09635

A cell is a directed acyclic graph of at most 7 vertices and 9 edges. Vertex 0 is the input, the last vertex the output, and
every vertex in between carries one of three operations. A vertex that is not on a path from the input to the output does
nothing: `prune` removes it, and all limits hold for what is left. An architecture is a vector of 26 choices: the 21 entries
above the diagonal of the 7x7 adjacency matrix, row by row, then the operations of vertices 1 to 5.

Different vectors can be the same cell, by pruning or by another order of the vertices. There are three ways to tell:
`module_hash`, the official name of a cell's class in the dataset; `canonical_graph`, an exact representative of the class;
and `NASBench101Space.to_string`, which tells apart every order of the vertices but not what is pruned.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import Final as Constant
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .base import Architecture, InvalidArchitecture, SearchSpace

OPERATIONS: Constant = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
"""In the official order, by which the hash numbers them."""

INPUT: Constant = "input"
OUTPUT: Constant = "output"
CONV3, CONV1, POOL = range(3)
MAX_VERTICES: Constant = 7
MAX_EDGES: Constant = 9
NUM_CLASSES: Constant = 423_624
"""Isomorphism classes of valid cells: the modules of the dataset."""

NUM_VECTORS: Constant = 373_754_169
"""Valid choice vectors: the 1,538,083 of the 2**21 adjacency matrices that are valid, times 3**5."""


class Graph(NamedTuple):
    """A cell, pruned or not.

    Attributes:
        vertices: their number V, with input and output; at least 2.
        edges: bit x + y(y-1)/2 is set if there is an edge from x to y, for x < y < V.
        labels: the position in `OPERATIONS` of the operation of each of the V - 2 interior vertices.
    """

    vertices: int
    edges: int
    labels: tuple[int, ...]

    @property
    def matrix(self) -> npt.NDArray[np.int8]:
        """The adjacency matrix, int8 `(V, V)`: entry (x, y) is 1 if there is an edge from x to y."""
        matrix = np.zeros((self.vertices, self.vertices), dtype=np.int8)
        for target, sources in enumerate(wiring(self.vertices, self.edges)[0]):
            matrix[list(sources), target] = 1
        return matrix

    @property
    def operations(self) -> list[str]:
        """The V operations as the dataset spells them, from "input" to "output"."""
        return [INPUT, *(OPERATIONS[label] for label in self.labels), OUTPUT]

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        return self.edges.bit_count()


def _first_bit(target: int) -> int:
    """The bit of the edge from vertex 0 to `target`; those from 1, 2, ... follow."""
    return target * (target - 1) // 2


Wiring = tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]


@lru_cache(maxsize=1 << 14)  # there are 6,472 pruned adjacency matrices within the limits
def wiring(vertices: int, edges: int) -> Wiring:
    """(the sources of each vertex's incoming edges, the targets of its outgoing edges), each in ascending order."""
    sources = tuple(
        tuple(x for x in range(target) if edges >> _first_bit(target) + x & 1) for target in range(vertices)
    )
    targets = tuple(tuple(y for y in range(vertices) if x in sources[y]) for x in range(vertices))
    return sources, targets


def prune(graph: Graph) -> Graph | None:
    """Keep exactly the vertices on paths from input to output, in their order. None: there is no such path."""
    vertices, edges, labels = graph
    incoming = [0]
    reached = 1
    for target in range(1, vertices):
        incoming.append(edges & (1 << target) - 1)
        edges >>= target
        if incoming[target] & reached:
            reached |= 1 << target
    kept = 1 << vertices - 1
    for target in range(vertices - 1, 0, -1):
        if kept >> target & 1:
            kept |= incoming[target] & reached
    if not kept & 1:
        return None
    if kept + 1 == 1 << vertices:
        return graph
    names = [v for v in range(vertices) if kept >> v & 1]
    pruned = bit = 0
    for target, y in enumerate(names):
        for x in names[:target]:
            pruned |= (incoming[y] >> x & 1) << bit
            bit += 1
    return Graph(len(names), pruned, tuple([labels[v - 1] for v in names[1:-1]]))


def graph_from_matrix(matrix: npt.ArrayLike, operations: Sequence[str]) -> Graph:
    """The cell with this adjacency matrix and these operations; it is not pruned and may be larger than the limits.

    Unlike the official `ModelSpec`, which hashes a matrix of floats to something that is not in the dataset, every type of
    number is taken for what it is worth.

    Args:
        matrix: `(V, V)`, V at least 2, of zeros and ones; nothing but zeros on and below the diagonal.
        operations: V names: "input", operations of `OPERATIONS`, "output".

    Raises:
        ValueError: anything else.
    """
    try:
        array = np.asarray(matrix)
    except ValueError:  # rows of different lengths
        raise ValueError("matrix must be square") from None
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError("matrix must be square")
    vertices = len(array)
    if len(operations) != vertices:
        raise ValueError("length of ops must match matrix dimensions")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"matrix must consist of numbers, not of {array.dtype}")
    rows = array.tolist()  # of at most a few dozen entries: plain loops are several times faster
    if any(any(row[: x + 1]) for x, row in enumerate(rows)):
        raise ValueError("matrix must be upper triangular")
    for entry in itertools.chain.from_iterable(rows):
        if entry not in (0, 1):
            raise ValueError(f"matrix must consist of zeros and ones: it has an entry {entry}")
    if vertices < 2:
        raise ValueError(f"matrix must have at least an input and an output: it has {vertices} vertices")
    if operations[0] != INPUT or operations[-1] != OUTPUT:
        raise ValueError(f"ops must begin with 'input' and end with 'output': {list(operations)}")
    for operation in operations[1:-1]:
        if operation not in OPERATIONS:
            raise ValueError(f"unknown operation {operation!r}; known: {', '.join(OPERATIONS)}")
    edges = sum(1 << x + _first_bit(y) for x, row in enumerate(rows) for y in range(x + 1, vertices) if row[y])
    return Graph(vertices, edges, tuple(OPERATIONS.index(operation) for operation in operations[1:-1]))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@cache
def _first_hash(outgoing: int, incoming: int, label: int) -> str:
    return _md5(str((outgoing, incoming, int(label))))  # a NumPy integer would be spelt with its type


@lru_cache(maxsize=1 << 16)
def module_hash(graph: Graph) -> str:
    """The official name of a pruned cell, 32 hex digits: the same for isomorphic cells.

    V rounds in which every vertex hashes the sorted hashes of its sources, those of its targets, and its own; the supplement's
    S1 and the official `graph_util.hash_module`.
    """
    sources, targets = wiring(graph.vertices, graph.edges)
    hashes = list(map(_first_hash, map(len, targets), map(len, sources), (-1, *graph.labels, -2)))
    for _ in hashes:
        # Most vertices have one source or one target: not sorting and joining these saves a quarter of the time.
        hashes = [
            _md5(
                (hashes[before[0]] if len(before) == 1 else "".join(sorted([hashes[x] for x in before])))
                + "|"
                + (hashes[after[0]] if len(after) == 1 else "".join(sorted([hashes[y] for y in after])))
                + "|"
                + own
            )
            for before, after, own in zip(sources, targets, hashes, strict=True)
        ]
    return _md5(str(sorted(hashes)))


@lru_cache(maxsize=1 << 16)
def canonical_graph(graph: Graph) -> Graph:
    """The representative of the isomorphism class of a pruned cell: exact, it does not depend on the hash.

    It is the order of the vertices that makes the list of (incoming edges as a bit mask, label) smallest. The list grows by
    one vertex at a time, and all orders that tie for the smallest so far are followed.
    """
    vertices, edges, labels = int(graph.vertices), int(graph.edges), tuple(map(int, graph.labels))
    sources, targets = wiring(vertices, edges)
    # Twins, with the same neighbours and label, can trade places freely: follow only the orders that leave them in order.
    twins: dict[object, int] = {}
    earlier = [0]
    for v, label in enumerate(labels, start=1):
        earlier.append(twins.get(key := (sources[v], targets[v], label), 0))
        twins[key] = v
    orders = [{0: 0}]
    new_edges, new_labels = 0, []
    for place in range(1, vertices - 1):
        smallest: tuple[int, int] = (1 << vertices, 0)
        ties: list[dict[int, int]] = []
        for order in orders:
            for v in range(1, vertices - 1):
                if v in order or earlier[v] not in order:
                    continue
                incoming = 0
                for x in sources[v]:
                    if x not in order:
                        break
                    incoming |= 1 << order[x]
                else:
                    entry = (incoming, labels[v - 1])
                    if entry < smallest:
                        smallest, ties = entry, []
                    if entry == smallest:
                        ties.append({**order, v: place})
        orders = ties
        new_edges |= smallest[0] << _first_bit(place)
        new_labels.append(smallest[1])
    output = min(sum(1 << order[x] for x in sources[-1]) for order in orders)
    return Graph(vertices, new_edges | output << _first_bit(vertices - 1), tuple(new_labels))


def enumerate_classes(max_vertices: int) -> Iterator[tuple[Graph, str]]:
    """One pruned cell of every isomorphism class of 2 to `max_vertices` vertices and at most 9 edges, with its hash.

    7 vertices give all 423,624 classes of the dataset, in minutes.
    """
    for vertices in range(2, max_vertices + 1):
        kept, num_edges = _pruning_table(vertices)
        for edges in np.flatnonzero((kept == (1 << vertices) - 1) & (num_edges <= MAX_EDGES)).tolist():
            for labels in itertools.product(range(len(OPERATIONS)), repeat=vertices - 2):
                graph = Graph(vertices, edges, labels)
                if canonical_graph(graph) == graph:
                    yield graph, module_hash(graph)


def _pruning_table(vertices: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """For every bit mask of edges: the bit mask of the vertices that pruning keeps (0: none), and the edges among them."""
    edges = np.arange(1 << _first_bit(vertices), dtype=np.uint32)
    incoming = [(edges >> _first_bit(target) & (1 << target) - 1).astype(np.uint8) for target in range(vertices)]
    reached = np.ones(len(edges), dtype=np.uint8)
    for target in range(1, vertices):
        reached |= ((incoming[target] & reached) != 0).astype(np.uint8) << target
    kept = np.full(len(edges), 1 << vertices - 1, dtype=np.uint8)
    for target in range(vertices - 1, 0, -1):
        kept |= incoming[target] & reached & -(kept >> target & 1)
    kept *= kept & 1
    num_edges = np.zeros(len(edges), dtype=np.uint8)
    for target in range(1, vertices):
        num_edges += np.bitwise_count(incoming[target] & kept & -(kept >> target & 1))
    return kept, num_edges


# The 21 edge choices of an architecture, read as a binary number, are its *bits*: the first choice is the highest bit, so
# that bits count along the lexicographic order. They are cut into three sevens to be translated by tables.
_PAIRS = list(itertools.combinations(range(MAX_VERTICES), 2))  # (source, target) of each edge choice
_SEVENS = list(itertools.product(range(2), repeat=7))
_HIGH, _MIDDLE, _LOW = (
    [
        sum(choice << x + _first_bit(y) for choice, (x, y) in zip(seven, _PAIRS[start : start + 7], strict=True))
        for seven in _SEVENS
    ]
    for start in (0, 7, 14)
)
_LABELS = list(itertools.product(range(len(OPERATIONS)), repeat=MAX_VERTICES - 2))
_KNOWN_LABELS = {labels: labels for labels in _LABELS}
_DIGITS = b"01" + b"x" * 254  # turns the bytes 0 and 1 into binary digits and all others into what is none


def _bits(arch: Architecture) -> int:
    """Raises TypeError or ValueError if the edge choices are not all 0 or 1."""
    return int(bytes(arch[:21]).translate(_DIGITS), 2)


def _edges(bits: int) -> int:
    return _HIGH[bits >> 14] | _MIDDLE[bits >> 7 & 127] | _LOW[bits & 127]


@cache
def _valid() -> bytes:
    """For all bits, 1 if they are a valid adjacency matrix."""
    kept, num_edges = _pruning_table(MAX_VERTICES)
    edges = np.array(_HIGH)[:, None, None] | np.array(_MIDDLE)[:, None] | np.array(_LOW)
    return bytes(((kept > 0) & (num_edges <= MAX_EDGES))[edges.ravel()])


@cache
def _valid_bits() -> npt.NDArray[np.int64]:
    return np.flatnonzero(np.frombuffer(_valid(), dtype=np.uint8))


def _prune_to_limits(graph: Graph) -> Graph:
    """Prune a cell of at most 7 vertices; InvalidArchitecture says what is wrong with it."""
    pruned = prune(graph)
    if pruned is None:
        raise InvalidArchitecture(f"{graph} has no path from its input to its output")
    if pruned.num_edges > MAX_EDGES:
        raise InvalidArchitecture(f"{graph} has {pruned.num_edges} edges once pruned; at most {MAX_EDGES} are allowed")
    return pruned


@lru_cache(maxsize=1 << 14)
def _edge_choices(vertices: int, edges: int) -> Architecture:
    """The 21 edge choices of a matrix of at most 7 vertices: the output moves to vertex 6, all others stay."""
    vertices, edges = int(vertices), int(edges)  # NumPy's would be equal, and stay in the cache
    into_output = _first_bit(vertices - 1)
    edges = edges & (1 << into_output) - 1 | edges >> into_output << _first_bit(MAX_VERTICES - 1)
    return tuple(edges >> x + _first_bit(y) & 1 for x, y in _PAIRS)


def _vector(graph: Graph) -> Architecture:
    """The choices of a cell of at most 7 vertices: 0 for those that it does not need."""
    return (*_edge_choices(graph.vertices, graph.edges), *graph.labels, *(0,) * (MAX_VERTICES - graph.vertices))


@lru_cache(maxsize=1 << 16)
def _pruned(bits: int) -> Graph:
    """The pruned cell of valid bits. Each of its labels is where in an architecture's labels the real one is."""
    pruned = prune(Graph(MAX_VERTICES, _edges(bits), tuple(range(MAX_VERTICES - 2))))
    assert pruned is not None
    return pruned


class _Vectors(SearchSpace):
    """The choice vectors without the constraint."""

    name = "nasbench101"
    canonical_identity = True
    cardinalities = (2,) * len(_PAIRS) + (len(OPERATIONS),) * (MAX_VERTICES - 2)


_VECTORS = _Vectors()


class NASBench101Space(_Vectors):
    """All choice vectors whose cell, once pruned, connects input and output by at most 9 edges.

    `size` counts vectors, since it is vectors that an optimizer draws and changes; they make up `NUM_CLASSES` = 423,624
    different cells. `neighbours` and `mutate` are those of every space: they change one of the 26 choices, and where that
    concerns a vertex that pruning removes, the cell stays the same.
    """

    @property
    def size(self) -> int:
        return NUM_VECTORS

    def is_valid(self, arch: Architecture) -> bool:
        arch = tuple(arch)
        try:
            return arch[21:] in _KNOWN_LABELS and _valid()[_bits(arch)] == 1
        except (TypeError, ValueError):
            return False

    def check(self, arch: object) -> Architecture:
        if type(arch) is tuple and set(map(type, arch)) == {int} and self.is_valid(arch):
            return arch
        plain = _VECTORS.check(arch)
        if not self.is_valid(plain):
            _prune_to_limits(Graph(MAX_VERTICES, _edges(_bits(plain)), plain[21:]))  # says why
        return plain

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw one valid choice vector, each with the same probability. Classes are not equally probable."""
        valid = _valid_bits()
        bits = int(valid[int(rng.random() * len(valid))])
        labels = _LABELS[int(rng.random() * len(_LABELS))]
        return _SEVENS[bits >> 14] + _SEVENS[bits >> 7 & 127] + _SEVENS[bits & 127] + labels

    def graph(self, arch: Architecture) -> Graph:
        """The pruned cell.

        Raises:
            InvalidArchitecture: `arch` is not in the space.
        """
        arch = tuple(arch)
        if not self.is_valid(arch):
            arch = self.check(arch)
        labels = _KNOWN_LABELS[arch[21:]]
        vertices, edges, kept = _pruned(_bits(arch))
        return Graph(vertices, edges, tuple([labels[place] for place in kept]))

    def hash(self, arch: Architecture) -> str:
        """The official hash of the cell, which is its name in the dataset."""
        return module_hash(self.graph(arch))

    def from_graph(self, graph: Graph) -> Architecture:
        """The architecture of a cell of at most 7 vertices, so that `space.graph(space.from_graph(g)) == prune(g)`.

        A smaller cell keeps the numbers of its vertices except for the output; the vertices left over have no edges and
        operation 0.

        Raises:
            InvalidArchitecture: the cell has too many vertices or edges, its input and output are not connected, or its
                fields contradict each other.
        """
        vertices, edges, labels = graph
        if not 2 <= vertices <= MAX_VERTICES:
            raise InvalidArchitecture(f"a cell of {self.name} has 2 to {MAX_VERTICES} vertices, not {vertices}")
        if not 0 <= edges < 1 << _first_bit(vertices) or len(labels) != vertices - 2:
            raise InvalidArchitecture(f"{graph} is no cell: its edges or labels do not fit its vertices")
        arch = _vector(graph)
        if not self.is_valid(arch):
            _prune_to_limits(graph)  # says why
        return self.check(arch)

    def canonical(self, arch: Architecture) -> Architecture:
        """The same value for all architectures of one class, by exact isomorphism of the pruned cells."""
        return _vector(canonical_graph(self.graph(arch)))

    def to_string(self, arch: Architecture) -> str:
        """The pruned cell in the two spellings of the dataset's records, joined by ':'.

        These are the adjacency matrix, row by row, and the operations: `0110010010000000:input,conv3x3-bn-relu,...,output`.
        """
        graph = self.graph(arch)
        return "".join(map(str, graph.matrix.ravel().tolist())) + ":" + ",".join(graph.operations)

    def from_string(self, text: str) -> Architecture:
        """An architecture with the cell of this string, as `from_graph` writes it.

        `to_string` leaves out what pruning removes, so this is its inverse only for cells and not for vectors.
        """
        adjacency, colon, names = text.strip().partition(":")
        operations = names.split(",")
        if not colon or not set(adjacency) <= {"0", "1"} or len(adjacency) != len(operations) ** 2:
            raise InvalidArchitecture(
                f"{text!r} is not an architecture string of {self.name}: expected the V*V digits 0 and 1 of an adjacency"
                " matrix, a colon, and V operations joined by commas"
            )
        try:
            matrix = np.frombuffer(adjacency.encode(), dtype=np.uint8).reshape(len(operations), -1) - ord("0")
            return self.from_graph(graph_from_matrix(matrix, operations))
        except InvalidArchitecture:
            raise
        except ValueError as error:
            raise InvalidArchitecture(f"{text!r} is not an architecture string of {self.name}: {error}") from None


def vertex_channels(graph: Graph, inputs: int, outputs: int) -> list[int]:
    """Channels of each vertex of a pruned cell: those of its input, of the operations, and of its output.

    The output concatenates the vertices that feed it, so they share its channels; every other vertex takes the most that
    one of its successors has. Section 2.3 and figure 1 of the paper; in detail, the official `compute_vertex_channels`.

    Raises:
        ValueError: the output has fewer channels than vertices that feed it.
    """
    sources, targets = wiring(graph.vertices, graph.edges)
    last = graph.vertices - 1
    feeding = [v for v in sources[last] if v > 0]
    if len(feeding) > outputs:
        raise ValueError(
            f"{len(feeding)} vertices feed the output of {graph}, so it needs as many channels, not {outputs}"
        )
    channels = [inputs, *(0,) * (last - 1), outputs]
    for i, v in enumerate(feeding):
        channels[v] = outputs // len(feeding) + (i < outputs % len(feeding))
    for v in range(last - 1, 0, -1):
        if v not in feeding:
            channels[v] = max(channels[w] for w in targets[v])
    return channels


def module_widths(channels: int, stacks: int, modules: int) -> list[tuple[int, int]]:
    """(input channels, output channels) of every module of the network, stack by stack; each stack doubles them.

    Raises:
        ValueError: an argument is less than 1.
    """
    if min(channels, stacks, modules) < 1:
        raise ValueError(
            f"a network needs at least one channel, stack and module, not {channels} channels, {stacks} stacks of {modules}"
        )
    outputs = [channels << stack for stack in range(stacks) for _ in range(modules)]
    return list(zip([channels, *outputs], outputs, strict=False))


def count_cost(
    graph: Graph,
    *,
    num_classes: int = 10,
    channels: int = 128,
    stacks: int = 3,
    modules: int = 3,
    input_channels: int = 3,
    image_size: int = 32,
) -> tuple[int, int]:
    """Trainable parameters and FLOPs of the network of a cell, without building it.

    The arguments are those of `benchmarks.networks.nasbench101.NASBench101Network`. FLOPs are multiply-accumulates for one
    image of side `image_size`; as in `benchmarks.networks.cost`, only convolutions and the linear layer count.

    Raises:
        ValueError: the cell does not connect its input with its output, or there are fewer channels than it needs.
    """
    pruned = prune(graph)
    if pruned is None:
        raise ValueError(f"{graph} has no path from its input to its output")
    side = image_size
    params = flops = 0

    def convolution(kernel: int, inputs: int, outputs: int) -> None:
        nonlocal params, flops
        weights = kernel * kernel * inputs * outputs
        params += weights + 2 * outputs  # and the scale and shift of batch normalisation
        flops += weights * side * side

    convolution(3, input_channels, channels)
    sources, _ = wiring(pruned.vertices, pruned.edges)
    for i, (inputs, outputs) in enumerate(module_widths(channels, stacks, modules)):
        if i and i % modules == 0:
            side = (side + 1) // 2
        widths = vertex_channels(pruned, inputs, outputs)
        for width, incoming in zip(widths[1:], sources[1:], strict=True):
            if 0 in incoming:
                convolution(1, inputs, width)
        for width, label in zip(widths[1:-1], pruned.labels, strict=True):
            if label != POOL:
                convolution({CONV3: 3, CONV1: 1}[label], width, width)
    linear = channels * 2 ** (stacks - 1) * num_classes + num_classes
    return params + linear, flops + linear
