"""Ranks of strategies: worked by hand, against scipy, and their error rate."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from nasharness.harness.report.ranks import mann_whitney, rank_strategies

SAMPLES = st.lists(st.integers(0, 6).map(float), min_size=2, max_size=12)


def ranking(**regrets):
    arrays = {name: np.array(values, dtype=float) for name, values in regrets.items()}
    return rank_strategies(arrays, rng=np.random.default_rng(0))


def test_expected_ranks_by_hand():
    """Runs 1, 3 against 2, 2 against 5, 5: a beats b in one of two draws, both beat c always."""
    found = ranking(c=[5, 5], a=[1, 3], b=[2, 2])
    assert found.optimizers == ("a", "b", "c")
    assert found.ranks.tolist() == [1.5, 1.5, 3.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(SAMPLES, min_size=2, max_size=4))
def test_expected_ranks_equal_the_mean_over_all_draws(samples):
    """The slow way: draw every combination of one run of each strategy and rank it, ties sharing their ranks."""
    samples = [s[:4] for s in samples]
    found = rank_strategies({str(i): np.array(s) for i, s in enumerate(samples)}, rng=np.random.default_rng(0))
    slow = np.mean([scipy.stats.rankdata(draw) for draw in itertools.product(*samples)], axis=0)
    assert dict(zip(found.optimizers, found.ranks, strict=True)) == pytest.approx(
        {str(i): r for i, r in enumerate(slow)}
    )
    assert found.ranks.sum() == pytest.approx(len(samples) * (len(samples) + 1) / 2)


@settings(max_examples=150, deadline=None)
@given(SAMPLES, SAMPLES)
def test_mann_whitney_is_scipys(x, y):
    if len(set(x + y)) == 1:
        assert mann_whitney(np.array(x), np.array(y)) == 1.0
        return
    expected = scipy.stats.mannwhitneyu(x, y, method="asymptotic").pvalue
    assert mann_whitney(np.array(x), np.array(y)) == pytest.approx(expected, abs=1e-12)


def test_groups_join_what_cannot_be_told_apart():
    """Two pairs of equals far from each other: two bars; a fifth in between touches neither."""
    base = np.linspace(0, 1, 20)
    found = ranking(a=base, b=base + 0.01, c=base + 5, d=base + 5.01)
    assert found.optimizers == ("a", "b", "c", "d")
    assert found.groups == ((0, 1), (2, 3))
    assert found.p[0, 2] < 0.05 < found.p[0, 1]
    assert (found.low <= found.ranks).all()
    assert (found.ranks <= found.high).all()


def test_a_run_without_incumbent_is_the_worst():
    found = ranking(a=[np.nan] * 8, b=[3.0] * 8)
    assert found.optimizers == ("b", "a")
    assert found.groups == ()


def test_equal_strategies_are_rarely_told_apart():
    """Holm keeps the chance of any false difference below 5 %: over 200 studies of four equal strategies at most 22 have one
    (a binomial with p = 0.05 exceeds that with probability below 3e-4)."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(200):
        runs = [rng.normal(size=15) for _ in range(4)]
        wrong += any(
            mann_whitney(a, b) < 0.05 / 6 for a, b in itertools.combinations(runs, 2)
        )  # the first step of Holm decides whether there is any
    assert wrong <= 22


def test_one_strategy_cannot_be_ranked():
    with pytest.raises(ValueError, match="at least two"):
        ranking(a=[1.0, 2.0])
