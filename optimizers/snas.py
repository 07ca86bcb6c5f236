"""SNAS: weights and architecture descend one loss, that of networks drawn from a concrete distribution.

Xie, Zheng, Liu and Lin, "SNAS: Stochastic Neural Architecture Search", ICLR 2019, sections 2.2 to 2.4.
https://arxiv.org/abs/1812.09926

Every step draws the weights of the operations from the concrete distribution: the softmax, at temperature tau, of the
log-probabilities of the operations plus Gumbel noise. The loss of that draw is differentiated by the weights and, through
the draw, by the parameters of the distribution, in one pass: there is no held-out loss and no second level. As tau falls
the draws become one-hot, so that in the end the supernet computes the networks that it proposes. A term for the expected
resources can be added.

Where this file differs from the paper and its code (SNAS-Series):
    * One draw per batch is shared by all cells of a table.
    * The weights' part of the images alone is used, half of them; the paper searches with all training images.
    * The term for resources is the multiply-adds of the drawn operations relative to the most expensive one; the paper has
      three (parameters, multiply-adds, memory access), and by default none of them is counted here.
    * The paper's code initialises the log-probabilities around 1 instead of 0, which is the same distribution.
    * The default recipe is short, and its alpha learns faster; `@paper` is that of the code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..benchmarks.spaces.base import SearchSpace
from .base import SupernetTask
from .gdas import check_temperatures, linear, relaxed_sample
from .supernet.images import Batch
from .supernet.mix import Mix, soft
from .supernet.training import DifferentiableOptimizer


def multiply_adds(operation: str, channels: int) -> int:
    """Multiply-adds per pixel of an operation at stride 1; 0 for one without weights."""
    found = re.search(r"conv_(\d)x\d", operation)
    if found is None:
        return 0
    area, dense = int(found.group(1)) ** 2, channels * channels
    if operation.startswith("sep"):  # depthwise and pointwise, twice
        return 2 * (area * channels + dense)
    if operation.startswith("dil"):
        return area * channels + dense
    return area * dense


class SNAS(DifferentiableOptimizer):
    """Stochastic search on a single level.

    Args:
        tau_max, tau_min: temperature in the first and in the last epoch.
        resource: factor of the multiply-adds of a draw, where the most expensive operation on every edge counts 1.
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Raises:
        ValueError: not 0 < tau_min <= tau_max, or a negative factor.
    """

    own_recipe: ClassVar[Mapping[str, Any]] = {"alpha_learning_rate": 0.03}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "epochs": 150,
            "learning_rate": 0.025,
            "nesterov": False,
            "weight_decay": 3e-4,
            "alpha_learning_rate": 3e-4,
            "alpha_init": 0.01,
            "tau_max": 1.0,
            "tau_min": 0.03,
        }
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        tau_max: float = 1.0,
        tau_min: float = 0.03,
        resource: float = 0.0,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        check_temperatures(tau_max, tau_min)
        if isinstance(resource, bool) or not isinstance(resource, int | float) or not 0 <= resource < float("inf"):
            raise ValueError(f"resource must be a finite number from 0, not {resource!r}")
        self.tau_max, self.tau_min, self.resource = float(tau_max), float(tau_min), float(resource)

    def begin(self) -> None:
        super().begin()
        channels = int(self.settings["channels"])
        self._costs = []
        for table in self.topology.tables:
            cost = torch.tensor([float(multiply_adds(name, channels)) for name in table.operations])
            self._costs.append((cost / cost.max()).to(self.recipe.device))

    @property
    def tau(self) -> float:
        """The temperature of the epoch."""
        return linear(self.tau_max, self.tau_min, self.epoch, self.recipe.epochs)

    def mixes(self) -> list[Mix]:
        """A draw: every operation, weighted."""
        return [soft(relaxed_sample(alpha, self.tau, self.generator)) for alpha in self.alphas]

    def step(self, batch: Batch, held_out: Batch) -> None:
        del held_out
        if self.epoch < self.recipe.warm_up:
            self.weight_step(batch)
            return
        mixes = self.mixes()
        loss = self.loss(batch, mixes, count=True)
        if self.resource:
            loss = loss + self.resource * self.resources(mixes)
        self.alpha_optimizer.zero_grad(set_to_none=True)
        scale = self.scaler.get_scale() if self.scaler.is_enabled() else 1.0
        parameters = self.architecture_parameters()
        self.update_weights(loss, also=parameters)
        for parameter in parameters:
            if parameter.grad is not None and scale != 1.0:
                parameter.grad /= scale
        self.step_architecture()

    def resources(self, mixes: list[Mix]) -> Tensor:
        """Mean relative multiply-adds of the edges of a draw, from 0 to 1."""
        shares = []
        for mix, cost in zip(mixes, self._costs, strict=True):
            assert mix.weights is not None
            shares.append((mix.weights * cost).sum(dim=1).mean())
        return torch.stack(shares).mean()
