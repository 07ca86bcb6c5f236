"""The median rule: stop a training whose best value is below what half of the completed trainings had on average by then.

Golovin, Solnik, Moitra, Kochanski, Karro and Sculley, "Google Vizier: A Service for Black-Box Optimization", KDD 2017, section
3.2.2 ("median stopping rule").
https://doi.org/10.1145/3097983.3098043

    stop at epoch m  if and only if  max over t <= m of y_t  <  median over completed trainings p of (1/m) sum over t <= m of p_t

Looks at: validation accuracy. Needs: completed trainings, by default five.

Where this file differs from the paper:
    * It does not stop before `completed` trainings were completed; the paper names no number.
    * Only trainings that ran to their end count as completed, not those that were stopped, nor failed ones. As the rule ends the
      poor ones, the median rises.
    * A training that has reached the incumbent's final value goes on, as with every rule here.
"""

from __future__ import annotations

import numpy as np

from .base import GO_ON, Curves, Decision, Floats, StoppingRule, must_go_on


class MedianRule(StoppingRule):
    """Stops what is below the median of the running averages of completed trainings. It gives no probability.

    Args:
        rng: not used.
        completed: trainings that are completed before it stops any, from 1.
        every: check points as a share of the full training.

    Raises:
        ValueError: `completed` below 1.
    """

    def __init__(self, rng: np.random.Generator, *, completed: int = 5, every: float = 0.05) -> None:
        super().__init__(rng, every=every)
        if completed < 1:
            raise ValueError(f"completed is a number of trainings from 1, not {completed!r}")
        self.needs_curves = completed
        self._averages: list[Floats] = []  # of each completed training, after each epoch

    def decide(self, observed: Curves, best: Curves | None) -> Decision:
        decision = must_go_on(observed, best)
        if decision is not None:
            return decision
        if len(self._averages) < self.needs_curves:
            return GO_ON
        median = np.median([averages[observed.epochs - 1] for averages in self._averages])
        return Decision(bool(np.nanmax(observed.accuracy[0]) < median))

    def tell(self, finished: Curves) -> None:
        accuracy = finished.accuracy[0]
        if finished.complete and not np.isnan(accuracy).any():
            self._averages.append(np.cumsum(accuracy) / np.arange(1, len(accuracy) + 1))
