"""GDAS: DARTS on one sampled operation per edge, with the gradient of a Gumbel softmax.

Dong and Yang, "Searching for a Robust Neural Architecture in Four GPU Hours", CVPR 2019, section 3.2, and "NAS-Bench-201",
ICLR 2020, appendix. https://arxiv.org/abs/1910.04465

Every step draws one operation per edge: Gumbel noise is added to the log-probabilities of the operations, and the largest is
taken. Forward, that operation alone is computed. Backward, the one-hot choice has the gradient of the softmax of the noisy
log-probabilities at temperature tau, so all operations of an edge learn from the one that was computed. The temperature
falls over the search, from nearly equal gradients for all operations to those of the choice. The weights are trained on
another draw than the architecture.

Where this file differs from the paper and its code (AutoDL-Projects):
    * The architecture step comes before the weight step, as in the other methods here.
    * The weight step computes the drawn path without its factor of 1.
    * Only the noise is drawn again if it is infinite; the log-probabilities are taken to be finite.
    * A choice that leads nowhere (`none` across the cell) is drawn again: behind it batch normalisation divides zeros by their
      deviation, layer after layer, and the gradient overflows.
    * The default recipe is short, and its alpha learns faster; `@paper` is that of NAS-Bench-201.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..benchmarks.spaces.base import SearchSpace
from .base import SupernetTask
from .supernet.images import Batch
from .supernet.mix import Mix, hard, one_hot, path
from .supernet.recipe import PAPER
from .supernet.training import DifferentiableOptimizer

_TRIES = 100  # for a choice that leads from the input of the cell to its output; then one is taken that does not


def gumbel(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Finite noise of the standard Gumbel distribution, on the CPU."""
    while True:
        noise = -torch.empty(tuple(shape)).exponential_(generator=generator).log()
        if bool(torch.isfinite(noise).all()):
            return noise


def relaxed_sample(alpha: Tensor, tau: float, generator: torch.Generator) -> Tensor:
    """One draw of the concrete distribution per row: softmax((log softmax(alpha) + Gumbel noise) / tau)."""
    noise = gumbel(alpha.shape, generator).to(alpha)
    return torch.softmax((torch.log_softmax(alpha, dim=1) + noise) / tau, dim=1)


def linear(first: float, last: float, epoch: int, epochs: int) -> float:
    """A temperature that goes in a line from the first epoch's to the last epoch's."""
    return first + (last - first) * min(1.0, epoch / max(1, epochs - 1))


def check_temperatures(tau_max: float, tau_min: float) -> None:
    """Raises:
    ValueError: not 0 < tau_min <= tau_max < inf.
    """
    for name, value in (("tau_max", tau_max), ("tau_min", tau_min)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise ValueError(f"{name} must be a finite number above 0, not {value!r}")
    if tau_min > tau_max:
        raise ValueError(f"tau_min must not be above tau_max, but {tau_min!r} > {tau_max!r}")


class GDAS(DifferentiableOptimizer):
    """Gradient-based search with a differentiable architecture sampler.

    Args:
        tau_max, tau_min: temperature in the first and in the last epoch.
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Raises:
        ValueError: not 0 < tau_min <= tau_max.
    """

    own_recipe: ClassVar[Mapping[str, Any]] = {"alpha_learning_rate": 0.05}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {**PAPER, "epochs": 250, "tau_max": 10.0, "tau_min": 0.1}
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        tau_max: float = 10.0,
        tau_min: float = 0.1,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        check_temperatures(tau_max, tau_min)
        self.tau_max, self.tau_min = float(tau_max), float(tau_min)

    @property
    def tau(self) -> float:
        """The temperature of the epoch."""
        return linear(self.tau_max, self.tau_min, self.epoch, self.recipe.epochs)

    def mixes(self) -> list[Mix]:
        """One operation per edge, one-hot with gradients; the same in all cells of a table."""
        return [hard(one_hot(self.sample(t))) for t in range(len(self.alphas))]

    def sample(self, t: int) -> Tensor:
        """A relaxed sample of table t whose hard form leads from the input of the cell to its output."""
        for _ in range(_TRIES):
            drawn = relaxed_sample(self.alphas[t], self.tau, self.generator)
            if self.topology.tables[t].connected(drawn.argmax(dim=1).tolist()):
                break
        return drawn

    def weight_step(self, batch: Batch) -> None:
        with torch.no_grad():
            drawn = [self.sample(t).argmax(dim=1).tolist() for t in range(len(self.alphas))]
        self.update_weights(self.loss(batch, [path(choices) for choices in drawn], count=True))
