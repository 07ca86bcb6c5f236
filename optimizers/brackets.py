"""Rungs and brackets: the machinery that successive halving, Hyperband and BOHB share.

Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016, Figure 3.
https://arxiv.org/abs/1502.07943
Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband", JMLR 18(185), 2018, Algorithm 1.
https://arxiv.org/abs/1603.06560

A rung is a number of epochs at which architectures are compared. A bracket is one tournament: n architectures are trained to
its lowest rung, the best 1/eta of them go on to the next, and so on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer

_ROUNDING = 1e-9  # keeps 243 / 3**5 at 1 where floating point does not
_REDRAWS = 100


def check_halving(fidelities: Sequence[int], eta: float) -> list[int]:
    """The fidelities as a list of ints.

    Raises:
        ValueError: none, not ascending, below 1, or eta is not above 1.
    """
    epochs = [int(e) for e in fidelities]
    if not epochs or epochs[0] < 1 or any(a >= b for a, b in itertools.pairwise(epochs)):
        raise ValueError(f"fidelities must be ascending numbers of epochs from 1, not {list(fidelities)!r}")
    if not 1 < eta < math.inf:
        raise ValueError(f"eta, the share 1/eta of architectures that go on, must be above 1, not {eta!r}")
    return epochs


def rungs(fidelities: Sequence[int], eta: float = 3) -> list[int]:
    """The numbers of epochs at which architectures are compared, ascending and distinct.

    R, R/eta, R/eta**2, ... down to the lowest fidelity, where R is the highest. Each is rounded to the nearest fidelity (the
    lower one of two equally near); several that fall on the same become one, so gaps in the fidelities give fewer rungs.

        rungs(range(1, 201)) == [2, 7, 22, 67, 200]
        rungs((4, 12, 36, 108)) == [4, 12, 36, 108]
        rungs((100,)) == [100]

    Raises:
        ValueError: fidelities that are not ascending numbers from 1, or eta not above 1.
    """
    available = check_halving(fidelities, eta)
    wanted, low = [float(available[-1])], available[0] * (1 - _ROUNDING)
    while wanted[-1] / eta >= low:
        wanted.append(wanted[-1] / eta)
    return sorted({min(available, key=lambda e: (abs(e - w), e)) for w in wanted})


def rungs_upwards(fidelities: Sequence[int], eta: float = 3) -> list[int]:
    """As `rungs`, but counted from below: r, r eta, r eta**2, ... and R, where r is the lowest and R the highest fidelity.

    The asynchronous methods count so: their first results come after the shortest training, whatever R is.

        rungs_upwards(range(1, 201)) == [1, 3, 9, 27, 81, 200]

    Raises:
        ValueError: fidelities that are not ascending numbers from 1, or eta not above 1.
    """
    available = check_halving(fidelities, eta)
    wanted, high = [float(available[0])], available[-1] * (1 - _ROUNDING)
    while wanted[-1] * eta < high:
        wanted.append(wanted[-1] * eta)
    return sorted({min(available, key=lambda e: (abs(e - w), e)) for w in (*wanted, available[-1])})


def halving_plan(n: int, rungs: Sequence[int], eta: float = 3) -> list[tuple[int, int]]:
    """A bracket that starts with n architectures: floor(n / eta**i), at least one, at the i-th of the rungs."""
    return [(max(1, int(n / eta**i + _ROUNDING)), epochs) for i, epochs in enumerate(rungs)]


def hyperband_brackets(
    rungs: Sequence[int], eta: float = 3, *, sizes: Literal["paper", "hpbandster"] = "paper"
) -> list[list[tuple[int, int]]]:
    """Hyperband's brackets, the most exploring first: for s = s_max, ..., 0 the (architectures, epochs) of its rungs.

    Bracket s uses the highest s + 1 rungs and starts with n architectures (JMLR 2018, Algorithm 1, where B = (s_max + 1) R):
    n = ceil((s_max + 1) / (s + 1) * eta**s). `sizes="hpbandster"` is the rounding of HpBandSter, which ran the BOHB and
    Hyperband baselines of most papers: n = floor((s_max + 1) / (s + 1)) * eta**s.

    Raises:
        ValueError: another `sizes`.
    """
    if sizes not in ("paper", "hpbandster"):
        raise ValueError(f"sizes must be 'paper' or 'hpbandster', not {sizes!r}")
    count = len(rungs)  # s_max + 1
    brackets = []
    for s in reversed(range(count)):
        if sizes == "paper":
            n = math.ceil(count * eta**s / (s + 1) - _ROUNDING)
        else:
            n = int(count // (s + 1) * eta**s + _ROUNDING)
        brackets.append(halving_plan(n, rungs[count - 1 - s :], eta))
    return brackets


class Bracket:
    """One synchronous bracket: a rung is complete before its best go on to the next.

    Args:
        plan: (architectures, epochs) of each rung, the shortest training first.

    `next` hands out what to train and `report` takes the results, in any order: several trainings may be under way at once.
    An architecture that was handed out twice is promoted once while there are others. A failed training (NaN) is promoted
    only where there is nothing else, and of equally good ones the first reported.
    """

    def __init__(self, plan: Sequence[tuple[int, int]]) -> None:
        self._plan = list(plan)
        self._rung = 0
        self._queue: list[Architecture | None] = []  # what is still to hand out in this rung, the last first
        self._results: list[tuple[float, Architecture]] = []
        if self._plan:
            self._queue = [None] * self._plan[0][0]

    @property
    def done(self) -> bool:
        """The last rung is complete."""
        return self._rung >= len(self._plan)

    def next(self) -> tuple[Architecture | None, int] | None:
        """What to train, and to how many epochs in all.

        Returns:
            (None, epochs): a new architecture, of the caller's choice.
            (arch, epochs): one that was promoted.
            None: nothing, because the bracket is done or results of its rung are outstanding.
        """
        if not self._queue:
            return None
        return self._queue.pop(), self._plan[self._rung][1]

    def report(self, arch: Architecture, epochs: int, value: float) -> None:
        """Take the result of a training that `next` asked for: validation accuracy, NaN if it failed.

        Raises:
            ValueError: the bracket does not train to `epochs` at this point.
        """
        if self.done or epochs != self._plan[self._rung][1]:
            raise ValueError(f"a result after {epochs} epochs, which this bracket did not ask for")
        self._results.append((value, arch))
        if len(self._results) < self._plan[self._rung][0]:
            return
        self._rung += 1
        if not self.done:
            best = _best_first(self._results)[: self._plan[self._rung][0]]
            self._queue = list(reversed(best))
        self._results = []


def _best_first(results: Sequence[tuple[float, Architecture]]) -> list[Architecture]:
    """By value, repetitions of an architecture after all others, failed ones last."""
    ranked = sorted((r for r in results if r[0] == r[0]), key=lambda r: -r[0])  # stable: the first reported wins a tie
    first: dict[Architecture, None] = dict.fromkeys(arch for _, arch in ranked)
    unseen = set(first)
    repeated = []
    for _, arch in ranked:
        if arch in unseen:
            unseen.remove(arch)
        else:
            repeated.append(arch)
    return [*first, *repeated, *(arch for value, arch in results if value != value)]


class NewArchitectures:
    """Uniform samples without repetition, for as long as new ones are easily found.

    After 100 draws in a row of known architectures the space counts as exhausted, and from then on architectures repeat.
    """

    def __init__(self, space: SearchSpace, rng: np.random.Generator) -> None:
        self._space, self._rng = space, rng
        self._known: set[Architecture] = set()
        self._exhausted = False

    def draw(self) -> Architecture:
        """The next architecture."""
        arch = self._space.sample(self._rng)
        if self._exhausted:
            return arch
        for _ in range(_REDRAWS):
            if arch not in self._known:
                self._known.add(arch)
                return arch
            arch = self._space.sample(self._rng)
        self._exhausted = True
        return arch


class BracketSearch(Optimizer):
    """Plays one bracket after the other with uniform samples: all of successive halving and of Hyperband but their plans.

    Args:
        plans: the plans of the brackets, in turn, over and over.
        resume: a promoted training goes on where it stopped; False starts it anew, at the full price.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        plans: Sequence[Sequence[tuple[int, int]]],
        *,
        resume: bool = True,
    ) -> None:
        super().__init__(space, rng)
        self.resume = resume
        self._plans = plans
        self._played = 0
        self._bracket = Bracket(plans[0])
        self._new = NewArchitectures(space, rng)
        self._epochs = 0  # of the last proposal

    def ask(self) -> Proposal:
        """What the bracket promotes, or a new architecture for its lowest rung."""
        if self._bracket.done:
            self._played += 1
            self._bracket = Bracket(self._plans[self._played % len(self._plans)])
        job = self._bracket.next()
        if job is None:
            raise RuntimeError("ask again only after the last proposal was told")
        arch, self._epochs = job
        return Proposal(self._new.draw() if arch is None else arch, self._epochs, self.resume)

    def tell(self, trial: Trial) -> None:
        self._bracket.report(trial.arch, self._epochs, trial.value)
