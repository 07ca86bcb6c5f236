"""ASHA in its stopping form: at each rung a training goes on if it is in the best third of all that came so far.

Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht and Talwalkar, "A System for Massively Parallel Hyperparameter
Tuning", MLSys 2020, algorithm 2.
https://arxiv.org/abs/1810.05934

    rungs r0 eta^k;  go on at a rung  if and only if  fewer than max(1, floor(n / eta)) of the n trainings seen there were better

n counts the training itself, so the first one at each rung goes on, and equal ones share the better rank.

Looks at: validation accuracy. Needs: nothing; its check points are its rungs.

Where this file differs from the paper:
    * The paper's algorithm pauses trainings and later promotes some of them. This is the stopping form, known from Ray Tune and
      Syne Tune: what is stopped is not resumed. They compare with a quantile of the values at the rung, this file counts ranks.
    * A training that diverged (NaN) by a rung counts there as the worst.
    * A training goes on while there is no incumbent or once it has reached the incumbent's final value, as with every rule here.
      Its values count at the rungs like all others.
"""

from __future__ import annotations

from bisect import bisect_right, insort

import numpy as np

from .base import Curves, Decision, StoppingRule, must_go_on
from .successive_halving import check_rungs, rungs


class ASHA(StoppingRule):
    """Asynchronous successive halving by stopping. It gives no probability of being better.

    Args:
        rng: not used.
        eta: one in `eta` goes on at each rung, from 2.
        r0: epochs of the first rung, from 1.

    Raises:
        ValueError: `eta` or `r0` too small.
    """

    def __init__(self, rng: np.random.Generator, *, eta: int = 3, r0: int = 1) -> None:
        super().__init__(rng)
        check_rungs(eta, r0)
        self.eta, self.r0 = eta, r0
        self._values: dict[int, list[float]] = {}  # rung -> values of finished trainings there, ascending

    def checks(self, max_epochs: int) -> tuple[int, ...]:
        return rungs(self.r0, self.eta, max_epochs)

    def decide(self, observed: Curves, best: Curves | None) -> Decision:
        decision = must_go_on(observed, best)
        if decision is not None:
            return decision
        return Decision(not self.promising(observed))

    def promising(self, observed: Curves) -> bool:
        """Whether a training is in the best 1/eta of those seen at the rung that it has reached, itself among them."""
        seen = self._values.get(observed.epochs, [])
        better = len(seen) - bisect_right(seen, float(observed.accuracy[0, -1]))
        return better < max(1, (len(seen) + 1) // self.eta)

    def tell(self, finished: Curves) -> None:
        for rung in self.checks(finished.max_epochs):
            if rung <= finished.epochs:
                value = float(finished.accuracy[0, rung - 1])
                insort(self._values.setdefault(rung, []), value if value == value else -np.inf)
