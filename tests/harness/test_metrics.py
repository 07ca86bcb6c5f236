"""The statistics of a report, against brute force, SciPy and their own laws."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nasharness.harness import metrics

FEW = st.integers(-3, 3).map(float)  # many ties
REALS = st.floats(-1e6, 1e6, allow_nan=False)
MAYBE_NAN = st.one_of(FEW, st.just(math.nan))
FAST = settings(max_examples=60, deadline=None)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def brute_tau(x: list[float], y: list[float]) -> float:
    """Kendall's tau-b pair by pair, from its definition."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if not (math.isnan(a) or math.isnan(b))]
    concordant = discordant = untied_x = untied_y = 0
    for (a, b), (c, d) in itertools.combinations(points, 2):
        untied_x += a != c
        untied_y += b != d
        concordant += (a - c) * (b - d) > 0
        discordant += (a - c) * (b - d) < 0
    if not untied_x or not untied_y:
        return math.nan
    return (concordant - discordant) / math.sqrt(untied_x * untied_y)


@FAST
@given(st.lists(st.tuples(MAYBE_NAN, MAYBE_NAN), max_size=25))
def test_tau_is_the_definition(points: list[tuple[float, float]]) -> None:
    """Ties on either side, on both, NaN on either side, and too few points."""
    x, y = [p[0] for p in points], [p[1] for p in points]
    assert metrics.kendall_tau(x, y) == pytest.approx(brute_tau(x, y), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(("n", "levels"), [(2, 2), (37, 5), (300, 1000), (5000, 40)])
def test_tau_is_scipys(n: int, levels: int) -> None:
    generator = rng(n)
    x = generator.integers(levels, size=n)
    y = x + generator.integers(levels, size=n)
    x[:2], y[:2] = (0, 1), (0, 1)  # never constant
    assert metrics.kendall_tau(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


@FAST
@given(st.lists(st.tuples(FEW, FEW), min_size=2, max_size=20))
def test_tau_is_symmetric_and_odd(points: list[tuple[float, float]]) -> None:
    x, y = np.array(points).T
    tau = metrics.kendall_tau(x, y)
    assert metrics.kendall_tau(y, x) == pytest.approx(tau, nan_ok=True)
    assert metrics.kendall_tau(x, -y) == pytest.approx(-tau, nan_ok=True)


def test_tau_of_nothing_is_undefined() -> None:
    """Fewer than two points, one side constant, or all but one point NaN."""
    nan = math.nan
    undefined: list[tuple[list[float], list[float]]] = [
        ([], []),
        ([1], [2]),
        ([1, 1, 1], [1, 2, 3]),
        ([1, 2, 3], [0, 0, 0]),
        ([1, nan, 3], [1, 2, nan]),
    ]
    for x, y in undefined:
        assert math.isnan(metrics.kendall_tau(x, y))
    assert metrics.kendall_tau([1, 2, nan, math.inf], [1, 2, 0, 3]) == 1.0


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1]), ([[1, 2]], [[1, 2]])])
def test_tau_refuses_other_shapes(x: Any, y: Any) -> None:
    with pytest.raises(ValueError, match="one-dimensional"):
        metrics.kendall_tau(x, y)


@FAST
@given(st.lists(REALS, min_size=1, max_size=40))
def test_iqm_is_scipys_trimmed_mean(values: list[float]) -> None:
    assert metrics.iqm(values) == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-9, abs=1e-6)


def test_iqm_along_an_axis() -> None:
    array = rng().normal(size=(3, 9, 4))
    for axis in (0, 1, 2, -1):
        np.testing.assert_allclose(metrics.iqm(array, axis=axis), stats.trim_mean(array, 0.25, axis=axis))


def test_iqm_of_nan_is_nan() -> None:
    """A NaN is never cut off with the largest quarter; a slice without one is not touched by it."""
    result = metrics.iqm([[1.0, 2.0, 3.0, math.nan], [1.0, 2.0, 4.0, 100.0]])
    assert math.isnan(result[0])
    assert result[1] == 3.0
    assert math.isnan(metrics.iqm([]))


@FAST
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20), st.integers(0, 5))
def test_interval_holds_the_mean_of_symmetric_data(half: list[float], seed: int) -> None:
    """Values mirrored about 7: the bootstrap distribution is symmetric about 7, so both ends lie around it."""
    values = 7 + np.array([*half, *(-v for v in half)])
    low, high = metrics.bootstrap_interval(values, np.mean, rng=rng(seed), n_resamples=400)
    assert low <= 7 + 1e-9
    assert high >= 7 - 1e-9
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9


def test_interval_covers_as_often_as_it_should() -> None:
    """Of normal data, 30 values each, the nominal 95 % interval of the mean covers 93.5 % (measured with 2000 sets).

    With 400 sets the count is binomial with sd 1.2 points. Bounds 5 sd away on the low side (87.3 %) and at 99 % on the
    high side (4.5 sd): a false alarm with probability below 1e-4, were the seed not fixed.
    """
    generator = rng(5)
    hits = 0
    for _ in range(400):
        low, high = metrics.bootstrap_interval(generator.normal(size=30), np.mean, rng=generator, n_resamples=400)
        hits += low <= 0 <= high
    assert 0.873 < hits / 400 < 0.99


def test_interval_widens_with_the_level() -> None:
    values = rng(1).normal(size=25)
    low, high = metrics.bootstrap_interval(values, metrics.iqm, rng=rng(), level=0.99)
    inner_low, inner_high = metrics.bootstrap_interval(values, metrics.iqm, rng=rng(), level=0.5)
    assert low < inner_low < inner_high < high


def test_interval_is_the_percentiles_of_the_resamples() -> None:
    """The definition in a plain loop, with the same draws."""
    values = rng(2).normal(size=12)
    draws = rng(9).integers(12, size=(500, 12))
    medians = [np.median(values[d]) for d in draws]
    found = metrics.bootstrap_interval(values, np.median, rng=rng(9), n_resamples=500, level=0.9)
    assert found == pytest.approx(tuple(np.quantile(medians, (0.05, 0.95))))


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan, 2.0]])
def test_interval_is_undefined_rather_than_invented(values: list[float]) -> None:
    assert all(math.isnan(end) for end in metrics.bootstrap_interval(values, np.mean, rng=rng()))


def test_interval_depends_on_its_generator_alone() -> None:
    values = rng(3).normal(size=10)
    first = metrics.bootstrap_interval(values, np.mean, rng=rng(4))
    np.random.seed(0)  # noqa: NPY002, TID251  (the point of the test)
    assert metrics.bootstrap_interval(values, np.mean, rng=rng(4)) == first
    assert metrics.bootstrap_interval(values, np.mean, rng=rng(5)) != first


def test_intervals_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="level"):
        metrics.bootstrap_interval([1.0, 2.0], np.mean, rng=rng(), level=95)
    with pytest.raises(ValueError, match="n_resamples"):
        metrics.probability_of_improvement_interval([1.0, 2.0], [1.0, 2.0], rng=rng(), n_resamples=0)
    with pytest.raises(ValueError, match="bootstrap_band"):
        metrics.bootstrap_interval([[1.0, 2.0]], np.mean, rng=rng())
    with pytest.raises(ValueError, match="matrix"):
        metrics.bootstrap_band([1.0, 2.0], rng=rng())


def test_band_is_the_interval_at_every_point() -> None:
    """Whole repetitions are resampled: every point sees the draws that a single column would see."""
    matrix = rng(6).normal(size=(15, 7)) + np.arange(7)
    low, high = metrics.bootstrap_band(matrix, rng=rng(8))
    by_call = metrics.bootstrap_band(matrix, np.mean, rng=rng(8))
    np.testing.assert_allclose((low, high), by_call)
    for point in range(7):
        assert metrics.bootstrap_interval(matrix[:, point], np.mean, rng=rng(8)) == pytest.approx(
            (low[point], high[point])
        )


@pytest.mark.parametrize("statistic", [None, np.mean, metrics.iqm])
def test_band_is_the_same_in_small_blocks(monkeypatch: pytest.MonkeyPatch, statistic: Any) -> None:
    """Blocks bound the memory and change nothing else."""
    matrix = rng(7).normal(size=(11, 9))
    whole = metrics.bootstrap_band(matrix, statistic, rng=rng(1), n_resamples=100)
    monkeypatch.setattr(metrics, "_BLOCK", 250)  # two points, and a few resamples of them, at a time
    np.testing.assert_allclose(metrics.bootstrap_band(matrix, statistic, rng=rng(1), n_resamples=100), whole)


def test_band_keeps_nan_to_its_point() -> None:
    matrix = rng(8).normal(size=(6, 3))
    matrix[2, 1] = math.nan
    low, high = metrics.bootstrap_band(matrix, rng=rng())
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [False, True, False]
    assert np.isnan(metrics.bootstrap_band(matrix[:1], rng=rng())).all()
    assert metrics.bootstrap_band(np.empty((0, 4)), rng=rng())[0].shape == (4,)


@FAST
@given(st.lists(MAYBE_NAN, min_size=1, max_size=15), st.lists(MAYBE_NAN, min_size=1, max_size=15))
def test_one_of_two_is_better(x: list[float], y: list[float]) -> None:
    """P(X > Y) + P(Y > X) = 1 with ties halved; and it is the count of pairs."""
    probability = metrics.probability_of_improvement(x, y)
    assert probability + metrics.probability_of_improvement(y, x) == pytest.approx(1)
    worth = [(-math.inf if math.isnan(a) else a, -math.inf if math.isnan(b) else b) for a in x for b in y]
    assert probability == pytest.approx(sum((a > b) + (a == b) / 2 for a, b in worth) / len(worth))


def test_improvement_is_mann_whitney() -> None:
    x, y = rng(1).normal(0.5, 1, 20), rng(2).normal(size=30)
    assert metrics.probability_of_improvement(x, y) == pytest.approx(stats.mannwhitneyu(x, y).statistic / 600)


def test_nan_never_wins() -> None:
    assert metrics.probability_of_improvement([math.nan], [-1e9]) == 0
    assert metrics.probability_of_improvement([math.nan], [math.nan]) == 0.5
    assert math.isnan(metrics.probability_of_improvement([], [1.0]))


def test_improvement_interval_is_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resampling both sides and counting pairs, with the same draws; in blocks of resamples as well."""
    x, y = np.array([1.0, 2, 2, 5, math.nan]), np.array([0.0, 2, 3, 3])
    generator = rng(3)
    dx, dy = generator.integers(5, size=(200, 5)), generator.integers(4, size=(200, 4))
    replicates = [metrics.probability_of_improvement(x[a], y[b]) for a, b in zip(dx, dy, strict=True)]
    expected = np.quantile(replicates, (0.025, 0.975))
    found = metrics.probability_of_improvement_interval(x, y, rng=rng(3), n_resamples=200)
    assert found == pytest.approx(tuple(expected))
    monkeypatch.setattr(metrics, "_BLOCK", 60)
    low, high = metrics.probability_of_improvement_interval(x, y, rng=rng(3), n_resamples=200)
    assert 0 <= low < metrics.probability_of_improvement(x, y) < high <= 1


def test_improvement_interval_needs_two_on_each_side() -> None:
    low, high = metrics.probability_of_improvement_interval([1.0], [1.0, 2.0], rng=rng())
    assert math.isnan(low)
    assert math.isnan(high)
    assert metrics.probability_of_improvement_interval([5.0, 6.0], [1.0, 2.0], rng=rng()) == (1.0, 1.0)


@FAST
@given(
    st.lists(st.tuples(st.integers(0, 9).map(float), REALS), max_size=12),
    st.lists(st.integers(-2, 24).map(lambda i: i / 2), max_size=12),
)
def test_step_function_is_the_slow_loop(steps: list[tuple[float, float]], grid: list[float]) -> None:
    """The last step at or before each point, of equal times the last; NaN before the first."""
    steps.sort(key=lambda s: s[0])
    expected = []
    for point in grid:
        value = math.nan
        for time, height in steps:
            if time <= point:
                value = height
        expected.append(value)
    found = metrics.step_values([s[0] for s in steps], [s[1] for s in steps], grid)
    np.testing.assert_array_equal(found, expected)


def test_step_function_keeps_nan_until_the_next_step() -> None:
    found = metrics.step_values([1, 2, 3], [math.nan, 5, 6], [0, 1, 1.5, 2, 9])
    np.testing.assert_array_equal(found, [math.nan, math.nan, math.nan, 5, 6])


@pytest.mark.parametrize("times", [[2.0, 1.0], [1.0, math.nan]])
def test_step_function_refuses_time_that_runs_backwards(times: list[float]) -> None:
    with pytest.raises(ValueError, match="decrease"):
        metrics.step_values(times, [1.0, 2.0], [0.0])
    with pytest.raises(ValueError, match="one length"):
        metrics.step_values([1.0, 2.0], [1.0], [0.0])


def test_difference_interval_rejects_as_often_as_it_says() -> None:
    """Of equal normal samples (n = 20), the 95 % interval excludes 0 in 2 to 10 % of 400 studies (false alarm < 1e-4)."""
    rng = np.random.default_rng(0)
    excluded = 0
    for _ in range(400):
        low, high = metrics.difference_interval(rng.normal(size=20), rng.normal(size=20), rng=rng, n_resamples=500)
        excluded += low > 0 or high < 0
    assert 0.02 <= excluded / 400 <= 0.10


def test_difference_interval_by_hand() -> None:
    """Constant samples differ by a constant; one value, or a missing one, allows no interval."""
    rng = np.random.default_rng(0)
    assert metrics.difference_interval([2.0, 2.0], [1.5, 1.5, 1.5], rng=rng) == (0.5, 0.5)
    assert np.isnan(metrics.difference_interval([2.0], [1.5, 1.5], rng=rng)).all()
    assert np.isnan(metrics.difference_interval([2.0, np.nan], [1.5, 1.5], rng=rng)).all()
