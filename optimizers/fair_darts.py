"""FairDARTS: DARTS in which every operation has a gate of its own, pushed towards open or shut.

Chu, Zhou, Zhang and Li, "Fair DARTS: Eliminating Unfair Advantages in Differentiable Architecture Search", ECCV 2020,
sections 4.1 and 4.2. https://arxiv.org/abs/1911.12126

A softmax makes the operations of an edge compete, and skip connections, which help every other operation, win. Here every
operation is weighted by a sigmoid of its own parameter, so that one can be good without another becoming worse. What
competition did, to leave one operation in the end, a second loss does: the zero-one loss is lower, the farther the gates are
from 1/2. There is no zero operation in the search: an edge all of whose gates are shut is one.

Where this file differs from the paper and its code (xiaomi-automl/FairDARTS):
    * The paper keeps up to two operations per edge or node that exceed 0.85; the spaces here have exactly one operation per
      edge (NAS-Bench-201) or two edges per node (DARTS), so the most open gates are kept. On NAS-Bench-201 an edge becomes
      `none` if no gate exceeds `threshold`; 0 means never.
    * The default recipe is short; `@paper` is that of the paper on CIFAR-10 in the DARTS space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ..benchmarks.spaces.base import SearchSpace
from .base import SupernetTask
from .supernet.training import DifferentiableOptimizer

Separation = Literal["l2", "l1"]


class FairDARTS(DifferentiableOptimizer):
    """Differentiable search with independent gates.

    Args:
        zero_one: factor of the zero-one loss.
        separation: "l2", the negative mean square distance of the gates from 1/2, or "l1", the negative mean distance.
        threshold: an edge with no gate above it is `none`, where the space has such edges.
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Raises:
        ValueError: a negative factor, another separation, or a threshold outside [0, 1).
    """

    own_recipe: ClassVar[Mapping[str, Any]] = {"alpha_beta1": 0.9}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "epochs": 50,
            "batch_size": 128,
            "learning_rate": 0.005,
            "nesterov": False,
            "weight_decay": 3e-4,
            "alpha_learning_rate": 3e-3,
            "zero_one": 10.0,
            "threshold": 0.85,
        }
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        zero_one: float = 10.0,
        separation: Separation = "l2",
        threshold: float = 0.0,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        if isinstance(zero_one, bool) or not isinstance(zero_one, int | float) or not 0 <= zero_one < float("inf"):
            raise ValueError(f"zero_one must be a finite number from 0, not {zero_one!r}")
        if separation not in ("l2", "l1"):
            raise ValueError(f"separation is 'l2' or 'l1', not {separation!r}")
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold < 1:
            raise ValueError(f"threshold must be a number from 0 and below 1, not {threshold!r}")
        self.zero_one, self.separation, self.threshold = float(zero_one), separation, float(threshold)

    def begin(self) -> None:
        super().begin()
        for table, removed in zip(self.topology.tables, self.removed, strict=True):
            for gone in removed:
                gone.add(table.none)

    def gate(self, alpha: Tensor) -> Tensor:
        return torch.sigmoid(alpha)

    def regulariser(self) -> Tensor | float:
        """The zero-one loss: the mean over the gates of all tables, times its factor."""
        distances = []
        for table, alpha in zip(self.topology.tables, self.alphas, strict=True):
            gates = [op for op in range(len(table.operations)) if op != table.none]
            distances.append((torch.sigmoid(alpha[:, gates]) - 0.5).flatten())
        distance = torch.cat(distances)
        return -self.zero_one * (distance.square() if self.separation == "l2" else distance.abs()).mean()

    def strengths(self) -> list[np.ndarray]:
        """The gates; that of `none`, which has no parameter, is the threshold."""
        found = super().strengths()
        if self.threshold > 0:
            for table, values in zip(self.topology.tables, found, strict=True):
                values[:, table.none] = self.threshold
        return found
