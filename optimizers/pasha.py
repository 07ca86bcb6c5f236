"""PASHA: ASHA whose trainings get longer only where longer trainings change the ranking.

Bohdal, Balles, Wistuba, Ermis, Archambeau and Zappella, "PASHA: Efficient HPO and NAS with Progressive Resource Allocation",
ICLR 2023, Algorithm 1 and section 4. https://arxiv.org/abs/2207.06940

Where this file differs from the paper:
    * One worker, and the rungs of `ASHA`, from which it also takes how it draws and what it does with failures.
    * The paper draws 256 configurations, then retrains the best; here the search goes on until the budget ends, and the
      harness keeps the best of the longest trainings.
    * Of the top rung only the latest 256 architectures are compared, so that a trial costs the same however long the run.
    * Equally good architectures of the top rung are no change of the ranking.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..harness.core import Trial
from .asha import ASHA

Floats = npt.NDArray[np.float64]

WINDOW = 256
"""How many architectures of the top rung are compared: as many as the paper draws, so all of them in its setting."""


class PASHA(ASHA):
    """ASHA that starts with its two lowest rungs, and opens the next once the ranking of the highest two disagree.

    Rankings agree if every architecture of the top rung would be at its place after the shorter training too, give or take
    epsilon: the accuracy by which learning curves criss-cross, that is noise (`noise`). It is measured on the learning
    curves of the top rung, so where the benchmark has none it stays 0 and the rankings have to agree exactly. A search may
    well end without a single training on the full schedule.

    Args:
        fidelities: epochs that can be asked for, ascending. With one or two rungs this is ASHA.
        eta: the best 1/eta of a rung go on to the next; above 1 (paper: 3).
        percentile: which percentile of the criss-crossing pairs' distances epsilon is (paper: 90).
        resume: a promoted training goes on where it stopped; False starts it anew, at the full price.

    Attributes:
        epsilon: the current one, a fraction.

    Raises:
        ValueError: fidelities that are not ascending numbers from 1, eta not above 1, or percentile not in 0..100.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        fidelities: Sequence[int] = range(1, 13),
        eta: float = 3,
        percentile: float = 90,
        resume: bool = True,
    ) -> None:
        super().__init__(space, rng, fidelities=fidelities, eta=eta, resume=resume)
        if not 0 <= percentile <= 100:
            raise ValueError(f"percentile must be in 0..100, not {percentile!r}")
        self.percentile = percentile
        self.epsilon = 0.0
        self._values: list[dict[Architecture, float]] = [{} for _ in self._rungs]  # of each rung but the last
        self._top = min(1, len(self._rungs))
        self._compared = _TopRung(self._epochs[self._top])

    def tell(self, trial: Trial) -> None:
        super().tell(trial)
        if self._asked < len(self._rungs):
            self._values[self._asked][trial.arch] = trial.value
        if 0 < self._asked == self._top < len(self._rungs) and trial.value == trial.value:
            top = self._compared
            top.add(self._values[self._top - 1][trial.arch], trial.value, trial.curve)
            if (distances := top.distances()).size:
                self.epsilon = float(np.percentile(distances, self.percentile))
            if not same_ranking(top.before, top.after, self.epsilon):
                self._top += 1
                self._compared = _TopRung(self._epochs[self._top])


def same_ranking(before: Floats, after: Floats, epsilon: float) -> bool:
    """Soft ranking (section 4.1): does the later ranking put every architecture at a place that it deserved before?

    Args:
        before, after: accuracy of each architecture at the lower and at the top rung, `(n,)`.
        epsilon: the architecture at place i of the later ranking may differ by so much, at the lower rung, from the one
            that was at place i there.
    """
    later = np.lexsort((before, after))[::-1]  # best first; of equally good ones the one that was better before
    return bool((np.abs(before[later] - np.sort(before)[::-1]) <= epsilon).all())


def noise(curves: Floats, curve: Floats) -> Floats:
    """Distances at the last epoch between a learning curve and those of the others whose order with it is noise.

    It is (section 4.2) where the curves criss-cross: one is ahead at the end, was behind earlier, and ahead before that.

    Args:
        curves: accuracy after each epoch, `(n, epochs)`; comparisons with NaN are left out.
        curve: ditto, `(epochs,)`.

    Returns:
        float64 `(n,)`: NaN where two curves do not criss-cross.
    """
    lead = curve - curves
    lead *= np.sign(lead[:, -1:])  # of the one that is ahead at the end
    ahead, behind = lead > 0, lead < 0
    epochs = lead.shape[1]
    first_ahead = np.where(ahead.any(axis=1), ahead.argmax(axis=1), epochs)
    last_behind = np.where(behind.any(axis=1), epochs - 1 - behind[:, ::-1].argmax(axis=1), -1)
    return np.where(first_ahead < last_behind, lead[:, -1], np.nan)


class _TopRung:
    """The latest architectures that were trained to the top rung."""

    def __init__(self, epochs: int) -> None:
        self._n = 0
        self._before, self._after = np.empty(WINDOW), np.empty(WINDOW)
        self._curves = np.full((WINDOW, epochs), np.nan)
        self._distances = np.full((WINDOW, WINDOW), np.nan)  # each pair once, in the row of the later one

    def add(self, before: float, after: float, curve: npt.NDArray[np.float32]) -> None:
        i, n = self._n % WINDOW, min(self._n, WINDOW)
        self._before[i], self._after[i] = before, after
        self._curves[i] = np.nan
        self._curves[i, : len(curve)] = curve
        self._distances[:, i] = np.nan
        self._distances[i, :n] = noise(self._curves[:n], self._curves[i])  # NaN with itself
        self._n += 1

    @property
    def before(self) -> Floats:
        return self._before[: self._n]

    @property
    def after(self) -> Floats:
        return self._after[: self._n]

    def distances(self) -> Floats:
        n = min(self._n, WINDOW)
        all_pairs = self._distances[:n, :n]
        known: Floats = all_pairs[~np.isnan(all_pairs)]
        return known
