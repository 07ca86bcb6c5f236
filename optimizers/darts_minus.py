"""DARTS-: an auxiliary skip connection beside every edge takes over what skip connections do for training, and fades out.

Chu, Wang, Zhang, Lu, Wei and Yan, "DARTS-: Robustly Stepping out of Performance Collapse Without Indicators", ICLR 2021,
section 3 and Algorithm 1. https://arxiv.org/abs/2009.01027

A skip connection makes a supernet easier to train whether or not it belongs into the architecture, and its parameter grows
for the first reason. So every edge gets another one, with a weight beta that is not learned: beta falls from 1 to 0 over the
search, and the edge's own skip connection competes for what it is worth as an operation alone.

    edge(x) = beta x + sum of softmax(alpha)_o o(x)

Where this file differs from the paper and its code (Meituan-AutoML/DARTS-):
    * beta is added to the weight of the edge's own skip connection, which is the same sum. On edges of the DARTS space that
      halve the resolution the code gives the auxiliary connection a reduction with weights of its own; here the two share.
    * An edge in which `skip_connect` was taken out of the search has no auxiliary connection either; DARTS- removes none.
    * The code can also make the auxiliary connection a 1x1 convolution, or stop its decay early; these are left out.
    * `@paper` is the code's recipe for the DARTS space. The published NAS-Bench-201 search is not in the code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from ..benchmarks.spaces.base import SearchSpace
from .base import SupernetTask
from .supernet.mix import Mix, soft
from .supernet.training import DifferentiableOptimizer

DECAYS = ("linear", "cosine", "constant")


class DARTSMinus(DifferentiableOptimizer):
    """DARTS with an auxiliary skip connection on every edge.

    Args:
        skip_beta: weight of the auxiliary skip connections in the first epoch.
        decay: of beta over the epochs, "linear" or "cosine" down to 0, or "constant".
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Raises:
        ValueError: a negative or infinite skip_beta, or a decay that there is not.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "epochs": 50,
            "learning_rate": 0.025,
            "nesterov": False,
            "weight_decay": 3e-4,
            "alpha_learning_rate": 3e-4,
            "skip_beta": 1.0,
            "decay": "linear",
        }
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        skip_beta: float = 1.0,
        decay: str = "linear",
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        if not 0.0 <= skip_beta < math.inf:
            raise ValueError(f"skip_beta must be a finite number from 0, not {skip_beta!r}")
        if decay not in DECAYS:
            raise ValueError(f"decay is one of {', '.join(DECAYS)}, not {decay!r}")
        self.skip_beta = skip_beta
        self.decay = decay

    def beta(self, epoch: int) -> float:
        """The weight of the auxiliary skip connections in an epoch, counted from 0."""
        done = min(1.0, epoch / self.recipe.epochs)
        if self.decay == "linear":
            return self.skip_beta * (1.0 - done)
        if self.decay == "cosine":
            return self.skip_beta * 0.5 * (1.0 + math.cos(math.pi * done))
        return self.skip_beta

    def mixes(self) -> list[Mix]:
        """The softmax of every edge, with beta on top of the skip connection's weight; proposals go by the softmax alone."""
        beta = self.beta(self.epoch)
        found = []
        for t, table in enumerate(self.topology.tables):
            weights = self.operation_weights(t)
            auxiliary = torch.zeros_like(weights)
            auxiliary[:, table.skip] = beta
            found.append(soft(weights + auxiliary, self.active(t)))
        return found

    def end_epoch(self) -> Mapping[str, float]:
        return {**super().end_epoch(), "beta": self.beta(self.epoch - 1)}
