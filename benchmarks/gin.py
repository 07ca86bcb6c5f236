"""The graph network surrogate of NAS-Bench-301 (`gnn_gin`), as a NumPy forward pass.

Zela, Siems, Zimmer, Lukasik, Keuper and Hutter, "Surrogate NAS Benchmarks", ICLR 2022. https://arxiv.org/abs/2008.09777
The layers are those of Xu et al., "How Powerful are Graph Neural Networks?", ICLR 2019, with a virtual node.

A cell pair is one graph of 14 nodes: two inputs, four inner nodes and the output, first of the normal, then of the reduction
cell. A node is described by its kind and its degree, an edge by its operation. The original builds edges in the order of
their source but their operations in the order of their target, so operations sit on the wrong edges; the weights were
trained on that, so it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .spaces.base import Architecture
from .spaces.darts import NODES, PAIRS

Weights = Mapping[str, npt.NDArray[np.float32]]

_NODES, _CELL = 14, 7
_KINDS = np.array([0, 1, 2, 2, 2, 2, 3] * 2)
_CELL_EDGES = 12  # eight operations and four edges to the output
_EDGES = 2 * _CELL_EDGES + 5
_BETWEEN = np.array([(6, 6), (6, 7), (6, 8), (13, 0), (13, 1)])
"""Edges without operation that join the cells: the reduction cell reads the normal cell, which reads the reduction cell."""
_DIMENSIONS = 11  # of one cell in an architecture
_BATCH = 256
_EPSILON = np.float32(1e-5)  # of batch normalisation


class Graphs(NamedTuple):
    """Architectures as the network reads them.

    Attributes:
        degree: int64 `(n, 14)`, edges at each node; a node's edge to itself counts once.
        source, target, operation: int64 `(n, edges)`; operation 0 is none, k + 1 is operation k of the DARTS space.
    """

    degree: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]
    operation: npt.NDArray[np.int64]


def graphs(archs: Sequence[Architecture] | npt.NDArray[np.integer], *, undirected: bool = False) -> Graphs:
    """Architectures `(n, 22)` of the DARTS space as graphs; `undirected` appends every edge reversed."""
    choices = np.asarray(archs, dtype=np.int64).reshape(-1, 2 * _DIMENSIONS)
    n = len(choices)
    edges = np.empty((n, _EDGES, 3), dtype=np.int64)  # source, target, operation
    for number, begin in enumerate((0, _DIMENSIONS)):
        cell = choices[:, begin : begin + _DIMENSIONS]
        pairs = [np.zeros(n, dtype=np.int64), *cell[:, 8:].T]
        source = np.concatenate([np.array(PAIRS[node])[pair] for node, pair in zip(NODES, pairs, strict=True)], axis=1)
        target = np.repeat(NODES, 2)
        by_source = np.argsort(source * _CELL + target, axis=1)
        here = edges[:, number * _CELL_EDGES : (number + 1) * _CELL_EDGES]
        here[:, :8, 0] = np.take_along_axis(source, by_source, axis=1)
        here[:, :8, 1] = target[by_source]
        here[:, :8, 2] = cell[:, :8] + 1  # in the order of the targets: the original's mistake
        here[:, 8:, 0], here[:, 8:, 1], here[:, 8:, 2] = NODES, _CELL - 1, 0
        here[:, :, :2] += number * _CELL
    edges[:, -len(_BETWEEN) :, :2], edges[:, -len(_BETWEEN) :, 2] = _BETWEEN, 0
    source, target, operation = edges[..., 0], edges[..., 1], edges[..., 2]
    degree = (source[..., None] == np.arange(_NODES)).sum(axis=1)
    degree += ((target[..., None] == np.arange(_NODES)) & (source != target)[..., None]).sum(axis=1)
    if undirected:
        source, target = np.concatenate([source, target], axis=1), np.concatenate([target, source], axis=1)
        operation = np.concatenate([operation, operation], axis=1)
    return Graphs(degree, source, target, operation)


@dataclass(frozen=True)
class GIN:
    """One trained network.

    Attributes:
        weights: its state dict by the official names, float32.
        layers: number of layers.
        undirected: every edge is also there reversed.
    """

    weights: Weights
    layers: int
    undirected: bool

    def predict(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Validation accuracy in percent, float32 `(n,)`, of architectures `(n, 22)` of the DARTS space."""
        archs = np.asarray(archs, dtype=np.int64).reshape(-1, 2 * _DIMENSIONS)
        parts = [
            self._forward(graphs(archs[begin : begin + _BATCH], undirected=self.undirected))
            for begin in range(0, len(archs), _BATCH)
        ]
        return np.concatenate([np.zeros(0, dtype=np.float32), *parts])

    def _forward(self, graph: Graphs) -> npt.NDArray[np.float32]:
        n = len(graph.degree)
        rows = np.arange(n)[:, None] * _NODES
        source = (rows + graph.source).reshape(-1)
        into = (graph.target[:, None, :] == np.arange(_NODES)[:, None]).astype(np.float32)  # (n, nodes, edges)
        encoder = "gnn_node.node_encoder."
        node = self.weights[encoder + "type_encoder.weight"][_KINDS]
        node = node + self.weights[encoder + "attribute_encoder.weight"][graph.degree]
        virtual = np.repeat(self.weights["gnn_node.virtualnode_embedding.weight"], n, axis=0)
        for layer in range(self.layers):
            node = node + virtual[:, None]
            conv = f"gnn_node.convs.{layer}."
            edge = self.weights[conv + "edge_encoder.weight"][graph.operation]
            message = np.maximum(node.reshape(n * _NODES, -1)[source].reshape(edge.shape) + edge, 0)
            hidden = (1 + self.weights[conv + "eps"]) * node + into @ message
            hidden = np.maximum(self._norm(conv + "mlp.1", self._linear(conv + "mlp.0", hidden)), 0)
            after = self._norm(f"gnn_node.batch_norms.{layer}", self._linear(conv + "mlp.3", hidden))
            if layer == self.layers - 1:
                node = after
                break
            mlp = f"gnn_node.mlp_virtualnode_list.{layer}."
            hidden = self._linear(mlp + "0", node.sum(axis=1) + virtual)
            hidden = np.maximum(self._norm(mlp + "1", hidden), 0)
            virtual = np.maximum(self._norm(mlp + "4", self._linear(mlp + "3", hidden)), 0)
            node = np.maximum(after, 0)
        logit = self._linear("graph_pred_linear", node.mean(axis=1))[:, 0]
        with np.errstate(over="ignore"):  # exp of a large number is infinite, and the answer 0, as it should be
            return np.asarray(np.float32(100) / (1 + np.exp(-logit)), dtype=np.float32)

    def _linear(self, name: str, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        result: npt.NDArray[Any] = x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]
        return result

    def _norm(self, name: str, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Batch normalisation with the running statistics."""
        scale = self.weights[name + ".weight"] / np.sqrt(self.weights[name + ".running_var"] + _EPSILON)
        result: npt.NDArray[Any] = (x - self.weights[name + ".running_mean"]) * scale + self.weights[name + ".bias"]
        return result
