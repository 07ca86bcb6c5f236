"""random_stop: stop trainings by the toss of a coin. The control that every other rule has to beat at the same cost.

Nothing to cite: a search that ends trainings at random is random search over fewer of them.

    p = 1 - (1 - share)^(1/J),  J check points:  stop at each check point with probability p

so that a share `share` of the trainings that meet all J check points ends early.

Looks at: nothing. Needs: an incumbent. As with every rule here, trainings before the first incumbent and those that have
reached its value go on, so that the share of all trainings is a little lower; those that diverged are stopped, whatever the
coin says.
"""

from __future__ import annotations

import numpy as np

from .base import Curves, Decision, StoppingRule, must_go_on


class RandomStop(StoppingRule):
    """Stops at random. It gives no probability of being better.

    Args:
        rng: tosses the coin, once for each decision that is free.
        share: expected share of trainings that are ended early, in [0, 1].
        every: check points as a share of the full training.

    Raises:
        ValueError: `share` outside [0, 1].
    """

    uses = frozenset()

    def __init__(self, rng: np.random.Generator, *, share: float = 0.5, every: float = 0.05) -> None:
        super().__init__(rng, every=every)
        if not 0 <= share <= 1:
            raise ValueError(f"share is in [0, 1], not {share!r}")
        self.share = share

    def decide(self, observed: Curves, best: Curves | None) -> Decision:
        decision = must_go_on(observed, best)
        if decision is not None:
            return decision
        n = max(1, len(self.checks(observed.max_epochs)))
        return Decision(bool(self.rng.random() < 1 - (1 - self.share) ** (1 / n)))
