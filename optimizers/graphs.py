"""Architectures as graphs, for the models that read them: an adjacency matrix and a one-hot type per node.

    encode = graph_encoder(space)
    graphs = encode(archs)   # a batch, every graph padded to the same number of nodes

Operations are nodes in every encoding, also where a space puts them on edges, so that one graph network fits all:

* NAS-Bench-201: input, six operations, output. The operation on the edge s -> t feeds the operations on the edges t -> u;
  this wiring is the same in every cell. `none` is an operation like the others.
* NAS-Bench-101: the vertices of the cell as it is after pruning; what pruning removes is padding.
* DARTS: of each cell its two inputs, eight operations and the output. An operation that reads an inner node is fed by both
  operations that are summed there; the output is fed by all eight. The cells are two components, with types of their own.
* Any other space: a chain with one node per dimension, whose type is the pair (dimension, choice).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces import darts, nasbench101, nasbench201
from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..benchmarks.spaces.subspace import Subspace


class Graphs(NamedTuple):
    """A batch of n directed graphs of at most V nodes of T types.

    Attributes:
        adjacency: bool `(n, V, V)`; entry (i, j) is set if node i feeds node j.
        types: float32 `(n, V, T)`, one 1 per node; all zeros for padding.
    """

    adjacency: npt.NDArray[np.bool_]
    types: npt.NDArray[np.float32]


GraphEncoder: TypeAlias = Callable[[Sequence[Architecture] | npt.NDArray[np.integer]], Graphs]


def graph_encoder(space: SearchSpace) -> GraphEncoder:
    """The encoding of a space; a part of a space is encoded like the whole."""
    while isinstance(space, Subspace):
        space = space.full
    encode: Callable[[npt.NDArray[np.integer]], Graphs]
    if isinstance(space, nasbench201.NASBench201Space):
        encode = _nasbench201
    elif isinstance(space, nasbench101.NASBench101Space):
        encode = _nasbench101
    elif isinstance(space, darts.DARTSSpace):
        encode = _darts
    else:
        return lambda archs: _chain(space, archs)
    dimensions = len(space.cardinalities)
    return lambda archs: encode(np.asarray(archs, dtype=np.int64).reshape(-1, dimensions))


def _one_hot(types: npt.NDArray[np.integer], num_types: int) -> npt.NDArray[np.float32]:
    """Types `(n, V)` to `(n, V, num_types)`; -1, padding, becomes zeros."""
    return np.asarray(types[..., None] == np.arange(num_types), dtype=np.float32)


def _nasbench201(choices: npt.NDArray[np.integer]) -> Graphs:
    """Types: input, the five operations in the order of the space, output."""
    n, output = len(choices), len(nasbench201.EDGES) + 1
    wiring = np.zeros((output + 1, output + 1), dtype=bool)
    for node, (target, source) in enumerate(nasbench201.EDGES, start=1):
        if source == 0:
            wiring[0, node] = True
        if target == 3:
            wiring[node, output] = True
        for other, (_, start) in enumerate(nasbench201.EDGES, start=1):
            wiring[node, other] |= start == target
    last = len(nasbench201.OPERATIONS) + 1
    types = np.column_stack((np.zeros(n, dtype=np.int64), choices + 1, np.full(n, last)))
    return Graphs(np.broadcast_to(wiring, (n, *wiring.shape)), _one_hot(types, last + 1))


def _nasbench101(choices: npt.NDArray[np.integer]) -> Graphs:
    """Types: input, the three operations in the order of the space, output."""
    n, vertices = len(choices), nasbench101.MAX_VERTICES
    rows, columns = np.triu_indices(vertices, 1)
    adjacency = np.zeros((n, vertices, vertices), dtype=bool)
    adjacency[:, rows, columns] = choices[:, : len(rows)] == 1
    reached = np.zeros((n, vertices), dtype=bool)  # from the input
    useful = np.zeros((n, vertices), dtype=bool)  # for the output
    reached[:, 0] = useful[:, -1] = True
    for v in range(1, vertices):
        reached[:, v] = (adjacency[:, :, v] & reached).any(axis=1)
    for v in range(vertices - 2, -1, -1):
        useful[:, v] = (adjacency[:, v] & useful).any(axis=1)
    kept = reached & useful
    adjacency &= kept[:, :, None] & kept[:, None, :]
    last = len(nasbench101.OPERATIONS) + 1
    types = np.column_stack((np.zeros(n, dtype=np.int64), choices[:, len(rows) :] + 1, np.full(n, last)))
    return Graphs(adjacency, _one_hot(np.where(kept, types, -1), last + 1))


def _darts(choices: npt.NDArray[np.integer]) -> Graphs:
    """Types of each cell, the normal one first: its two inputs, the seven operations, its output."""
    n, cells = len(choices), len(darts.CELLS)
    num_operations = 2 * len(darts.NODES)
    nodes, num_types = 2 + num_operations + 1, 2 + len(darts.OPERATIONS) + 1  # of one cell
    adjacency = np.zeros((n, cells * nodes, cells * nodes), dtype=bool)
    types = np.zeros((n, cells * nodes), dtype=np.int64)
    rows = np.arange(n)
    for c, cell in enumerate(np.split(choices, cells, axis=1)):
        first = c * nodes
        output = first + nodes - 1
        types[:, first : first + 2] = (0, 1)
        types[:, first + 2 : output] = 2 + cell[:, :num_operations]
        types[:, output] = num_types - 1
        types[:, first : output + 1] += c * num_types
        adjacency[:, first + 2 : output, output] = True
        for k, node in enumerate(darts.NODES):
            pairs = np.array(darts.PAIRS[node])
            pair = cell[:, num_operations + k - 1] if k else np.zeros_like(rows)
            for side in (0, 1):
                source, operation = pairs[pair, side], first + 2 + 2 * k + side
                # Node 0 or 1 is one graph node; inner node s is the two operations that are summed there.
                for feeder in (0, 1):
                    place = np.where(source < 2, source, 2 + 2 * (source - 2) + feeder)
                    adjacency[rows, first + place, operation] = True
    return Graphs(adjacency, _one_hot(types, cells * num_types))


def _chain(space: SearchSpace, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> Graphs:
    """Types: the choices of the first dimension, those of the second, ..."""
    one_hot = space.one_hot(archs)
    n, nodes = len(one_hot), len(space.cardinalities)
    types = np.zeros((n, nodes, one_hot.shape[1]), dtype=np.float32)
    start = 0
    for d, size in enumerate(space.cardinalities):
        types[:, d, start : start + size] = one_hot[:, start : start + size]
        start += size
    return Graphs(np.broadcast_to(np.eye(nodes, k=1, dtype=bool), (n, nodes, nodes)), types)
