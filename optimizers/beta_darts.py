"""Beta-DARTS: DARTS with a penalty that keeps the weights of operations from running away from each other.

Ye, Li, Li, Chen, Li and Ouyang, "beta-DARTS: Beta-Decay Regularization for Differentiable Architecture Search", CVPR 2022,
sections 3.2 and 3.3. https://arxiv.org/abs/2203.01665

Weight decay on the parameters alpha does little to the weights softmax(alpha) that operations are multiplied by. The penalty
is the mean over edges of log(sum over operations of exp(alpha)). Its gradient by alpha is softmax(alpha): the stronger an
operation, the harder it is pulled down, so that all stay close until the held-out loss speaks for one clearly. The
coefficient grows linearly over the search, from 0.

Where this file differs from the paper and its code (Sunshine-Ye/Beta-DARTS):
    * With two kinds of cells the mean is over the edges of both.
    * The coefficient in the last epoch is `coefficient` (1 - 1 / epochs), as in the code, for any number of epochs; the code
      has 50 * epoch / 100 written out.
    * First order only, as the code adds the penalty in no other case.
    * The step on the weights sees the mixture as it is; the code has a switch for perturbed parameters (SDARTS) as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..benchmarks.spaces.base import SearchSpace
from .base import SupernetTask
from .supernet.training import DifferentiableOptimizer


def beta_decay(alphas: list[Tensor] | list[torch.nn.Parameter]) -> Tensor:
    """The mean over the edges of all tables of log(sum of exp(alpha))."""
    return torch.cat([torch.logsumexp(alpha, dim=1) for alpha in alphas]).mean()


class BetaDARTS(DifferentiableOptimizer):
    """DARTS with beta-decay regularisation.

    Args:
        coefficient: of the penalty; it grows linearly over the epochs from 0 towards this.
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Raises:
        ValueError: a negative or infinite coefficient.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "epochs": 100,
            "learning_rate": 0.025,
            "nesterov": False,
            "weight_decay": 3e-4,
            "alpha_learning_rate": 3e-4,
            "coefficient": 50.0,
        }
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        coefficient: float = 50.0,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        if not 0.0 <= coefficient < math.inf:
            raise ValueError(f"coefficient must be a finite number from 0, not {coefficient!r}")
        self.coefficient = coefficient

    def strength(self, epoch: int) -> float:
        """The coefficient in an epoch, counted from 0."""
        return self.coefficient * epoch / self.recipe.epochs

    def regulariser(self) -> Tensor | float:
        strength = self.strength(self.epoch)
        return strength * beta_decay(self.alphas) if strength else 0.0

    def end_epoch(self) -> Mapping[str, float]:
        return {**super().end_epoch(), "coefficient": self.strength(self.epoch - 1)}
