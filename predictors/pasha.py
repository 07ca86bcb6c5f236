"""PASHA: successive halving whose trainings get longer only while the ranking still changes; here as a stopping rule.

Bohdal, Balles, Wistuba, Ermis, Archambeau and Zappella, "PASHA: Efficient HPO and NAS with Progressive Resource Allocation",
ICLR 2023. https://openreview.net/forum?id=syfgJE6nFRW
Code of the authors: `PASHARungSystem` of Syne Tune.

    open rungs: at first the two lowest, r0 and r0 eta
    below the highest open rung:   a training goes on as in ASHA
    at the highest open rung:      a training goes on, and then to its end, if it is the best that was seen there
    after a training:              one more rung is opened if the trainings that reached the highest open rung rank differently
                                   there than one rung below: if for some k the one at place k of the higher rung and the one at
                                   place k of the lower are further than eps apart, in values of the lower rung
    eps:                           90th percentile of the distances at the highest open rung of the pairs that changed order and
                                   changed it back ("criss-crossing": what crosses twice differs by noise only); while
                                   there is no such pair the last eps, which is 0 at first

Looks at: validation accuracy. Needs: nothing; its check points are its rungs.

Where this file differs from the paper:
    * The paper's algorithm pauses trainings at the highest open rung and goes on with the best of them when a rung is opened;
      in the end it returns the best of the highest open rung, to be trained in full. A stopping rule cannot come back to a
      training. So the one that is strictly the best at the highest open rung, which is what the paper's algorithm would return
      if it ended now, is trained in full at once, and every other one ends there. Of n trainings that reach the rung in random
      order about log(n) are trained in full. What ended at a rung has no values in those that are opened later; what was
      trained in full has values in all.
    * Once all rungs are open, up to the full training, this is ASHA, as is the paper's.
    * Rankings are compared when a training is over, not after each epoch; one rung at most is opened then.
    * Diverged trainings, equal values and what goes on whatever happens: as in ASHA here. Diverged ones are left out of the
      rankings.
"""

from __future__ import annotations

import numpy as np

from .asha import ASHA
from .base import Curves, Floats


class PASHA(ASHA):
    """Progressive ASHA by stopping. It gives no probability of being better.

    Args:
        rng: not used.
        eta: one in `eta` goes on at each rung below the highest open one, from 2.
        r0: epochs of the first rung, from 1.
        percentile: of the distances of criss-crossing pairs that is taken for noise, in [0, 100].

    Attributes:
        open: how many rungs are open; one more than there are rungs once the full training is.
        eps: accuracies that are closer are not told apart.

    Raises:
        ValueError: `eta` or `r0` too small, `percentile` outside [0, 100].
    """

    def __init__(self, rng: np.random.Generator, *, eta: int = 3, r0: int = 1, percentile: float = 90.0) -> None:
        super().__init__(rng, eta=eta, r0=r0)
        if not 0 <= percentile <= 100:
            raise ValueError(f"percentile is in [0, 100], not {percentile!r}")
        self.percentile = percentile
        self.open = 2
        self.eps = 0.0
        self._curves: list[Floats] = []  # of finished trainings without NaN, up to their ends

    def promising(self, observed: Curves) -> bool:
        """As in ASHA below the highest open rung; there, whether it is better than all that were seen."""
        all_rungs = self.checks(observed.max_epochs)
        if self.open > len(all_rungs) or observed.epochs < all_rungs[self.open - 1]:
            return super().promising(observed)
        if observed.epochs > all_rungs[self.open - 1]:
            return True  # it was the best at the highest open rung
        seen = self._values.get(observed.epochs, [])
        return not seen or float(observed.accuracy[0, -1]) > seen[-1]

    def tell(self, finished: Curves) -> None:
        super().tell(finished)
        all_rungs = self.checks(finished.max_epochs)
        accuracy = finished.accuracy[0]
        if np.isnan(accuracy).any():
            return
        self._curves.append(accuracy.copy())
        if self.open > len(all_rungs):
            return
        low, high = all_rungs[self.open - 2], all_rungs[self.open - 1]
        if finished.epochs < high:
            return
        curves = np.array([curve[:high] for curve in self._curves if len(curve) >= high])
        distances = criss_crossing(curves)
        if len(distances):
            self.eps = float(np.percentile(distances, self.percentile))
        if ranked_differently(curves[:, low - 1], curves[:, high - 1], self.eps):
            self.open += 1


def criss_crossing(curves: Floats) -> Floats:
    """Distances at the last epoch of the pairs of curves that changed their order and changed it back.

    Args:
        curves: `(n, m)`.
    """
    found = []
    for i in range(len(curves) - 1):
        above = curves[i] > curves[i + 1 :]
        as_now = above == above[:, -1:]
        was_as_now = np.logical_or.accumulate(as_now, axis=1)
        crossed_twice = (was_as_now[:, :-1] & ~as_now[:, 1:]).any(axis=1)
        found.append(np.abs(curves[i, -1] - curves[i + 1 :, -1])[crossed_twice])
    return np.concatenate(found) if found else np.zeros(0)


def ranked_differently(lower: Floats, higher: Floats, eps: float) -> bool:
    """Whether two rungs rank the same trainings differently, beyond values of the lower rung that are within `eps`.

    Args:
        lower: `(n,)`, values of the trainings at the lower rung.
        higher: `(n,)`, of the same trainings at the higher rung.
        eps: distance up to which values of the lower rung are not told apart.
    """
    by_lower, by_higher = np.argsort(-lower, kind="stable"), np.argsort(-higher, kind="stable")
    return bool((np.abs(lower[by_higher] - lower[by_lower]) > eps).any())
