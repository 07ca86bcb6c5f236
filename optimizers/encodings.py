"""Architectures as vectors and as graphs: what surrogate models read.

White, Neiswanger and Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search",
AAAI 2021, section "Architecture encodings": the path encoding. https://arxiv.org/abs/1910.11858
White, Neiswanger, Nolen and Savani, "A Study on Encodings for Neural Architecture Search", NeurIPS 2020.
https://arxiv.org/abs/2007.04965

The **path encoding** of a cell has one column for every sequence of operations that a path from an input to the output of
the cell could have, and a 1 where the cell has such a path. Columns are sorted by the length of the path, so that the
**truncated** path encoding, which leaves out long paths because few cells have any one of them, is a prefix:

    space         a path has             operations   columns   truncated to
    nasbench201   1 to 3 of 5            155          <= 2 operations: 30
    nasbench101   0 to 5 of 3            364          <= 3 operations: 40
    darts         1 to 4 of 7            11,200       <= 2 operations: 224

The columns for nasbench201 and nasbench101 are those of the authors' code (naszilla), where `none` is an operation like the
others. In darts a path belongs to one of two cells and one of two inputs; naszilla sorts by cell and input first, so that
its 100 truncated columns know one input of the normal cell only. Here all four are told of, and length comes first.

The **graph** of a cell has a node per operation, in the form that graph kernels take (`cell_graphs`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final as Constant
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces import nasbench201
from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..benchmarks.spaces.darts import OPERATIONS as DARTS_OPERATIONS
from ..benchmarks.spaces.darts import DARTSSpace
from ..benchmarks.spaces.nasbench101 import NASBench101Space, wiring
from ..benchmarks.spaces.nasbench201 import NASBench201Space

Encoding: TypeAlias = Literal["one_hot", "path", "truncated_path"]
ENCODINGS: Constant[tuple[Encoding, ...]] = ("one_hot", "path", "truncated_path")

Path: TypeAlias = tuple[int, tuple[int, ...]]
"""(group, operations from input to output): paths of different groups never share a column."""

_NB201, _NB101, _DARTS = NASBench201Space(), NASBench101Space(), DARTSSpace()
_NASZILLA_201 = (
    3,
    4,
    1,
    2,
    0,
)  # avg_pool_3x3, nor_conv_1x1, nor_conv_3x3, none, skip_connect: its order of our operations
_PATHS_201 = ((3,), (0, 4), (1, 5), (0, 2, 5))  # the dimensions along every path through four nodes


class _Scheme(NamedTuple):
    """The columns of a path encoding.

    Attributes:
        groups: number of groups.
        operations: number of operations.
        lengths: operations on a path, all that occur, ascending.
        truncated: how many of `lengths` the truncated encoding keeps.
    """

    groups: int
    operations: int
    lengths: range
    truncated: int


_SCHEMES: dict[str, _Scheme] = {
    "nasbench201": _Scheme(1, 5, range(1, 4), 2),
    "nasbench101": _Scheme(1, 3, range(6), 4),
    "darts": _Scheme(4, len(DARTS_OPERATIONS), range(1, 5), 2),
}


def has_paths(space: SearchSpace) -> bool:
    """Tell whether there is a path encoding of `space`: it is nasbench201, nasbench101 or darts, or a part of one."""
    full = {"nasbench201": _NB201, "nasbench101": _NB101, "darts": _DARTS}.get(space.name)
    return full is not None and space.cardinalities == full.cardinalities


def encode(space: SearchSpace, archs: Sequence[Architecture], how: Encoding = "one_hot") -> npt.NDArray[np.float32]:
    """Encode n architectures as a float32 array of zeros and ones, `(n, columns)`.

    Args:
        space: the space that they are from.
        archs: the architectures; none gives `(0, columns)`.
        how: `one_hot` has `sum(space.cardinalities)` columns and works on every space. `path` and `truncated_path` work on
            the spaces in the table above, and there have as many columns as it says.

    Raises:
        ValueError: there is no such encoding of this space.
        InvalidArchitecture: an architecture is not in the space.
    """
    if how not in ENCODINGS:
        raise ValueError(f"unknown encoding {how!r}; known: {', '.join(ENCODINGS)}")
    if how == "one_hot":
        return space.one_hot(archs)
    if not has_paths(space):
        raise ValueError(f"there is no path encoding of {space.name}; known: {', '.join(_SCHEMES)}; use one_hot")
    groups, operations, lengths, truncated = _SCHEMES[space.name]
    if how == "truncated_path":
        lengths = lengths[:truncated]
    first: dict[int, int] = {}  # column of each length
    columns = 0
    for length in lengths:
        first[length] = columns
        columns += groups * operations**length
    encoded = np.zeros((len(archs), columns), dtype=np.float32)
    for row, arch in enumerate(archs):
        for group, path in paths(space, arch):
            if (length := len(path)) in first:
                place = sum(op * operations**i for i, op in enumerate(path))
                encoded[row, first[length] + group * operations**length + place] = 1.0
    return encoded


def paths(space: SearchSpace, arch: Architecture) -> Iterator[Path]:
    """Every path from an input to the output of a cell: its group, and the numbers of its operations in order.

    Numbers are positions in the space's `OPERATIONS`, but for nasbench201 in the alphabetical order of the operations. The
    groups of darts are 2 * cell + input, with the normal cell first.

    Raises:
        ValueError: the space has no path encoding.
        InvalidArchitecture: `arch` is not in the space.
    """
    if not has_paths(space):
        raise ValueError(f"there is no path encoding of {space.name}; known: {', '.join(_SCHEMES)}")
    if space.name == "nasbench201":
        arch = _NB201.check(arch)
        for dimensions in _PATHS_201:
            yield 0, tuple(_NASZILLA_201[arch[d]] for d in dimensions)
    elif space.name == "nasbench101":
        graph = _NB101.graph(arch)
        sources, _ = wiring(graph.vertices, graph.edges)
        to: list[list[tuple[int, ...]]] = [[()]]  # to[v]: the paths from the input up to and with vertex v
        for v in range(1, graph.vertices):
            own = graph.labels[v - 1 : v]  # the output has none
            to.append([path + own for x in sources[v] for path in to[x]])
        for path in to[-1]:
            yield 0, path
    else:
        for cell, pairs in enumerate(_darts_cells(arch)):
            into: list[list[Path]] = [[(2 * cell, ())], [(2 * cell + 1, ())]]
            for node in range(0, len(pairs), 2):
                into.append([(g, (*path, op)) for op, x in pairs[node : node + 2] for g, path in into[x]])
            for ending in into[2:]:  # every inner node is part of the output
                yield from ending


def _darts_cells(arch: Architecture) -> list[list[tuple[int, int]]]:
    """Per cell the eight (operation, input), two per node."""
    genotype = _DARTS.genotype(arch)
    return [[(DARTS_OPERATIONS.index(op), x) for op, x in cell] for cell in (genotype.normal, genotype.reduce)]


class CellGraph(NamedTuple):
    """A directed acyclic graph with a label on every node.

    Attributes:
        labels: one per node; nodes are in topological order.
        inputs: for every node the nodes that it reads. One that it reads twice is there twice.
    """

    labels: tuple[int, ...]
    inputs: tuple[tuple[int, ...], ...]


INPUT, OUTPUT, SUM, SECOND_INPUT = -1, -2, -3, -4
"""Labels beside those of operations."""


def cell_graphs(space: SearchSpace, arch: Architecture) -> tuple[CellGraph, ...]:
    """The cells of an architecture as graphs whose nodes are operations; two for darts, otherwise one.

    As in NAS-BOWL (Ru, Wan, Dong and Osborne, ICLR 2021, https://arxiv.org/abs/2006.07556), a skip connection becomes a
    plain edge, and what is not on a path from input to output is left out. A node of a darts cell, the sum of two
    operations, is a node of its own. A space that is not one of cells is read as a chain: one node per dimension, labelled
    with the dimension and its choice, each the input of the next.

    Raises:
        InvalidArchitecture: `arch` is not in the space.
    """
    if not has_paths(space):
        arch = space.check(arch)
        starts = np.cumsum((0, *space.cardinalities[:-1])).tolist()
        labels = tuple(start + choice for start, choice in zip(starts, arch, strict=True))
        return (CellGraph(labels, tuple((d - 1,) if d else () for d in range(len(labels)))),)
    if space.name == "nasbench201":
        return (_graph_201(_NB201.check(arch)),)
    if space.name == "nasbench101":
        cell = _NB101.graph(arch)
        return (CellGraph((INPUT, *cell.labels, OUTPUT), wiring(cell.vertices, cell.edges)[0]),)
    return tuple(_graph_darts(pairs) for pairs in _darts_cells(arch))


def _graph_201(arch: Architecture) -> CellGraph:
    labels: list[int] = [INPUT]
    inputs: list[tuple[int, ...]] = [()]
    value: list[tuple[int, ...]] = [(0,), (), (), ()]  # the graph's nodes whose sum a node of the cell is
    for op, (target, source) in zip(_NB201.prune(arch), nasbench201.EDGES, strict=True):
        if op == nasbench201.SKIP:
            value[target] += value[source]
        elif op != nasbench201.NONE:
            value[target] += (len(labels),)
            labels.append(op)
            inputs.append(value[source])
    return CellGraph((*labels, OUTPUT), (*inputs, value[3]))


def _graph_darts(pairs: Sequence[tuple[int, int]]) -> CellGraph:
    labels: list[int] = [INPUT, SECOND_INPUT]
    inputs: list[tuple[int, ...]] = [(), ()]
    value = [0, 1]  # the graph's node of each node of the cell
    for node in range(0, len(pairs), 2):
        terms: list[int] = []
        for op, source in pairs[node : node + 2]:
            if DARTS_OPERATIONS[op] == "skip_connect":
                terms.append(value[source])
            else:
                terms.append(len(labels))
                labels.append(op)
                inputs.append((value[source],))
        value.append(len(labels))
        labels.append(SUM)
        inputs.append(tuple(terms))
    return CellGraph((*labels, OUTPUT), (*inputs, tuple(value[2:])))
