"""Anytime curves: the regret of the incumbent over GPU time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .. import metrics
from .summary import BOOTSTRAP_SEED, Measured, Split, by_optimizer

Floats: TypeAlias = npt.NDArray[np.float64]
SPLITS: tuple[Split, ...] = ("test", "validation")
POINTS = 200


@dataclass(frozen=True)
class AnytimeCurve:
    """Mean regret of one strategy's incumbents over GPU time.

    A run that has ended keeps its last incumbent. Runs that never had one are left out; where all are, the arrays are
    empty.

    Attributes:
        optimizer: label.
        split: which accuracy the regret is of.
        runs: number of runs in the mean.
        gpu_seconds: `(points,)`, simulated plus the optimizer's own, evenly spaced in the logarithm, from the first
            time at which every run has an incumbent to the end of the longest run.
        mean: percentage points, `(points,)`.
        low, high: pointwise 95 % bootstrap band of the mean over runs, `(points,)`; NaN with a single run.
    """

    optimizer: str
    split: Split
    runs: int
    gpu_seconds: Floats
    mean: Floats
    low: Floats
    high: Floats


def anytime_curves(measured: Sequence[Measured], *, points: int = POINTS) -> list[AnytimeCurve]:
    """The test and the validation curve of every strategy, strategies in order of first appearance.

    A benchmark without test accuracies has no test curves.
    """
    curves: list[AnytimeCurve] = []
    for label, group in by_optimizer(measured).items():
        found = [m for m in group if m.found]
        grid = _grid(found, points) if found else np.empty(0)
        for split in SPLITS if group[0].split == "test" else ("validation",):
            heights = [m.test_regret if split == "test" else m.validation_regret for m in found]
            matrix = np.array([_read(m, h, grid) for m, h in zip(found, heights, strict=True)]).reshape(
                len(found), len(grid)
            )
            mean = matrix.mean(axis=0) if found else np.empty(0)
            low, high = metrics.bootstrap_band(matrix, rng=np.random.default_rng(BOOTSTRAP_SEED))
            curves.append(AnytimeCurve(label, split, len(found), grid, mean, low, high))
    return curves


def _read(measured: Measured, heights: Floats, grid: Floats) -> Floats:
    """Regret at the points of the grid: of the incumbent, or on the straight line between two trials."""
    times = measured.run.gpu_seconds
    if measured.interpolation == "step":
        return metrics.step_values(times, heights, grid)
    first = int(np.argmax(measured.run.incumbents >= 0))
    return np.interp(grid, times[first:], heights[first:], left=np.nan)


def _grid(found: Sequence[Measured], points: int) -> Floats:
    firsts = [m.run.gpu_seconds[int(np.argmax(m.run.incumbents >= 0))] for m in found]
    start, end = float(max(firsts)), float(max(m.run.gpu_seconds[-1] for m in found))
    if start == 0 < end:  # a first trial that cost nothing: zero has no place on a logarithmic axis
        start = float(min(t[t > 0].min() for t in (m.run.gpu_seconds for m in found) if t[-1] > 0))
    if not 0 < start < end:  # a single trial: nothing to space
        return np.array([end])
    grid = np.geomspace(start, end, points)
    grid[0], grid[-1] = start, end  # exactly: a rounded start would lie before the first incumbent
    return grid
