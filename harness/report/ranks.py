"""Which strategies differ: mean ranks with intervals, and a critical-difference diagram.

Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006, section 3.2.4 (the diagram);
Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 1979;
Mann and Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other", 1947.

Where this file differs from Demsar:
    * His blocks are data sets on which every classifier is measured once. Runs of search strategies on one benchmark are
      independent samples, so the rank of a strategy is its expected rank when one run of each strategy is drawn, and pairs
      are compared by the Mann-Whitney test instead of the Nemenyi or Wilcoxon test.
    * Pairs are corrected by Holm, and a bar joins strategies of which no two differ. There is no single critical distance.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .summary import Floats

ALPHA = 0.05
RESAMPLES = 2000


@dataclass(frozen=True)
class Ranking:
    """Strategies from the best to the worst expected rank.

    Attributes:
        optimizers: labels.
        ranks: expected rank of each, 1 is best, `(k,)`.
        low, high: 95 % percentile bootstrap interval over runs, `(k,)`.
        p: two-sided Mann-Whitney p-values of each pair, corrected by Holm, `(k, k)`; 1 on the diagonal.
        groups: maximal stretches `(first, last)` of neighbours in this order of which no two differ at 5 %.
    """

    optimizers: tuple[str, ...]
    ranks: Floats
    low: Floats
    high: Floats
    p: Floats
    groups: tuple[tuple[int, int], ...]


def rank_strategies(regrets: Mapping[str, Floats], *, rng: np.random.Generator) -> Ranking:
    """Rank strategies by the regrets of their runs.

    Args:
        regrets: final regret of each run by strategy; NaN (no incumbent) is the worst, infinity.
        rng: for the bootstrap.

    Raises:
        ValueError: fewer than two strategies.
    """
    labels = list(regrets)
    if len(labels) < 2:
        raise ValueError("a ranking needs at least two strategies")
    runs = [np.where(np.isnan(r), np.inf, r) for r in regrets.values()]
    ranks = _expected_ranks(runs)
    resampled = np.array(
        [_expected_ranks([r[rng.integers(len(r), size=len(r))] for r in runs]) for _ in range(RESAMPLES)]
    )
    low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
    order = np.argsort(ranks, kind="stable")
    p = _holm(runs)[np.ix_(order, order)]
    return Ranking(tuple(labels[i] for i in order), ranks[order], low[order], high[order], p, _groups(p))


def _expected_ranks(runs: Sequence[Floats]) -> Floats:
    """1 + the sum over the others of P(other lower) + P(equal) / 2, when one run of each is drawn."""
    ranks = np.ones(len(runs))
    ordered = [np.sort(r) for r in runs]
    for i, j in itertools.combinations(range(len(runs)), 2):
        lower = np.searchsorted(ordered[j], runs[i], side="left").sum()
        not_higher = np.searchsorted(ordered[j], runs[i], side="right").sum()
        j_better = (lower + not_higher) / 2 / (len(runs[i]) * len(runs[j]))
        ranks[i] += j_better
        ranks[j] += 1 - j_better
    return ranks


def mann_whitney(x: Floats, y: Floats) -> float:
    """Two-sided p-value by the normal approximation, with correction for ties and continuity; 1 where all are equal."""
    n, m = len(x), len(y)
    pooled = np.concatenate((x, y))
    _, inverse, counts = np.unique(pooled, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mid_ranks = (ends - (counts - 1) / 2)[inverse.ravel()]
    u = mid_ranks[:n].sum() - n * (n + 1) / 2
    ties = float((counts.astype(float) ** 3 - counts).sum())
    variance = n * m / 12 * ((n + m + 1) - ties / ((n + m) * (n + m - 1))) if n + m > 1 else 0.0
    if variance <= 0:
        return 1.0
    z = max(0.0, abs(u - n * m / 2) - 0.5) / math.sqrt(variance)
    return min(1.0, math.erfc(z / math.sqrt(2)))


def _holm(runs: Sequence[Floats]) -> Floats:
    """Corrected p-values of all pairs."""
    k = len(runs)
    adjusted = np.ones((k, k))
    pairs = sorted((mann_whitney(runs[i], runs[j]), i, j) for i, j in itertools.combinations(range(k), 2))
    largest = 0.0
    for position, (p, i, j) in enumerate(pairs):
        largest = max(largest, min(1.0, p * (len(pairs) - position)))
        adjusted[i, j] = adjusted[j, i] = largest
    return adjusted


def _groups(p: Floats) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for first in range(len(p)):
        last = first
        while last + 1 < len(p) and (p[first : last + 2, first : last + 2] >= ALPHA).all():
            last += 1
        if last > first and not any(a <= first and last <= b for a, b in found):
            found.append((first, last))
    return tuple(found)
