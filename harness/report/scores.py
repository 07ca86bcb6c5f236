"""The numbers of a proxy study: how well scores of untrained networks order architectures by their trained accuracy.

All proxies are judged on one and the same set of architectures. A network that a proxy cannot score counts as the lowest, tied
with the others that it cannot score. Intervals are over architectures: they say how far the numbers would move with another
draw of equally many, and nothing about the luck of initial weights and images. The bootstrap's seed is fixed and every set of
scores sees the same resamples, so the same scores give the same report.

Where the k-th best score is shared, what is said of the k best-scored is the expectation over which of them are taken.

Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, https://arxiv.org/abs/2101.08134 (the vote of synflow,
jacob_cov and snip; the 64 best-scored among the best 5 %); Krishnakumar et al., "NAS-Bench-Suite-Zero", NeurIPS 2022 Datasets
and Benchmarks, https://arxiv.org/abs/2210.03230 (proxies against each other, and combined).

Where this file differs from them:
    * The vote decides between two architectures at a time, which need not give an order. Here an architecture's score is the
      number of others that it beats by majority less the number that it loses to (Copeland's rule), so that it is judged
      like every other score. They report the share of pairs that the majority gets right.
    * Proxies are combined by weighted ranks with weights of at least 0 and not by a model of their values; the fit never sees
      the architectures that it is judged on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from .. import metrics
from .summary import BOOTSTRAP_SEED, Estimate, Floats, Split, _fixed, _seconds

if TYPE_CHECKING:
    from ...benchmarks.base import Benchmark

RESAMPLES = 1000
FEW_ARCHITECTURES = 10
"""With fewer, a percentile bootstrap interval of a rank correlation misses far more often than it says: there is none."""
MANY = 15_625
"""Most architectures that vote against each other, or that proxies are compared on with each other; a fixed sample of more."""
FOLDS = 5
FEWEST_TO_FIT = 40

NO_DIFFERENCE = Estimate(math.nan, math.nan, math.nan)
PUBLISHED_VOTE = ("synflow", "jacob_cov", "snip")
PARAMS, CHANCE = "params", "random_score"
VOTE, RANK_AVERAGE, FITTED = "vote", "rank average", "fitted ranks (needs accuracies)"

_NONE = "\N{EN DASH}"
_BLOCK = 1 << 23  # most comparisons of two architectures that are held at once, a byte each


class Scores(Protocol):
    """What is asked of the scores of a study, see `harness.scoring.Scores`."""

    @property
    def benchmark(self) -> Benchmark: ...
    @property
    def archs(self) -> npt.NDArray[np.int16]: ...
    @property
    def proxies(self) -> tuple[str, ...]: ...
    @property
    def values(self) -> Mapping[str, Floats]: ...
    @property
    def parts(self) -> Mapping[str, Mapping[str, Floats]]: ...
    @property
    def seconds(self) -> Mapping[str, Floats]: ...
    @property
    def peak_bytes(self) -> Mapping[str, float]: ...
    @property
    def errors(self) -> Mapping[str, Mapping[int, str]]: ...
    @property
    def accuracy(self) -> Floats: ...
    @property
    def split(self) -> Split: ...
    @property
    def population(self) -> str: ...
    @property
    def specification(self) -> Mapping[str, Any]: ...


def base_name(label: str) -> str:
    """The registered name in a label: without preset and hyper-parameters."""
    return re.split(r"[@(]", label, maxsplit=1)[0]


@dataclass(frozen=True)
class Combination:
    """A score made of those of several proxies.

    Attributes:
        values: `(n,)`, NaN where the accuracy is not known.
        members: labels of the proxies.
        weights: of the fitted combination the weight of each member's rank, mean over the folds; else empty.
    """

    values: Floats
    members: tuple[str, ...]
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreRow:
    """One proxy, or one combination of proxies, judged against the accuracies of n architectures.

    Attributes:
        proxy: label.
        combined: how many proxies it is made of; 0 for a proxy itself.
        tau, rho: Kendall's tau-b and Spearman's rho with the accuracy, 95 % bootstrap intervals over architectures.
        tau_of_best: tau-b within the best tenth by accuracy, interval over the architectures in it.
        precision_10: share of the 10 best-scored that are among the 10 best by accuracy; NaN with 10 architectures or fewer.
        precision_tenth: share of the best-scored tenth that is in the best tenth by accuracy; NaN likewise.
        top_64: share of the 64 best-scored that are among the best 5 % by accuracy; NaN where that is fewer than 64.
        regret_1, regret_10: percentage points between the most accurate architecture of the set and the most accurate of the
            1 and of the 10 best-scored; of 10 NaN with fewer architectures.
        unscorable: how many of the n it could not score.
        seconds: mean per architecture, as if it were computed alone; of a combination the sum over its members.
        peak_mib: most memory in use while it was computed; of a combination of the member that needs most; NaN where it is not
            known.
        from_best: tau less the tau of the best proxy, paired bootstrap interval; None for that proxy.
        from_params: tau less that of `params`, likewise; None for params and without it.
    """

    proxy: str
    combined: int
    tau: Estimate
    rho: Estimate
    tau_of_best: Estimate
    precision_10: float
    precision_tenth: float
    top_64: float
    regret_1: float
    regret_10: float
    unscorable: int
    seconds: float
    peak_mib: float
    from_best: Estimate | None
    from_params: Estimate | None


@dataclass(frozen=True)
class ScoreColumn:
    """A column of the displayed table: heading, what it means, the cell of a row.

    `text` columns are set flush left; those that are not `brief` are left out where there is little room.
    """

    heading: str
    meaning: str
    cell: Callable[[ScoreRow], str]
    text: bool = False
    brief: bool = True


@dataclass(frozen=True)
class ScoreSummary:
    """The table of a proxy study.

    Attributes:
        benchmark: id.
        population: the set of architectures in words.
        split: of the accuracies.
        n: architectures that are judged.
        unknown: architectures left out because their accuracy is not known.
        n_best: architectures in the best tenth by accuracy, with those as accurate as the last of them.
        best_accuracy: percent; NaN without architectures.
        rows: proxies by descending tau, undefined ones last, then combinations by descending tau.
        combinations: by label.
        labels: proxies in the order of `correlations`.
        correlations: tau-b of every two of them, `(k, k)`; NaN where it is undefined.
        correlated: architectures that went into it.
        constant: all accuracies are equal, so that nothing can be ordered.
    """

    benchmark: str
    population: str
    split: Split
    n: int
    unknown: int
    n_best: int
    best_accuracy: float
    rows: tuple[ScoreRow, ...]
    combinations: Mapping[str, Combination]
    labels: tuple[str, ...]
    correlations: Floats
    correlated: int
    constant: bool

    @property
    def proxies(self) -> tuple[ScoreRow, ...]:
        """The rows of proxies, without those of combinations."""
        return tuple(row for row in self.rows if not row.combined)

    @property
    def digits(self) -> int:
        """Decimals of a correlation."""
        return 2 if self.n < 1000 else 3

    @property
    def columns(self) -> tuple[ScoreColumn, ...]:
        return columns(self)

    def rows_for_display(self, *, brief: bool = False) -> tuple[list[str], list[list[str]]]:
        """Headings and the cells of each row as plain text, for a terminal (`brief`), a page or a LaTeX table."""
        shown = [c for c in self.columns if c.brief or not brief]
        return [c.heading for c in shown], [[c.cell(row) for c in shown] for row in self.rows]

    def records(self) -> list[dict[str, str | int | float | None]]:
        """One flat record per row in full precision, for a CSV file or a frame; an estimate is three fields."""
        return [_record(row) for row in self.rows]

    def verdicts(self) -> list[str]:
        """What the numbers allow to say, a sentence each."""
        return _verdicts(self)


def columns(summary: ScoreSummary) -> tuple[ScoreColumn, ...]:
    """The columns of the table, with what depends on the set of architectures in their meanings."""
    digits, split = summary.digits, summary.split
    return (
        ScoreColumn(
            "proxy", "The proxy, with its hyper-parameters where they were given.", lambda r: r.proxy, text=True
        ),
        ScoreColumn(
            "Kendall tau",
            f"Rank correlation (tau-b) of the score with the {split} accuracy: the share of pairs of architectures that it"
            " orders rightly less the share that it orders wrongly, corrected for ties. 0 is no better than chance.",
            lambda r: r.tau.text(digits),
        ),
        ScoreColumn(
            "Spearman rho",
            "Correlation of the ranks. It is usually larger than tau on the same data; compare it with rho only.",
            lambda r: r.rho.text(digits),
        ),
        ScoreColumn(
            "tau, best tenth",
            f"Kendall tau among the {summary.n_best:,} architectures with the highest accuracy, where a search has to decide."
            " Its interval resamples these architectures.",
            lambda r: r.tau_of_best.text(digits),
        ),
        ScoreColumn(
            "precision@10",
            "Share of the 10 best-scored architectures that are among the 10 most accurate.",
            lambda r: _fixed(r.precision_10, 2),
            brief=False,
        ),
        ScoreColumn(
            "precision@tenth",
            "Share of the best-scored tenth of the architectures that is in the most accurate tenth. By chance 0.1.",
            lambda r: _fixed(r.precision_tenth, 2),
        ),
        ScoreColumn(
            "64 in best 5 %",
            "Share of the 64 best-scored architectures that are in the most accurate 5 %. By chance 0.05.",
            lambda r: _fixed(r.top_64, 2),
            brief=False,
        ),
        ScoreColumn(
            "regret@1",
            f"Percentage points of {split} accuracy between the most accurate architecture of the set and the best-scored one.",
            lambda r: _fixed(r.regret_1, 2),
        ),
        ScoreColumn(
            "regret@10",
            "The same for the most accurate of the 10 best-scored: what is lost if these are trained and the best is kept.",
            lambda r: _fixed(r.regret_10, 2),
        ),
        ScoreColumn(
            "unscorable",
            "Architectures without a finite score. They count as the lowest.",
            lambda r: f"{r.unscorable:,}",
        ),
        ScoreColumn(
            "s per network",
            "Mean measured seconds of a score, with building the network, as if the proxy were computed alone; 0 for a table"
            " look-up. Of a combination the sum over its members.",
            lambda r: _seconds(r.seconds),
        ),
        ScoreColumn(
            "peak MiB",
            "Most memory in use while the first few networks were scored; of a combination that of the member that needs most.",
            lambda r: _NONE if math.isnan(r.peak_mib) else f"{r.peak_mib:,.0f}",
            brief=False,
        ),
    )


def _record(row: ScoreRow) -> dict[str, str | int | float | None]:
    record: dict[str, str | int | float | None] = {"proxy": row.proxy, "combined": row.combined}
    for name, value in vars(row).items():
        if isinstance(value, Estimate):
            record |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        elif value is None:
            record |= {name: None, f"{name}_low": None, f"{name}_high": None}
        else:
            record[name] = value
    return record


def summarise(scores: Scores) -> ScoreSummary:
    """The summary of a proxy study.

    Raises:
        ValueError: a score is NaN, or arrays differ in length.
    """
    _check(scores)
    known = ~np.isnan(scores.accuracy)
    accuracy = np.asarray(scores.accuracy[known], dtype=np.float64)
    values = {label: np.asarray(scores.values[label][known], dtype=np.float64) for label in scores.proxies}
    combinations = combine(values, accuracy)
    judged = values | {label: c.values for label, c in combinations.items()}
    n = len(accuracy)
    matrix = np.stack(list(judged.values())) if judged else np.empty((0, n))
    tenth = math.ceil(n / 10)
    top = accuracy >= np.partition(accuracy, n - tenth)[n - tenth] if n else np.zeros(0, dtype=bool)

    taus = {label: metrics.kendall_tau(v, accuracy) for label, v in judged.items()}
    tau_replicates, rho_replicates = _replicates(matrix, accuracy)
    top_replicates, _ = _replicates(matrix[:, top], accuracy[top])
    ordered = sorted(judged, key=lambda label: (label in combinations, math.isnan(taus[label]), -_or_zero(taus[label])))
    best = next((label for label in ordered if label in values and not math.isnan(taus[label])), None)
    params = next((label for label in values if base_name(label) == PARAMS), None)
    place = {label: i for i, label in enumerate(judged)}

    def difference(label: str, other: str | None) -> Estimate | None:
        if other is None or label == other:
            return None
        replicates = tau_replicates[place[label]] - tau_replicates[place[other]]
        return _estimate(taus[label] - taus[other], replicates)

    rows = []
    for label in ordered:
        i, v = place[label], judged[label]
        combination = combinations.get(label)
        members = combination.members if combination else (label,)
        peaks = [scores.peak_bytes.get(member, math.nan) for member in members]
        rows.append(
            ScoreRow(
                proxy=label,
                combined=len(members) if combination else 0,
                tau=_estimate(taus[label], tau_replicates[i]),
                rho=_estimate(metrics.spearman_rho(v, accuracy), rho_replicates[i]),
                tau_of_best=_estimate(metrics.kendall_tau(v[top], accuracy[top]), top_replicates[i]),
                precision_10=metrics.precision_at(v, accuracy, 10) if n > 10 else math.nan,
                precision_tenth=metrics.precision_at(v, accuracy, tenth) if n > 10 else math.nan,
                top_64=metrics.precision_at(v, accuracy, 64, math.ceil(n / 20))
                if math.ceil(n / 20) >= 64
                else math.nan,
                regret_1=_regret(v, accuracy, 1),
                regret_10=_regret(v, accuracy, 10),
                unscorable=int((v == -np.inf).sum()),
                seconds=sum(_mean(scores.seconds[member]) for member in members),
                peak_mib=max(peaks) / 2**20 if not any(map(math.isnan, peaks)) else math.nan,
                from_best=difference(label, best),
                from_params=difference(label, params),
            )
        )
    labels = tuple(label for label in ordered if label in values)
    sample = _sample(n)
    return ScoreSummary(
        benchmark=scores.benchmark.id,
        population=scores.population,
        split=scores.split,
        n=n,
        unknown=int((~known).sum()),
        n_best=int(top.sum()),
        best_accuracy=100 * float(accuracy.max()) if n else math.nan,
        rows=tuple(rows),
        combinations={label: _spread(c, known) for label, c in combinations.items()},
        labels=labels,
        correlations=_correlations([values[label][sample] for label in labels]),
        correlated=len(sample),
        constant=n > 1 and bool((accuracy == accuracy[0]).all()),
    )


def _check(scores: Scores) -> None:
    n = len(scores.accuracy)
    for label in scores.proxies:
        found = scores.values[label]
        if len(found) != n:
            raise ValueError(f"{label} has {len(found)} scores for {n} accuracies")
        if np.isnan(found).any():
            raise ValueError(f"a score of {label} is NaN; what cannot be scored is -inf")


def _spread(combination: Combination, known: npt.NDArray[np.bool_]) -> Combination:
    """The combination on all architectures, NaN where the accuracy is not known."""
    values = np.full(len(known), np.nan)
    values[known] = combination.values
    return Combination(values, combination.members, combination.weights)


def _replicates(matrix: Floats, accuracy: Floats) -> tuple[Floats, Floats]:
    if len(accuracy) < FEW_ARCHITECTURES:
        nothing = np.full((len(matrix), 1), np.nan)
        return nothing, nothing
    return metrics.resampled_correlations(matrix, accuracy, rng=_generator(), n_resamples=RESAMPLES)


def _estimate(value: float, replicates: Floats) -> Estimate:
    return Estimate(value, *metrics.percentile_interval(replicates)) if not math.isnan(value) else NO_DIFFERENCE


def _regret(values: Floats, accuracy: Floats, k: int) -> float:
    if len(accuracy) < k:
        return math.nan
    return 100 * (float(accuracy.max()) - metrics.expected_best(values, accuracy, k))


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _mean(values: Floats) -> float:
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else math.nan


def _generator() -> np.random.Generator:
    return np.random.default_rng(BOOTSTRAP_SEED)


def _sample(n: int) -> npt.NDArray[np.intp]:
    """All of n, or a fixed sample of `MANY` of more."""
    return np.arange(n) if n <= MANY else np.sort(_generator().choice(n, MANY, replace=False))


def _correlations(scores: Sequence[Floats]) -> Floats:
    k = len(scores)
    result = np.full((k, k), np.nan)
    for i, a in enumerate(scores):
        for j, b in enumerate(scores[: i + 1]):
            result[i, j] = result[j, i] = metrics.kendall_tau(a, b)
    return result


def combine(values: Mapping[str, Floats], accuracy: Floats) -> dict[str, Combination]:
    """Scores made of the proxies' scores.

    `random_score` takes no part. With three or more others: the vote of all, and that of synflow, jacob_cov and snip where
    these are among more. With two or more: the mean of the ranks, and from 40 architectures on ranks with fitted weights.

    Args:
        values: by label, `(n,)` each, no NaN.
        accuracy: `(n,)`, no NaN; used by the fitted combination only.
    """
    members = tuple(label for label in values if base_name(label) != CHANCE)
    n = len(accuracy)
    result: dict[str, Combination] = {}
    if len(members) < 2 or n < 2:
        return result
    named = {base_name(label): label for label in reversed(members)}  # of several settings of a proxy the first
    voters = tuple(named[name] for name in PUBLISHED_VOTE) if all(name in named for name in PUBLISHED_VOTE) else ()
    if voters and len(members) > len(voters):
        result[f"{VOTE} ({', '.join(PUBLISHED_VOTE)})"] = Combination(majority([values[v] for v in voters]), voters)
    if len(members) >= 3:
        result[f"{VOTE} of all {len(members)}"] = Combination(majority([values[m] for m in members]), members)
    ranks = np.stack([metrics.mean_ranks(values[m]) for m in members]) / n
    result[RANK_AVERAGE] = Combination(ranks.mean(axis=0), members)
    if n >= FEWEST_TO_FIT:
        fitted, weights = _fitted(ranks, accuracy)
        result[FITTED] = Combination(fitted, members, dict(zip(members, weights.tolist(), strict=True)))
    return result


def majority(scores: Sequence[Floats]) -> Floats:
    """How many others an architecture beats by majority of the scores, less how many it loses to, `(n,)`.

    A score that is equal for two architectures does not vote between them. Among more than `MANY` architectures each is
    compared with a fixed sample of as many.
    """
    n = len(scores[0])
    opponents = _sample(n)
    places = [np.unique(s, return_inverse=True)[1].reshape(-1).astype(np.int32) for s in scores]
    result = np.empty(n)
    depth = max(1, _BLOCK // len(opponents))
    for first in range(0, n, depth):
        block = slice(first, min(first + depth, n))
        votes = np.zeros((block.stop - first, len(opponents)), dtype=np.int16)
        for place in places:
            own, other = place[block, None], place[opponents]
            votes += own > other
            votes -= own < other
        result[block] = (votes > 0).sum(axis=1) - (votes < 0).sum(axis=1)
    return result


def _fitted(ranks: Floats, accuracy: Floats) -> tuple[Floats, Floats]:
    """Ranks weighted by least squares with weights of at least 0, each fold by the fit to the others; mean weights.

    Args:
        ranks: of the scores, as fractions, `(k, n)`.
        accuracy: `(n,)`.
    """
    from scipy.optimize import nnls

    n = len(accuracy)
    fold = _generator().permutation(np.arange(n) % FOLDS)
    result, weights = np.empty(n), np.zeros(len(ranks))
    for held_out in range(FOLDS):
        train = fold != held_out
        target = metrics.mean_ranks(accuracy[train]) / train.sum()
        means = ranks[:, train].mean(axis=1)
        fit, _ = nnls((ranks[:, train] - means[:, None]).T, target - target.mean())
        # With the intercept of its fold, so that predictions of different folds can be ordered together.
        result[~train] = (ranks[:, ~train] - means[:, None]).T @ fit + target.mean()
        weights += fit / FOLDS
    return result, weights


Comparison = Literal["ahead", "level", "behind"]


def compared(difference: Estimate) -> Comparison | None:
    """What the interval of a difference of taus says; None without an interval."""
    if not difference.has_interval:
        return None
    return "ahead" if difference.low > 0 else "behind" if difference.high < 0 else "level"


def _verdicts(summary: ScoreSummary) -> list[str]:
    rows, digits = summary.proxies, summary.digits
    judged = [row for row in rows if not math.isnan(row.tau.value)]
    sentences = []
    if not rows:
        return ["There is no proxy in this study."]
    if not judged:
        reason = (
            "all of the architectures have the same accuracy"
            if summary.constant
            else "it takes two architectures at least"
            if summary.n < 2
            else "every proxy gives all architectures one score"
        )
        sentences.append(f"No rank correlation is defined: {reason}.")
    else:
        sentences += _best(summary, judged)
        sentences += _against_params(summary)
        for row in judged:
            if base_name(row.proxy) == CHANCE and row.tau.has_interval:
                inside = row.tau.low <= 0 <= row.tau.high
                sentences.append(
                    f"{row.proxy}, which knows nothing, has tau {row.tau.text(digits)}: the interval"
                    + (
                        " contains 0, as it should."
                        if inside
                        else " does not contain 0, which one such interval in twenty does by chance."
                    )
                )
        negative = [row.proxy for row in judged if row.tau.has_interval and row.tau.high < 0]
        if negative and len(judged) > 1:
            sentences.append(f"Ordered the wrong way round: the interval of tau lies below 0 for {_listed(negative)}.")
        sentences += _combined(summary)
    for row in rows:
        if math.isnan(row.tau.value) and judged:
            what = "scored none of the architectures" if row.unscorable == summary.n else "gives all one score"
            sentences.append(f"{row.proxy} {what}, so it has no rank correlation.")
    unscorable = [
        f"{row.unscorable:,} not by {row.proxy}" for row in rows if row.unscorable and row.unscorable < summary.n
    ]
    if unscorable:
        sentences.append(
            f"Not every one of the {summary.n:,} architectures could be scored: {_listed(unscorable)}. These count as the lowest."
        )
    elif not any(row.unscorable for row in rows):
        sentences.append(
            f"Every architecture was scored{' by every proxy' if len(rows) > 1 else f' by {rows[0].proxy}'}."
        )
    if summary.unknown:
        sentences.append(f"{summary.unknown:,} architectures are left out because their accuracy is not known.")
    return sentences


def _best(summary: ScoreSummary, judged: Sequence[ScoreRow]) -> list[str]:
    best, others, digits = judged[0], judged[1:], summary.digits
    if not best.tau.has_interval:
        reason = (
            f"an interval needs at least {FEW_ARCHITECTURES} architectures, and there are {summary.n}"
            if summary.n < FEW_ARCHITECTURES
            else "too few of the resamples have one"
        )
        lead = "Its tau is" if not others else "The highest tau is that of"
        subject = (
            f"{_fixed(best.tau.value, digits)}" if not others else f"{best.proxy}, {_fixed(best.tau.value, digits)}"
        )
        return [f"{lead} {subject}. Nothing more can be said: {reason}."]
    if not others:
        return [
            f"{best.proxy} orders the architectures with tau {best.tau.text(digits)}"
            + (
                "."
                if best.tau.low > 0
                else ", the wrong way round."
                if best.tau.high < 0
                else ", which is not told apart from chance."
            )
        ]
    level = [row.proxy for row in others if row.from_best is not None and compared(row.from_best) != "behind"]
    return [
        f"{best.proxy} has the highest tau: {best.tau.text(digits)}.",
        f"Not told apart from {best.proxy}: {_listed(level)}."
        if level
        else f"Every other proxy is behind {best.proxy}.",
    ]


def _against_params(summary: ScoreSummary) -> list[str]:
    params = next((row for row in summary.proxies if base_name(row.proxy) == PARAMS), None)
    if params is None or not params.tau.has_interval:
        return []
    others = [
        (row.proxy, compared(row.from_params))
        for row in summary.proxies
        if row.from_params is not None and base_name(row.proxy) != CHANCE and not math.isnan(row.from_params.value)
    ]
    if not others:
        return []
    level, behind = ([label for label, place in others if place == wanted] for wanted in ("level", "behind"))
    text = f"The number of parameters alone has tau {params.tau.text(summary.digits)}. "
    if not level and not behind:
        return [text + "Every proxy is ahead of it."]
    parts = [f"not told apart from it are {_listed(level)}"] if level else []
    parts += [f"behind it {'are' if len(behind) > 1 else 'is'} {_listed(behind)}"] if behind else []
    if len(level) == 1:
        parts[0] = f"not told apart from it is {level[0]}"
    return [text + f"Of the other proxies these do not beat it: {'; '.join(parts)}."]


def _combined(summary: ScoreSummary) -> list[str]:
    rows = [row for row in summary.rows if row.combined and row.from_best is not None]
    if not rows:
        return []
    best = summary.proxies[0].proxy
    words = {"ahead": f"ahead of {best}", "level": f"not told apart from {best}", "behind": f"behind {best}"}
    parts = []
    for row in rows:
        assert row.from_best is not None
        place = compared(row.from_best)
        if place is not None:
            parts.append(f"{row.proxy} {_fixed(row.tau.value, summary.digits)}, {words[place]}")
    return [f"Combined: {'; '.join(parts)}."] if parts else []


def _listed(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
