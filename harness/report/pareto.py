"""The trade-off between accuracy and a cost: what each run would return, how good it is, and by how much that varies.

A run returns the architectures that no other trial of it dominates in what the search saw: validation accuracy and cost.
Like an incumbent they are chosen by that, never by the accuracy that is reported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from ...benchmarks.spaces.base import SearchSpace
from .. import metrics
from .summary import BASELINE, BOOTSTRAP_SEED, Estimate, Measured, Split, by_optimizer, estimated

if TYPE_CHECKING:
    from ...benchmarks.base import Benchmark
    from ..run import Run

Floats: TypeAlias = npt.NDArray[np.float64]

LISTED = 50_000
"""Up to this many architectures the whole space is looked up; of a larger one a sample."""
SAMPLED = 1_000


@dataclass(frozen=True)
class Front:
    """What one run would return, by ascending cost.

    Attributes:
        run: the record.
        trials: indices of its trials, `(k,)`; empty if every trial failed.
        cost: `(k,)`, in the benchmark's unit.
        test_accuracy, validation_accuracy: final, fractions, `(k,)`.
    """

    run: Run
    trials: npt.NDArray[np.intp]
    cost: Floats
    test_accuracy: Floats
    validation_accuracy: Floats

    def accuracy(self, split: Split) -> Floats:
        """The final accuracies on a split."""
        return self.test_accuracy if split == "test" else self.validation_accuracy


@dataclass(frozen=True)
class FrontRow:
    """One strategy.

    Attributes:
        optimizer: label.
        runs: their number.
        architectures: mean number of architectures that a run returns.
        hypervolume: mean over runs; a run in which every trial failed counts as 0.
        difference: the same minus random search's; None for random search itself and in a study without it.
    """

    optimizer: str
    runs: int
    architectures: float
    hypervolume: Estimate
    difference: Estimate | None


@dataclass(frozen=True)
class Fronts:
    """All that a report says about one objective.

    Attributes:
        objective: the benchmark's metric.
        split: which final accuracy it is about: validation where strategies are compared by it, and where the test accuracy
            of an architecture in some front is not known.
        max_cost: the reference point is (max_cost, accuracy 0): the largest cost of the space, or of a fixed sample of it. It
            depends on the benchmark alone; NaN where the benchmark knows no positive cost.
        sampled: `max_cost` is that of a sample.
        rows: one per strategy, in the order in which the strategies first appear.
        fronts: of each strategy, one per run, by seed and repetition.
        hypervolumes: of these, `(runs,)` each, see `metrics.hypervolume`.
        best_cost, best_accuracy: the front of the whole space, by ascending cost; empty where it is too large to list.
        best_hypervolume: of that front, NaN likewise.
    """

    objective: str
    split: Split
    max_cost: float
    sampled: bool
    rows: tuple[FrontRow, ...]
    fronts: dict[str, list[Front]]
    hypervolumes: dict[str, Floats]
    best_cost: Floats
    best_accuracy: Floats
    best_hypervolume: float


def find_fronts(measured: Sequence[Measured], benchmark: Benchmark, objective: str) -> Fronts:
    """Look up costs and final accuracies of what each run would return.

    Raises:
        ValueError: the benchmark has no metric of this name.
    """
    listed = _listable(benchmark.space)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    archs = list(benchmark.space) if listed else [benchmark.space.sample(rng) for _ in range(SAMPLED)]
    costs = benchmark.metric(objective, archs)
    max_cost = float(np.nanmax(costs)) if np.isfinite(costs).any() else math.nan
    max_cost = max_cost if 0 < max_cost < math.inf else math.nan
    fronts = {
        label: [_front(m.run, benchmark, objective) for m in group] for label, group in by_optimizer(measured).items()
    }
    split = measured[0].split
    if any(np.isnan(f.test_accuracy).any() for group in fronts.values() for f in group):
        split = "validation"  # what happens to be known would be a biased sample
    best_cost, best_accuracy, best_hypervolume = np.empty(0), np.empty(0), math.nan
    if listed:
        final = benchmark.final_many(archs)
        accuracies = np.asarray(final.test_accuracy if split == "test" else final.val_accuracy, dtype=np.float64)
        best = metrics.pareto_front(costs, accuracies)
        best_cost, best_accuracy = costs[best], accuracies[best]
        best_hypervolume = metrics.hypervolume(best_cost, best_accuracy, max_cost=max_cost)
    volumes = {
        label: np.array([metrics.hypervolume(f.cost, f.accuracy(split), max_cost=max_cost) for f in group])
        for label, group in fronts.items()
    }
    rows = tuple(_row(label, group, volumes[label], volumes.get(BASELINE)) for label, group in fronts.items())
    return Fronts(
        objective, split, max_cost, not listed, rows, fronts, volumes, best_cost, best_accuracy, best_hypervolume
    )


def _listable(space: SearchSpace) -> bool:
    """Whether iterating over the space is quick: few architectures, and not many choice vectors to leave out."""
    own = type(space).__iter__ is not SearchSpace.__iter__
    return (own or math.prod(space.cardinalities) <= LISTED) and space.size <= LISTED


def _front(run: Run, benchmark: Benchmark, objective: str) -> Front:
    t = run.trials
    if run.charged:  # values after different numbers of epochs are not compared
        candidates = np.flatnonzero(~np.isnan(t.value))
        candidates = candidates[t.epochs[candidates] == t.epochs[candidates].max(initial=0)]
    else:  # what it would return is its latest proposal
        candidates = np.array([len(t) - 1], dtype=np.intp)
    if len(candidates) == 0:
        return Front(run, candidates, np.empty(0), np.empty(0), np.empty(0))
    cost = benchmark.metric(objective, t.arch[candidates])
    kept = metrics.pareto_front(cost, np.nan_to_num(t.value[candidates]))
    trials = candidates[kept]
    final = benchmark.final_many(t.arch[trials])
    test, validation = (np.asarray(a, dtype=np.float64) for a in (final.test_accuracy, final.val_accuracy))
    return Front(run, trials, cost[kept], test, validation)


def _row(label: str, group: Sequence[Front], volumes: Floats, baseline: Floats | None) -> FrontRow:
    difference: Estimate | None = None
    if baseline is not None and label != BASELINE:
        low, high = metrics.difference_interval(volumes, baseline, rng=np.random.default_rng(BOOTSTRAP_SEED))
        difference = Estimate(float(volumes.mean() - baseline.mean()), low, high)
    architectures = float(np.mean([len(f.trials) for f in group]))
    return FrontRow(label, len(group), architectures, estimated(volumes, np.mean), difference)


def attainment(fronts: Sequence[Front], split: Split, costs: Floats, share: float) -> Floats:
    """The accuracy that at least this share of the runs reach within a cost, at each of `costs`; NaN where fewer do.

    An attainment surface of two objectives (Fonseca and Fleming, "On the performance assessment and comparison of stochastic
    multiobjective optimizers", PPSN 1996); a share of 0.5 gives the median one.
    """
    reached = np.full((len(fronts), len(costs)), -np.inf)
    for row, front in zip(reached, fronts, strict=True):
        known = ~np.isnan(front.accuracy(split))
        best = np.maximum.accumulate(front.accuracy(split)[known])
        row[:] = np.nan_to_num(metrics.step_values(front.cost[known], best, costs), nan=-np.inf)
    place = math.ceil(share * len(fronts)) - 1
    accuracy: Floats = np.sort(reached, axis=0)[::-1][place]
    return np.where(np.isneginf(accuracy), np.nan, accuracy)
