"""The reward of MnasNet: accuracy and cost in one number, with a target for the cost.

Tan, Chen, Pang, Vasudevan, Sandler, Howard and Le, "MnasNet: Platform-Aware Neural Architecture Search for Mobile", CVPR
2019, section 3.1, equations 2 and 3. https://arxiv.org/abs/1807.11626

Where this file differs from the paper:
    * Regularized evolution searches for the highest reward. The paper trains an RNN controller by proximal policy
      optimization; its equations do not depend on that.
    * Any metric of the benchmark can be the cost; the paper measures latency on a phone.
    * Without a target, it is the median cost of the first population.
    * A trial that failed, or whose cost is not known or not positive, has no reward and ranks below all that have one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ..benchmarks.spaces.base import SearchSpace
from ..harness.core import Trial
from .regularized_evolution import RegularizedEvolution


class MnasNet(RegularizedEvolution):
    """Regularized evolution of `accuracy * (cost / target) ** w`, where w is alpha up to the target and beta beyond it.

    The paper's soft constraint, alpha = beta = -0.07, makes twice the cost worth 5 % more accuracy (in relative terms). The
    target is then a factor common to all rewards, so it changes no tournament; it matters where alpha and beta differ.

    Args:
        objective: the benchmark's metric that is the cost, such as "flops", "params" or "latency".
        target: T, in the metric's unit; None is the median cost of the first population.
        alpha: exponent of a cost up to the target, 0 or less.
        beta: exponent of a cost beyond it, 0 or less.
        population, sample: see RegularizedEvolution.

    Presets: `hard` is the paper's hard constraint: within the target cost is free, beyond it accuracy is divided by it.
    `nats` is that of RegularizedEvolution.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "nats": RegularizedEvolution.presets["nats"],
        "hard": {"alpha": 0.0, "beta": -1.0},
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        objective: str = "flops",
        target: float | None = None,
        alpha: float = -0.07,
        beta: float = -0.07,
        population: int = 100,
        sample: int = 25,
    ) -> None:
        super().__init__(space, rng, population=population, sample=sample)
        if target is not None and not 0 < target < math.inf:
            raise ValueError(f"target must be positive and finite, in the unit of {objective}, not {target!r}")
        for name, exponent in (("alpha", alpha), ("beta", beta)):
            if not -math.inf < exponent <= 0:
                raise ValueError(f"{name} must be 0 or less, so that a cost is never rewarded, not {exponent!r}")
        self.metrics = (objective,)
        self.objective = objective
        self.target = target
        self.alpha = alpha
        self.beta = beta
        self._first: list[Trial] = []  # waiting for the target

    def tell(self, trial: Trial) -> None:
        if self.target is None:
            self._first.append(trial)
            if len(self._first) < self.population:
                return
            self.target = self._median_cost()
        else:
            self._first = [trial]
        for told in self._first:
            super().tell(told._replace(value=self._reward(told)))
        self._first = []

    def _reward(self, trial: Trial) -> float:
        """Equation 2, the exponent by equation 3; NaN where it is undefined."""
        cost = trial.metrics[self.objective]
        if self.target is None or not 0 < cost < math.inf:
            return math.nan
        w = self.alpha if cost <= self.target else self.beta
        return trial.value * math.pow(cost / self.target, w)

    def _median_cost(self) -> float | None:
        known = [cost for trial in self._first if 0 < (cost := trial.metrics[self.objective]) < math.inf]
        return float(np.median(known)) if known else None
