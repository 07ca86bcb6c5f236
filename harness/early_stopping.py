"""Ending the trainings of a run early: what stands between an optimizer's proposal and the benchmark's answer.

A training goes on from check point to check point of the rule, each time for the price of the further epochs, until the rule ends
it or it is as long as the optimizer wanted. The optimizer is told the accuracy and the seconds of where it ended.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ..benchmarks.base import Evaluation
from ..benchmarks.spaces.base import Architecture
from ..predictors.base import Curves, Schedule, StoppingRule

if TYPE_CHECKING:
    from ..benchmarks.base import Benchmark


class Trainings(Protocol):
    """Trainings that can be gone on with."""

    def query(self, arch: Architecture, epochs: int, resume: bool) -> tuple[Evaluation, float]:
        """The answer, and what it costs beyond what was paid before."""


class Stopper:
    """One rule in one run.

    Args:
        rule: fresh.
        benchmark: asked for training losses, if the rule looks at them: those of its first training seeds' mean.

    Raises:
        ValueError: a schedule, which cannot end single trainings, or a benchmark whose trainings cannot be looked into.
    """

    def __init__(self, rule: StoppingRule | Schedule, benchmark: Benchmark) -> None:
        if isinstance(rule, Schedule):
            raise ValueError(
                f"{type(rule).__name__} is a plan for a whole list of trainings and cannot end single ones"
            )
        self.rule, self.benchmark = rule, benchmark
        self.max_epochs = benchmark.fidelities[-1]
        known = set(benchmark.fidelities)
        self.checks = [m for m in rule.checks(self.max_epochs) if m in known]
        if not benchmark.resumable or not self.checks:
            raise ValueError(
                f"trainings of {benchmark.id} cannot be looked into while they run (it knows"
                f" {', '.join(map(str, list(benchmark.fidelities)[:8]))} epochs"
                + ("" if benchmark.resumable else ", each with a schedule of its own")
                + "), so nothing can end them early"
            )
        self._best: Curves | None = None
        self._seconds = 0.0
        self._count = 0

    def take_seconds(self) -> float:
        """Measured seconds of the rule since the last call."""
        spent, self._seconds = self._seconds, 0.0
        return spent

    def train(
        self, trainings: Trainings, arch: Architecture, epochs: int | None, resume: bool
    ) -> tuple[Evaluation, float]:
        """The answer where the training ended, and what it cost."""
        wanted = self.max_epochs if epochs is None else epochs
        price = 0.0
        times: list[tuple[int, float]] = [(0, 0.0)]
        losses = self._losses(arch)
        answer: Evaluation | None = None
        for m in [*(m for m in self.checks if m < wanted), wanted]:
            answer, due = trainings.query(arch, m, resume or len(times) > 1)
            price += due
            times.append((answer.epochs, answer.seconds))
            if m == wanted or answer.val_accuracy != answer.val_accuracy:
                break
            start = time.perf_counter()
            stop = self.rule.decide(self._curves(arch, answer, times, losses), self._best).stop
            self._seconds += time.perf_counter() - start
            if stop:
                break
        assert answer is not None
        start = time.perf_counter()
        finished = self._curves(arch, answer, times, losses)
        self.rule.tell(finished)
        if finished.complete and (self._best is None or finished.final[0] > self._best.final[0]):
            self._best = finished
        self._count += 1
        self._seconds += time.perf_counter() - start
        return answer, price

    def _losses(self, arch: Architecture) -> npt.NDArray[np.float64] | None:
        if "train_loss" not in self.rule.uses:
            return None
        return np.asarray(self.benchmark.curve(arch).train_loss, dtype=np.float64)

    def _curves(
        self,
        arch: Architecture,
        answer: Evaluation,
        times: list[tuple[int, float]],
        losses: npt.NDArray[np.float64] | None,
    ) -> Curves:
        m = answer.epochs
        epochs, seconds = zip(*times, strict=True)
        return Curves(
            accuracy=np.asarray(answer.curve, dtype=np.float64)[None, :],
            max_epochs=self.max_epochs,
            arch=np.array([arch], dtype=np.int64),
            cardinalities=tuple(self.benchmark.space.cardinalities),
            seconds=np.interp(np.arange(1, m + 1), epochs, seconds)[None, :],  # known at the check points
            train_loss=None if losses is None else losses[None, :m].copy(),
            dataset=np.zeros(1, dtype=np.int64),
            group=np.array([self._count], dtype=np.int64),
        )
