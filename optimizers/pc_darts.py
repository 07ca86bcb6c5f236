"""PC-DARTS: DARTS on a quarter of the channels, with normalised weights of the edges.

Xu, Xie, Zhang, Chen, Qi, Tian and Xiong, "PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search",
ICLR 2020, sections 3.2 and 3.3 and Algorithm 1. https://arxiv.org/abs/1907.05737

Only 1 / K of the channels of a node go through the operations; the others bypass them, and the two are shuffled together.
A supernet so thinned needs little memory and favours skip connections and pooling less, but the operations that an edge
prefers fluctuate more. So every edge also has a parameter beta: the edges into a node are weighted by the softmax of
theirs, which sums up over the search what single batches say. Edges are ranked by the product of both weights. In the first
epochs the weights alone are trained.

Where this file differs from the paper and its code (yuhuixu1993/PC-DARTS):
    * On NAS-Bench-201 no edge is ever dropped, so beta weights the edges of the supernet and decides nothing at the end.
    * What bypasses the operations of an edge is multiplied by the edge's weight too, as in the code.
    * alpha and beta are drawn with the same small deviation, `alpha_init`.
    * The default recipe is short; `@paper` is that of the paper on CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..benchmarks.spaces.base import Architecture, SearchSpace
from .base import SupernetTask
from .supernet.mix import Mix, soft
from .supernet.network import Supernet
from .supernet.training import DifferentiableOptimizer


class PCDARTS(DifferentiableOptimizer):
    """Differentiable search on partial channels.

    Args:
        partial: K; one of K channels goes through the operations. It divides the channels of the supernet.
        edge_normalisation: weight the edges by beta; without it all count the same.
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Raises:
        ValueError: `partial` is not a whole number from 1.

    Attributes:
        betas: per table `(edges,)`.
    """

    own_recipe: ClassVar[Mapping[str, Any]] = {"warm_up": 5}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "epochs": 50,
            "warm_up": 15,
            "batch_size": 256,
            "learning_rate": 0.1,
            "min_learning_rate": 0.0,
            "nesterov": False,
            "weight_decay": 3e-4,
            "alpha_learning_rate": 6e-4,
        }
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        partial: int = 4,
        edge_normalisation: bool = True,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        if isinstance(partial, bool) or not isinstance(partial, int) or partial < 1:
            raise ValueError(f"partial must be a whole number from 1, not {partial!r}")
        self.partial = partial
        self.edge_normalisation = edge_normalisation

    def build(self, **options: Any) -> Supernet:
        return super().build(**{"partial": self.partial, **options})

    def begin(self) -> None:
        r = self.recipe
        self.betas = [
            nn.Parameter((r.alpha_init * torch.randn(len(table.edges), generator=self.generator)).to(r.device))
            for table in self.topology.tables
        ]
        self._same_node = [
            torch.tensor([[a == b for b, _ in table.edges] for a, _ in table.edges], device=r.device)
            for table in self.topology.tables
        ]
        super().begin()

    def architecture_parameters(self) -> list[nn.Parameter]:
        return [*self.alphas, *self.betas] if self.edge_normalisation else self.alphas

    def edge_weights(self, t: int) -> Tensor | None:
        """Softmax of beta over the edges into the same node, `(edges,)`; None for 1."""
        if not self.edge_normalisation:
            return None
        beta = self.betas[t]
        # Row e is the softmax over all edges into the node of edge e; its own share is on the diagonal.
        rows = beta.expand(len(beta), -1).masked_fill(~self._same_node[t], -torch.inf)
        return torch.softmax(rows, dim=1).diagonal()

    def mixes(self) -> list[Mix]:
        return [
            soft(self.operation_weights(t), self.active(t), edges=self.edge_weights(t)) for t in range(len(self.alphas))
        ]

    def edge_strengths(self) -> Sequence[np.ndarray] | None:
        """The weights of the edges as numbers."""
        with torch.no_grad():
            weights = [self.edge_weights(t) for t in range(len(self.alphas))]
        return [w.double().cpu().numpy() for w in weights if w is not None] or None

    def propose(self) -> Architecture:
        return self.topology.discretise(self.strengths(), self.edge_strengths())

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), "betas": [beta.detach().clone() for beta in self.betas]}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        super().load_extra_state(state)
        with torch.no_grad():
            for beta, saved in zip(self.betas, state["betas"], strict=True):
                beta.copy_(saved)
