"""The statistics of a report: rank agreement, robust means, bootstrap intervals, comparisons, step functions.

NumPy alone: importing `scipy.stats` takes longer than most reports; the tests compare with it. Nothing here draws from
global random state: whoever wants an interval passes a generator.

What becomes of NaN differs by function, because its meaning does, and every docstring says it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Statistic: TypeAlias = Callable[..., Any]
"""A function of an array and `axis=-1` that reduces that axis, such as `np.mean`, `np.median` or `iqm`."""

_BLOCK = 1 << 21
"""Most numbers that are held at once while resampling: 16 MiB of float64, whatever is asked for."""


def kendall_tau(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Kendall's rank correlation with correction for ties, tau-b, in [-1, 1].

    `(C - D) / sqrt((N - T_x) (N - T_y))` over the N pairs of points: C concordant, D discordant, T_x and T_y tied in x
    and in y (Kendall, "The treatment of ties in ranking problems", Biometrika 1945). O(n log^2 n) time, O(n) memory.

    Args:
        x, y: `(n,)` each.

    Returns:
        tau-b of the points where neither side is NaN; NaN where it is undefined: fewer than two such points, or one
        side constant.

    Raises:
        ValueError: x and y differ in length or are not one-dimensional.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"x and y must be one-dimensional and of one length, not of shape {a.shape} and {b.shape}")
    known = ~(np.isnan(a) | np.isnan(b))
    if not known.all():
        a, b = a[known], b[known]
    n = len(a)
    pairs = n * (n - 1) // 2
    order = np.lexsort((b, a))  # by x, ties by y, so that a pair tied in x is never an inversion of y
    a, b = a[order], b[order]
    x_changes = a[1:] != a[:-1]
    tied_x = _tied_pairs(x_changes)
    tied_both = _tied_pairs(x_changes | (b[1:] != b[:-1]))
    by_y = np.argsort(b, kind="stable")
    y_changes = b[by_y][1:] != b[by_y][:-1]
    tied_y = _tied_pairs(y_changes)
    if n < 2 or tied_x == pairs or tied_y == pairs:
        return float("nan")
    ranks = np.empty(n, dtype=np.int64)
    ranks[by_y] = np.concatenate(([0], np.cumsum(y_changes)))
    numerator = pairs - tied_x - tied_y + tied_both - 2 * _inversions(ranks)
    tau = numerator / np.sqrt(float(pairs - tied_x)) / np.sqrt(float(pairs - tied_y))
    return float(min(1.0, max(-1.0, tau)))


def _tied_pairs(changes: npt.NDArray[np.bool_]) -> int:
    """Pairs of equal neighbours in sorted data, given where it changes, `(n - 1,)`."""
    lengths = np.diff(np.concatenate(([-1], np.flatnonzero(changes), [len(changes)])))
    return int((lengths * (lengths - 1) // 2).sum())


def _inversions(ranks: npt.NDArray[np.int64]) -> int:
    """Number of pairs i < j with ranks[i] > ranks[j], for ranks `(n,)` from 0.

    Such a pair agrees in its leading bits, then i has a one where j has a zero. So for each bit, from the highest: keep
    the numbers grouped by the bits above it, each group in the original order, and count the ones before each zero.
    """
    count = 0
    for bit in reversed(range(int(ranks.max()).bit_length())):
        ones = (ranks >> bit) & 1
        before = np.cumsum(ones)
        above = ranks >> (bit + 1)
        group_start = np.searchsorted(above, above)
        before_group = np.concatenate(([0], before))[group_start]
        count += int(((before - before_group) * (1 - ones)).sum())
        ranks = ranks[np.argsort(ranks >> bit, kind="stable")]
    return count


def iqm(values: npt.ArrayLike, axis: int = -1) -> Any:
    """Interquartile mean: the mean of what is left when a quarter is cut off at either end.

    Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021, section 4.3:
    less disturbed by outlying runs than the mean, less variable than the median. As `scipy.stats.trim_mean(values,
    0.25)`: `floor(n / 4)` values are cut at each end.

    Returns:
        float64, the shape of `values` without `axis`. A slice with a NaN, and an empty one, gives NaN.
    """
    array = np.moveaxis(np.asarray(values, dtype=np.float64), axis, -1)
    n = array.shape[-1]
    if n == 0:
        return np.full(array.shape[:-1], np.nan)[()]
    cut = n // 4
    kept = np.partition(array, (cut, n - cut - 1), axis=-1)[..., cut : n - cut].mean(axis=-1)
    # A NaN is sorted to the end, where it would be cut off unseen.
    return np.where(np.isnan(array).any(axis=-1), np.nan, kept)[()]


def bootstrap_interval(
    values: npt.ArrayLike,
    statistic: Statistic,
    *,
    rng: np.random.Generator,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of independent repetitions.

    Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 13.3. It is too narrow for few values: of
    normal data the nominal 95 % interval of the mean covers about 84 % with 5 values, 90 % with 10 and 94 % with 30.

    Args:
        values: `(n,)`, one per repetition.
        statistic: called with arrays `(..., n)` and `axis=-1`.
        rng: where the resamples come from.
        n_resamples: how many.
        level: nominal coverage, between 0 and 1.

    Returns:
        Low and high, in the statistic's unit. Both are NaN with fewer than two values, from which no interval can be
        had, and where a value is NaN (drop and count these first: what a missing value means is the caller's to say).

    Raises:
        ValueError: values that are not one-dimensional, a level outside (0, 1) or no resamples.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"values must be one-dimensional, not of shape {array.shape}; bootstrap_band takes a matrix")
    low, high = bootstrap_band(array[:, None], statistic, rng=rng, n_resamples=n_resamples, level=level)
    return float(low[0]), float(high[0])


def bootstrap_band(
    values: npt.ArrayLike,
    statistic: Statistic | None = None,
    *,
    rng: np.random.Generator,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> tuple[Floats, Floats]:
    """`bootstrap_interval` at every grid point of curves, resampling whole repetitions.

    The band is pointwise: it covers the curve's statistic at one point with the level, not everywhere at once.

    Args:
        values: `(n, points)`, one row per repetition.
        statistic: see `bootstrap_interval`; None is the mean, as a matrix product, which is much faster than `np.mean`.
        rng, n_resamples, level: see there.

    Returns:
        Low and high, `(points,)` each. All NaN with fewer than two repetitions; NaN at points where a repetition is
        NaN.

    Raises:
        ValueError: values that are not a matrix, a level outside (0, 1) or no resamples.
    """
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"values must be a matrix (repetitions, points), not of shape {matrix.shape}")
    _check_resampling(n_resamples, level)
    n, points = matrix.shape
    if n < 2 or points == 0:
        return np.full(points, np.nan), np.full(points, np.nan)
    undefined = np.isnan(matrix).any(axis=0)
    columns = np.ascontiguousarray(np.where(undefined, 0.0, matrix).T)
    low, high = np.empty(points), np.empty(points)
    width = min(points, max(1, _BLOCK // n_resamples))
    depth = max(1, _BLOCK // (n if statistic is None else n * width))
    for start in range(0, points, width):
        block = columns[start : start + width]
        # Every block of points has to see the same repetitions: all but the last draw from a copy of the generator.
        source = rng if start + width >= points else copy.deepcopy(rng)
        replicates = np.empty((len(block), n_resamples))
        for first in range(0, n_resamples, depth):
            draws = source.integers(n, size=(min(depth, n_resamples - first), n))
            replicates[:, first : first + depth] = (
                block @ (_counts(draws, n).T / n) if statistic is None else statistic(block[:, draws], axis=-1)
            )
        low[start : start + width], high[start : start + width] = _percentiles(replicates, level)
    low[undefined] = high[undefined] = np.nan
    return low, high


def _check_resampling(n_resamples: int, level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95, not {level!r}")
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, not {n_resamples!r}")


def _percentiles(replicates: Floats, level: float) -> Floats:
    """The two ends of the percentile interval along the last axis, `(2, ...)`."""
    result: Floats = np.quantile(replicates, ((1 - level) / 2, (1 + level) / 2), axis=-1)
    return result


def _counts(draws: npt.NDArray[Any], n: int) -> Floats:
    """How often each of the numbers 0..n-1 stands in each row of `draws`, `(rows, n)`."""
    rows = len(draws)
    flat = (draws + n * np.arange(rows)[:, None]).ravel()
    return np.bincount(flat, minlength=rows * n).reshape(rows, n).astype(np.float64)


def difference_interval(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `mean(x) - mean(y)`, the two sides resampled independently.

    This, and not whether the intervals of the two means overlap, is the question whether two strategies differ: two 95 %
    intervals can overlap while the difference is clear (Schenker and Gentleman, The American Statistician 55(3), 2001).

    Args:
        x, y: `(n,)` and `(m,)`, one per repetition.
        rng, n_resamples, level: see `bootstrap_interval`.

    Returns:
        Low and high; both NaN where a side has fewer than two values or a value is NaN.
    """
    _check_resampling(n_resamples, level)
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(a) < 2 or len(b) < 2 or np.isnan(a).any() or np.isnan(b).any():
        return float("nan"), float("nan")
    means = [v[rng.integers(len(v), size=(n_resamples, len(v)))].mean(axis=1) for v in (a, b)]
    low, high = _percentiles(means[0] - means[1], level)
    return float(low), float(high)


def probability_of_improvement(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """P(X > Y) + P(X = Y) / 2 for one value drawn from each side; higher is better, so negate a regret.

    The Mann-Whitney statistic U / (n m) (Mann and Whitney, Annals of Mathematical Statistics 1947; Agarwal et al.,
    NeurIPS 2021, section 4.3, "probability of improvement").

    Args:
        x, y: `(n,)` and `(m,)`, one value per repetition. NaN ranks below every number and ties with NaN: a search that
            found nothing never wins.

    Returns:
        In [0, 1]; NaN where a side is empty. The two directions add up to 1.
    """
    a, b = _never_winning(x), _never_winning(y)
    if len(a) == 0 or len(b) == 0:
        return float("nan")
    b = np.sort(b)
    wins_and_ties = np.searchsorted(b, a, side="left") + np.searchsorted(b, a, side="right")
    return float(wins_and_ties.sum() / (2 * len(a) * len(b)))


def probability_of_improvement_interval(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `probability_of_improvement`, the two sides resampled independently.

    Args:
        x, y: see there, NaN too.
        rng, n_resamples, level: see `bootstrap_interval`.

    Returns:
        Low and high; both NaN where a side has fewer than two values. Where one side is always better, the interval is
        a single point: the bootstrap cannot see what did not happen in the sample.
    """
    _check_resampling(n_resamples, level)
    a, b = _never_winning(x), _never_winning(y)
    if len(a) < 2 or len(b) < 2:
        return float("nan"), float("nan")
    distinct, codes = np.unique(np.concatenate((a, b)), return_inverse=True)
    k, n, m = len(distinct), len(a), len(b)
    depth = max(1, _BLOCK // max(k, n, m))
    replicates = []
    for start in range(0, n_resamples, depth):
        rows = min(depth, n_resamples - start)
        in_x = _counts(codes[:n][rng.integers(n, size=(rows, n))], k)
        in_y = _counts(codes[n:][rng.integers(m, size=(rows, m))], k)
        beaten = np.cumsum(in_y, axis=1) - in_y / 2  # values of y below each distinct value, ties counted half
        replicates.append((in_x * beaten).sum(axis=1) / (n * m))
    low, high = _percentiles(np.concatenate(replicates), level)
    return float(low), float(high)


def _never_winning(values: npt.ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64).ravel()
    return np.where(np.isnan(array), -np.inf, array)


def step_values(times: npt.ArrayLike, values: npt.ArrayLike, grid: npt.ArrayLike) -> Floats:
    """A right-continuous step function at the points of a grid: the value of the last step at or before each.

    Args:
        times: `(n,)`, not decreasing; of steps at the same time the last one counts.
        values: `(n,)`, the value from that time on; a NaN here stays NaN until the next step.
        grid: any shape, any order.

    Returns:
        float64 of the grid's shape; NaN before the first step.

    Raises:
        ValueError: times that decrease or are NaN, or another number of values.
    """
    steps, heights = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if steps.ndim != 1 or steps.shape != heights.shape:
        raise ValueError(
            f"times and values must be one-dimensional and of one length, not {steps.shape} and {heights.shape}"
        )
    if np.isnan(steps).any() or (steps[1:] < steps[:-1]).any():
        raise ValueError("times must not decrease")
    padded = np.concatenate(([np.nan], heights))
    return padded[np.searchsorted(steps, np.asarray(grid, dtype=np.float64), side="right")]


def pareto_front(cost: npt.ArrayLike, accuracy: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """The points that no other dominates: none costs no more and is at least as accurate, and better in one of the two.

    Args:
        cost: `(n,)`, lower is better.
        accuracy: `(n,)`, higher is better.

    Returns:
        Indices, by ascending cost (and so by ascending accuracy); of equal points the first. A point with a NaN is in no
        front.

    Raises:
        ValueError: cost and accuracy differ in length or are not one-dimensional.
    """
    c, a = np.asarray(cost, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    if c.ndim != 1 or c.shape != a.shape:
        raise ValueError(f"cost and accuracy must be one-dimensional and of one length, not {c.shape} and {a.shape}")
    order = np.lexsort((-a, c))  # by cost, the most accurate of equal costs first; stable, so of equal points the first
    order = order[~(np.isnan(c) | np.isnan(a))[order]]
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(a[order])))[:-1]
    return order[a[order] > best_before]


def hypervolume(cost: npt.ArrayLike, accuracy: npt.ArrayLike, *, max_cost: float) -> float:
    """The share of the rectangle [0, max_cost] x [0, 1] of cost and accuracy that the points dominate.

    The hypervolume indicator of two objectives with the reference point (max_cost, accuracy 0), normalised (Zitzler and
    Thiele, "Multiobjective evolutionary algorithms", IEEE Transactions on Evolutionary Computation 3(4), 1999). In plain
    words: the best accuracy within a limit on the cost, averaged over all limits from 0 to `max_cost`; where no point is
    within the limit it counts as 0.

    Args:
        cost: `(n,)`, from 0, in the unit of `max_cost`; points that cost more contribute nothing.
        accuracy: `(n,)`, fractions in [0, 1].
        max_cost: positive.

    Returns:
        In [0, 1], exact; 0 without points, those with a NaN left out; NaN where `max_cost` is NaN.

    Raises:
        ValueError: see `pareto_front`; a `max_cost` that is not positive.
    """
    if max_cost <= 0:
        raise ValueError(f"max_cost must be positive, not {max_cost!r}")
    front = pareto_front(cost, accuracy)
    starts = np.clip(np.asarray(cost, dtype=np.float64)[front], 0, max_cost)
    heights = np.clip(np.asarray(accuracy, dtype=np.float64)[front], 0, 1)
    widths = np.diff(np.append(starts, max_cost))
    return float((widths * heights).sum() / max_cost)
