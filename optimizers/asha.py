"""ASHA: asynchronous successive halving.

Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht and Talwalkar, "A System for Massively Parallel Hyperparameter
Tuning", MLSys 2020, Algorithm 2. https://arxiv.org/abs/1810.05934

Where this file differs from the paper:
    * One worker. What is left of "asynchronous" is that no rung waits until it is full: whatever is in the top 1/eta of
      what its rung has seen so far may be promoted, and mistakes are the price.
    * The rungs are r, r eta, r eta**2, ... and R, each rounded to the nearest fidelity of the benchmark (the paper's R is
      r times a power of eta). Its early-stopping rate s is given by leaving out the lowest fidelities.
    * `promotion=False` is the stopping form that tuning libraries offer under this name, not the paper's.
    * Architectures are drawn without repetition (a configuration of a continuous space never comes twice).
    * A failed training (NaN) counts as the worst of its rung and is never promoted. Of equally good ones the first is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush, heapreplace
from typing import Any, ClassVar

import numpy as np

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer
from .brackets import NewArchitectures, rungs_upwards


class ASHA(Optimizer):
    """Promote the best of the highest rung that has somebody to promote; else start a new architecture.

    Once every architecture of a small space was drawn they repeat, in trainings of their own.

    Args:
        fidelities: epochs that can be asked for, ascending. With a single one this is random search.
        eta: the best 1/eta of a rung go on to the next; above 1 (paper: 3 in its examples, 4 in its experiments).
        promotion: True is the paper's form: a training pauses at a rung and is resumed once it is in the top 1/eta. False
            is the stopping form: a training that reaches a rung goes on at once if it is in the top 1/eta of all that
            have reached it (or the best of the first few), and is given up for good if not.
        resume: a promoted training goes on where it stopped; False starts it anew, at the full price.

    Presets: `li2020` is the setting of the paper's experiments.

    Raises:
        ValueError: fidelities that are not ascending numbers from 1, or eta not above 1.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"li2020": {"eta": 4}}

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        fidelities: Sequence[int] = range(1, 13),
        eta: float = 3,
        promotion: bool = True,
        resume: bool = True,
    ) -> None:
        super().__init__(space, rng)
        self.promotion = promotion
        self.resume = resume
        self._epochs = rungs_upwards(fidelities, eta)
        self._rungs = [
            Rung(eta, at_least=0 if promotion else 1) for _ in self._epochs[1:]
        ]  # nobody leaves the last one
        self._top = len(self._rungs)  # number of the highest rung that may be used
        self._new = NewArchitectures(space, rng)
        self._asked = 0  # rung of the last proposal
        self._go_on: Architecture | None = None  # stopping form: it has survived that rung

    def ask(self) -> Proposal:
        """get_job of Algorithm 2."""
        arch = self._promoted() if self.promotion else self._go_on
        if arch is None:
            arch, self._asked = self._new.draw(), 0
        else:
            self._asked += 1
        return Proposal(arch, self._epochs[self._asked], self.resume)

    def _promoted(self) -> Architecture | None:
        for k in range(self._top - 1, -1, -1):
            arch = self._rungs[k].promote()
            if arch is not None:
                self._asked = k
                return arch
        return None

    def tell(self, trial: Trial) -> None:
        survives = self._asked < len(self._rungs) and self._rungs[self._asked].add(trial.arch, trial.value)
        self._go_on = trial.arch if survives else None


class Rung:
    """All results after one number of epochs, and which of them are in the top 1/eta.

    Of n results the best floor(n / eta) are in the top, or `at_least` so many. Each operation takes O(log n).
    """

    def __init__(self, eta: float, *, at_least: int = 0) -> None:
        self._eta, self._at_least = eta, at_least
        self._n = 0
        # A result is (value, -number), so that the greater is the better one, and of equally good ones the first.
        self._top: list[tuple[float, int]] = []  # heap, its worst first
        self._rest: list[tuple[float, int]] = []  # heap of negated results, its best first
        self._waiting: list[tuple[float, int, Architecture]] = []  # ditto, of those that were not promoted yet

    def add(self, arch: Architecture, value: float) -> bool:
        """Record a result, NaN if the training failed, and tell whether it is in the top."""
        failed = value != value
        result = (-math.inf if failed else value, -self._n)
        if not failed:
            heappush(self._waiting, (-value, self._n, arch))
        self._n += 1
        worse = heapreplace(self._top, result) if self._top and result > self._top[0] else result
        heappush(self._rest, (-worse[0], -worse[1]))
        if len(self._top) < max(self._at_least, int(self._n / self._eta + 1e-9)):
            value, number = heappop(self._rest)
            heappush(self._top, (-value, -number))
        return not failed and bool(self._top) and result >= self._top[0]

    def promote(self) -> Architecture | None:
        """The best of the top that was not promoted yet, which is now; None if there is none."""
        if not self._waiting or not self._top:
            return None
        value, number, arch = self._waiting[0]
        if (-value, -number) < self._top[0]:
            return None
        heappop(self._waiting)
        return arch
