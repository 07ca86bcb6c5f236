"""The numbers of a study of learning-curve predictors and stopping rules: what ending trainings early saves, and what it costs.

All rules met the same orderings, so differences are taken ordering by ordering and every bootstrap sees the same resamples. Its
seed is fixed: the same study gives the same report, and a row does not depend on which other rules stand beside it, but for
the Pareto front. Intervals of searches are over orderings; orderings of a fold share their architectures and what a predictor
learned, so they say nothing about another draw of the training curves. Of rankings there is one number per fold. With as few as
five a percentile bootstrap is much too narrow (see `metrics.bootstrap_interval`); their intervals are Student's.

GPU time is that of the curves, never this machine's. Share and speed-up are ratios of sums over orderings.

Wistuba and Pedapati, "Learning to Rank Learning Curves", ICML 2020, https://arxiv.org/abs/2006.03361 (regret and GPU time of
early-stopped searches); Egele, Mohr, Viering and Balaprakash, "The unreasonable effectiveness of early discarding after one epoch
in neural network hyperparameter optimization", Neurocomputing 597, 2024, https://arxiv.org/abs/2404.04111 (the front of i-Epoch
as the yardstick).

Where this file differs from them:
    * The hypervolume has the reference point (GPU time of no early termination, regret of 100 points), which is the same for
      every study, and not one that depends on the rules that are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from .. import metrics
from .scores import _listed, _or_zero, base_name
from .summary import BOOTSTRAP_SEED, FEW_RUNS, Estimate, Floats, _fixed, _seconds, estimated

if TYPE_CHECKING:
    from ..stopping import DecisionRow, RankingRow, Reliability, SearchRow, StoppingStudy

NONE, LAST_VALUE, I_EPOCH = "none", "last_value", "i_epoch"
RESAMPLES = 1000
"""Of the hypervolume; of means and ratios it is 2,000."""
FEW_IN_BIN = 50
"""Probabilities below which a bin of a reliability diagram is not judged."""

_UNKNOWN = Estimate(math.nan, math.nan, math.nan)
_DASH = "\N{EN DASH}"
_LITTLE = 0.0001  # of hypervolume: what a rule adds is never negative, so that its interval hardly ever contains 0
_HOURS = 36_000.0  # from a search of ten hours on, hours are written

Comparison: TypeAlias = Literal["better", "level", "worse"]
Key: TypeAlias = tuple[int, int]
"""Ordering and fold of a search."""
Record: TypeAlias = dict[str, str | int | float | bool | None]


@dataclass(frozen=True)
class RuleRow:
    """One rule at its own setting; means are over searches, intervals are 95 % bootstrap intervals over them.

    Attributes:
        rule: label.
        searches: their number.
        regret: points of accuracy below the best of the ordering, mean.
        regret_median, regret_95, regret_max: median, 95 % quantile and largest.
        gpu_seconds: of the epochs trained, mean.
        share: of the GPU time of no early termination, as a fraction.
        speed_up: the inverse.
        restart_share: the share where a training that is taken up again starts anew.
        cpu_seconds: measured: of the predictor or the rule, mean.
        training_seconds: GPU seconds of the curves that were learned from, paid once for all searches; mean.
        speed_up_paid: speed-up of a single search that pays for them.
        completed: share of the architectures that were trained in full.
        best_lost: share of the orderings of which the best architecture was not trained in full.
        false_stop: share of the trainings better than the incumbent that were stopped; NaN of a rule without incumbents.
        from_none: regret less that of no early termination, paired; None for that itself.
        from_last: regret less that of last_value, paired; None for last_value, for no early termination, and without last_value.
        share_from_last: GPU time as a share of no early termination less that of last_value, likewise.
        on_front: no other rule has less regret without more GPU time, or less GPU time without more regret.
        on_front_paid: the same where the training curves are part of the GPU time.
        settings: how many settings the hypervolume is of: the rule's own and those of the sweep.
        hypervolume: 1 - regret / 100 of the best setting within a limit on GPU time, averaged over all limits from 0 to that of
            no early termination; None for no early termination.
        from_i_epoch: the hypervolume less that of i_epoch; None for i_epoch and without it.
        added: hypervolume of the settings of i_epoch and this rule together less that of i_epoch alone, never negative; None
            likewise.
    """

    rule: str
    searches: int
    regret: Estimate
    regret_median: float
    regret_95: float
    regret_max: float
    gpu_seconds: float
    share: Estimate
    speed_up: Estimate
    restart_share: float
    cpu_seconds: float
    training_seconds: float
    speed_up_paid: float
    completed: float
    best_lost: float
    false_stop: float
    from_none: Estimate | None
    from_last: Estimate | None
    share_from_last: Estimate | None
    on_front: bool
    on_front_paid: bool
    settings: int
    hypervolume: Estimate | None
    from_i_epoch: Estimate | None
    added: Estimate | None


@dataclass(frozen=True)
class RankingCell:
    """One predictor after some epochs; means over folds, 95 % Student intervals.

    Attributes:
        epochs: observed.
        fraction: of the full training.
        folds: in which Spearman's rho is defined.
        spearman: with the final accuracy.
        r2: coefficient of determination; NaN of a predictor that only ranks.
        from_last: Spearman's rho less that of last_value on the same folds; None for last_value and without it.
    """

    epochs: int
    fraction: float
    folds: int
    spearman: Estimate
    r2: float
    from_last: Estimate | None


@dataclass(frozen=True)
class RankingSummary:
    """One predictor. Means are over the folds, and over the observed fractions that every predictor of the study has.

    Attributes:
        rule: label.
        n_train: complete curves of the task that it learned from, or was calibrated on.
        cells: by observed epochs.
        spearman, tau, pairwise, recall_top, spearman_top, r2: see `harness.stopping.RankingRow`.
        from_last: Spearman's rho less that of last_value, the mean over all fractions that both have in each fold, 95 % Student
            interval over folds; None for last_value and without it.
    """

    rule: str
    n_train: int
    cells: Mapping[int, RankingCell]
    spearman: float
    tau: float
    pairwise: float
    recall_top: float
    spearman_top: float
    r2: float
    from_last: Estimate | None


@dataclass(frozen=True)
class CalibrationRow:
    """How right the probabilities of one predictor are, over all check points.

    Attributes:
        rule: label.
        n: probabilities.
        brier, log_loss: mean over them.
        skill: share of the Brier score of always saying `share_better` that it does without; below 0 it is worse than that.
        p_mean: mean probability.
        share_better: share of the trainings that did end above the incumbent.
        ece: mean distance of the bins of the reliability diagram from the diagonal, weighted with their counts.
        worst: largest deviation of a bin with at least `FEW_IN_BIN` probabilities, frequency less mean probability; NaN without
            such a bin.
        worst_p: mean probability in that bin.
    """

    rule: str
    n: int
    brier: float
    log_loss: float
    skill: float
    p_mean: float
    share_better: float
    ece: float
    worst: float
    worst_p: float


@dataclass(frozen=True)
class SweepPoint:
    """One rule at one setting: the parameter (`delta`, or `i` of i_epoch), mean regret, and GPU time as a share."""

    value: float
    regret: float
    share: float


@dataclass(frozen=True)
class RuleColumn:
    """A column of the displayed table: heading, what it means, the cell of a row.

    `text` columns are set flush left; those that are not `brief` are left out where there is little room.
    """

    heading: str
    meaning: str
    cell: Callable[[RuleRow], str]
    text: bool = False
    brief: bool = True


@dataclass(frozen=True)
class StoppingSummary:
    """The tables of a study.

    Attributes:
        name: of the benchmark or file.
        curves_words: the curves in words.
        max_epochs: length of the full training.
        orderings: searches per rule.
        rows: no early termination, then by descending GPU time.
        ranking: predictors in the order of the study.
        epochs: observed epochs of the ranking study, ascending.
        common: those of them at which every predictor was asked.
        calibration: predictors in the order of the study.
        sweeps: label -> settings by ascending value.
        errors: label -> what went wrong.
    """

    name: str
    curves_words: str
    max_epochs: int
    orderings: int
    rows: tuple[RuleRow, ...]
    ranking: tuple[RankingSummary, ...]
    epochs: tuple[int, ...]
    common: tuple[int, ...]
    calibration: tuple[CalibrationRow, ...]
    sweeps: Mapping[str, tuple[SweepPoint, ...]]
    errors: Mapping[str, str]

    @property
    def hours(self) -> bool:
        """Whether GPU time is written in hours."""
        return max((_or_zero(row.gpu_seconds) for row in self.rows), default=0.0) >= _HOURS

    @property
    def columns(self) -> tuple[RuleColumn, ...]:
        return columns(self)

    def rows_for_display(self, *, brief: bool = False) -> tuple[list[str], list[list[str]]]:
        """Headings and the cells of each row as plain text, for a terminal (`brief`), a page or a LaTeX table."""
        shown = [c for c in self.columns if c.brief or not brief]
        return [c.heading for c in shown], [[c.cell(row) for c in shown] for row in self.rows]

    def records(self) -> list[Record]:
        """One flat record per rule in full precision, for a CSV file or JSON; an estimate is three fields.

        What a rule does not have, such as the rank correlation of a rule that is no predictor, is None.
        """
        ranking = {r.rule: r for r in self.ranking}
        calibration = {c.rule: c for c in self.calibration}
        records = []
        for row in self.rows:
            record: Record = {}
            for field in fields(RuleRow):
                value = getattr(row, field.name)
                if isinstance(value, Estimate) or value is None:
                    record |= _three(field.name, value)
                else:
                    record[field.name] = value
            ranks, right = ranking.get(row.rule), calibration.get(row.rule)
            record["spearman"] = ranks.spearman if ranks else None
            record |= _three("spearman_from_last", ranks.from_last if ranks else None)
            for name in ("brier", "log_loss", "worst"):
                record["worst_deviation" if name == "worst" else name] = getattr(right, name) if right else None
            records.append(record)
        return records

    def verdicts(self) -> list[str]:
        """What the numbers allow to say, a sentence or a few each."""
        return _verdicts(self)


def _three(name: str, value: Estimate | None) -> Record:
    numbers = (None, None, None) if value is None else (value.value, value.low, value.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))


def percent(share: Estimate, digits: int = 1) -> str:
    """A fraction with its interval, in percent and without the sign."""
    return Estimate(100 * share.value, 100 * share.low, 100 * share.high).text(digits)


def _percent(share: float) -> str:
    return _DASH if math.isnan(share) else f"{100 * share:.1f}"


def _time(seconds: float, hours: bool) -> str:
    return _seconds(seconds / 3600 if hours else seconds)


def columns(summary: StoppingSummary) -> tuple[RuleColumn, ...]:
    """The columns of the table. What is the same for all is left out: a bill for restarts where nothing is taken up again."""
    hours = summary.hours
    unit = "GPU hours" if hours else "GPU seconds"
    restarts = any(abs(row.restart_share - row.share.value) > 1e-12 for row in summary.rows)
    return (
        RuleColumn("method", "The rule, with its hyper-parameters where they were given.", lambda r: r.rule, text=True),
        RuleColumn(
            "regret",
            "Points of accuracy between the best architecture of the search and the one that was selected, the best of those"
            " trained in full: mean over searches. 0 without early termination.",
            lambda r: r.regret.text(2),
        ),
        RuleColumn(
            "regret, 95 %",
            "The regret that one search in twenty exceeds: means hide a rare but large loss.",
            lambda r: _fixed(r.regret_95, 2),
            brief=False,
        ),
        RuleColumn(
            unit,
            "GPU time of the epochs that a search trained, as the curves have it: mean over searches.",
            lambda r: _time(r.gpu_seconds, hours),
        ),
        RuleColumn("% of full", "The same as a share of training everything in full.", lambda r: percent(r.share)),
        *(
            [
                RuleColumn(
                    "% of full, restarting",
                    "The same where a training that is taken up again has to start anew.",
                    lambda r: _percent(r.restart_share),
                    brief=False,
                )
            ]
            if restarts
            else []
        ),
        RuleColumn(
            "speed-up",
            "GPU time of training everything in full over that of the rule.",
            lambda r: r.speed_up.text(1),
        ),
        RuleColumn(
            "CPU s",
            "Seconds on the machine of this study for fitting and asking the predictor, or for the rule's decisions, in one"
            " search. They are in no other column.",
            lambda r: _seconds(r.cpu_seconds),
            brief=False,
        ),
        RuleColumn(
            f"curves, {unit}",
            "GPU time of the complete curves of the same task that the predictor learned from or was calibrated on. It is paid"
            " once for all searches on the task and is not in the GPU time.",
            lambda r: _DASH if r.training_seconds == 0 else _time(r.training_seconds, hours),
            brief=False,
        ),
        RuleColumn(
            "speed-up, curves paid",
            "The speed-up of a single search that has to train these curves first.",
            lambda r: _fixed(r.speed_up_paid, 1),
        ),
        RuleColumn(
            "completed %", "Architectures that were trained in full.", lambda r: _percent(r.completed), brief=False
        ),
        RuleColumn(
            "best lost %",
            "Searches in which the best architecture was not trained in full.",
            lambda r: _percent(r.best_lost),
        ),
        RuleColumn(
            "false stops %",
            "Trainings that would have become the incumbent and were stopped. Not defined for schedules, which compare trainings"
            " with each other and not with an incumbent.",
            lambda r: _percent(r.false_stop),
            brief=False,
        ),
    )


# ------------------------------------------------------------------------------------------------------------ searches


@dataclass(frozen=True, eq=False)
class _Setting:
    """The searches of one rule at one setting, in the order of the study's keys; NaN where it has none, `(n,)` each."""

    regret: Floats
    seconds: Floats
    restart_seconds: Floats
    full_seconds: Floats
    cpu_seconds: Floats
    training_seconds: Floats
    trained_in_full: Floats


_FIELDS = tuple(f.name for f in fields(_Setting))


def _setting(rows: Sequence[SearchRow], place: Mapping[Key, int]) -> _Setting:
    arrays = {name: np.full(len(place), np.nan) for name in _FIELDS}
    for row in rows:
        for name in _FIELDS:
            arrays[name][place[row.ordering, row.fold]] = getattr(row, name)
    return _Setting(**arrays)


def summarise(study: StoppingStudy) -> StoppingSummary:
    """The tables of a study, whatever there is of it."""
    keys = sorted({(row.ordering, row.fold) for row in (*study.searches, *study.sweeps)})
    place = {key: i for i, key in enumerate(keys)}
    by_rule: dict[str, list[SearchRow]] = {label: [] for label in study.rules}
    for row in study.searches:
        by_rule.setdefault(row.rule, []).append(row)
    swept: dict[str, dict[float, list[SearchRow]]] = {}
    for row in study.sweeps:
        swept.setdefault(row.rule, {}).setdefault(row.delta, []).append(row)
    own = {label: _setting(rows, place) for label, rows in by_rule.items()}
    settings = {
        label: {value: _setting(rows, place) for value, rows in sorted(found.items())} for label, found in swept.items()
    }
    rows = _rule_rows(study, own, settings)
    ranking, epochs, common = _rankings(study)
    return StoppingSummary(
        name=study.name,
        curves_words=study.curves_words,
        max_epochs=study.max_epochs,
        orderings=len(keys),
        rows=tuple(rows),
        ranking=ranking,
        epochs=epochs,
        common=common,
        calibration=_calibrations(study),
        sweeps={
            label: tuple(SweepPoint(value, _mean(s.regret), _ratio(s.seconds, s)) for value, s in found.items())
            for label, found in settings.items()
        },
        errors=dict(study.errors),
    )


def reference(labels: Sequence[str], name: str) -> str | None:
    """The label of a registered rule: as it is, else the first of its variants; None without."""
    return name if name in labels else next((label for label in labels if base_name(label) == name), None)


def _rule_rows(
    study: StoppingStudy, own: Mapping[str, _Setting], settings: Mapping[str, Mapping[float, _Setting]]
) -> list[RuleRow]:
    labels = list(own)
    none = own.get(NONE)
    last = reference(labels, LAST_VALUE)
    fronts = _on_front(own, paid=False), _on_front(own, paid=True)
    volumes = _Volumes(own, settings, reference(labels, I_EPOCH))
    rows = []
    for label, s in own.items():
        known = s.regret[~np.isnan(s.regret)]
        completed = s.trained_in_full / (
            none.trained_in_full if none is not None else float(study.specification.get("n", math.nan))
        )
        false_stop, lost = study.killed.get(label, (math.nan, math.nan))
        other = None if last is None or label in (last, NONE) else own[last]
        rows.append(
            RuleRow(
                rule=label,
                searches=int((~np.isnan(s.seconds)).sum()),
                regret=estimated(s.regret, np.mean),
                regret_median=float(np.median(known)) if len(known) else math.nan,
                regret_95=float(np.quantile(known, 0.95)) if len(known) else math.nan,
                regret_max=float(known.max()) if len(known) else math.nan,
                gpu_seconds=_mean(s.seconds),
                share=_ratio_estimate((s.seconds, s.full_seconds)),
                speed_up=_ratio_estimate((s.full_seconds, s.seconds)),
                restart_share=_ratio(s.restart_seconds, s),
                cpu_seconds=_mean(s.cpu_seconds),
                training_seconds=_mean(s.training_seconds),
                speed_up_paid=_inverse(_ratio(s.seconds + s.training_seconds, s)),
                completed=_mean(completed),
                best_lost=lost,
                false_stop=false_stop,
                from_none=None if label == NONE or none is None else estimated(s.regret - none.regret, np.mean),
                from_last=None if other is None else estimated(s.regret - other.regret, np.mean),
                share_from_last=None
                if other is None
                else _ratio_estimate((s.seconds, s.full_seconds), (other.seconds, other.full_seconds)),
                on_front=label in fronts[0],
                on_front_paid=label in fronts[1],
                settings=len(settings.get(label, {})) + 1,
                hypervolume=None if label == NONE else volumes.of(label),
                from_i_epoch=None if label == NONE else volumes.difference(label),
                added=None if label == NONE else volumes.added(label),
            )
        )
    return sorted(
        rows, key=lambda r: (r.rule != NONE, math.isnan(r.gpu_seconds), -_or_zero(r.gpu_seconds))
    )  # stable: of equal ones in the order of the study


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _ratio(seconds: Floats, setting: _Setting) -> float:
    """GPU seconds as a share of those of training everything, over the searches that there are."""
    known = ~np.isnan(seconds) & ~np.isnan(setting.full_seconds)
    full = float(setting.full_seconds[known].sum())
    return float(seconds[known].sum()) / full if full > 0 else math.nan


def _inverse(value: float) -> float:
    return 1 / value if value > 0 else math.nan  # NaN is not above 0


def _ratio_estimate(pair: tuple[Floats, Floats], less: tuple[Floats, Floats] | None = None) -> Estimate:
    """The sum of one over the sum of the other, less another such ratio, with its interval over orderings."""
    arrays = [*pair, *(less or ())]
    known = ~np.isnan(arrays).any(axis=0)
    matrix = np.stack(arrays)[:, known]
    if matrix.shape[1] == 0 or (matrix.sum(axis=1)[1::2] <= 0).any():
        return _UNKNOWN

    def ratios(index: Floats, axis: int) -> Floats:
        sums = matrix[:, index.astype(np.int64)].sum(axis=axis)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = sums[0] / sums[1] - (sums[2] / sums[3] if less else 0.0)
        return found

    return estimated(np.arange(matrix.shape[1], dtype=np.float64), ratios)


def _on_front(own: Mapping[str, _Setting], *, paid: bool) -> set[str]:
    """Labels that no other dominates in mean regret and GPU time; equal ones are there together."""
    labels = list(own)
    cost = [_ratio(s.seconds + (s.training_seconds if paid else 0.0), s) for s in own.values()]
    gain = [-_mean(s.regret) for s in own.values()]
    front = {(cost[i], gain[i]) for i in metrics.pareto_front(cost, gain)}
    return {label for label, c, g in zip(labels, cost, gain, strict=True) if (c, g) in front}


class _Volumes:
    """Hypervolumes of the settings of each rule, all from the same resamples of the orderings."""

    def __init__(
        self,
        own: Mapping[str, _Setting],
        settings: Mapping[str, Mapping[float, _Setting]],
        yardstick: str | None,
    ) -> None:
        n = max((len(s.regret) for s in own.values()), default=0)
        rng = np.random.default_rng(BOOTSTRAP_SEED)
        weights = np.full((1, n), 1 / max(n, 1))  # the orderings themselves come first
        if n > 1:
            draws = rng.integers(n, size=(RESAMPLES, n))
            weights = np.concatenate((weights, [np.bincount(draw, minlength=n) / n for draw in draws]))
        self._points = {
            label: _means([s, *settings.get(label, {}).values()], weights) for label, s in own.items() if label != NONE
        }
        self._volumes = {label: hypervolumes(*points) for label, points in self._points.items()}
        self._yardstick = yardstick

    def of(self, label: str) -> Estimate:
        return self._estimate(self._volumes[label]) if self._points[label][0].size else _UNKNOWN

    def difference(self, label: str) -> Estimate | None:
        return None if self._skips(label) else self._estimate(self._volumes[label] - self._base)

    def added(self, label: str) -> Estimate | None:
        if self._skips(label):
            return None
        mine, theirs = self._points[label], self._points[self._yardstick or ""]
        joined = hypervolumes(*(np.concatenate((a, b)) for a, b in zip(mine, theirs, strict=True)))
        return self._estimate(joined - self._base)

    @property
    def _base(self) -> Floats:
        return self._volumes[self._yardstick or ""]

    def _skips(self, label: str) -> bool:
        yardstick = self._yardstick
        if yardstick is None or label == yardstick:
            return True
        return not (self._points[label][0].size and self._points[yardstick][0].size)

    @staticmethod
    def _estimate(values: Floats) -> Estimate:
        low, high = metrics.percentile_interval(values[1:]) if len(values) > 1 else (math.nan, math.nan)
        return Estimate(float(values[0]), low, high)


def _means(settings: Sequence[_Setting], weights: Floats) -> tuple[Floats, Floats]:
    """GPU time as a share, and 1 - regret as a fraction, of each setting in each resample, `(settings, resamples)`.

    A setting without a number for every ordering is left out.
    """
    whole = [s for s in settings if not np.isnan([s.regret, s.seconds, s.full_seconds]).any() and s.full_seconds.all()]
    if not whole or not len(whole[0].regret):
        return np.empty((0, len(weights))), np.empty((0, len(weights)))
    regret, seconds, full = (
        np.stack([getattr(s, name) for s in whole]) for name in ("regret", "seconds", "full_seconds")
    )
    return seconds @ weights.T / (full @ weights.T), 1 - regret @ weights.T / 100


def hypervolumes(cost: Floats, accuracy: Floats) -> Floats:
    """`metrics.hypervolume` with a largest cost of 1 of many sets of points at once: `(points, sets)` -> `(sets,)`."""
    if cost.shape[0] == 0:
        return np.zeros(cost.shape[1])
    order = np.argsort(cost, axis=0, kind="stable")
    starts = np.clip(np.take_along_axis(cost, order, axis=0), 0, 1)
    heights = np.maximum.accumulate(np.clip(np.take_along_axis(accuracy, order, axis=0), 0, 1), axis=0)
    widths = np.diff(np.concatenate((starts, np.ones((1, cost.shape[1])))), axis=0)
    volumes: Floats = (widths * heights).sum(axis=0)
    return volumes


# ------------------------------------------------------------------------------------------------------------- ranking


def student(values: npt.ArrayLike) -> Estimate:
    """Mean of a few numbers and the 95 % Student interval; those that are NaN are left out."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    n = len(known)
    if n == 0:
        return _UNKNOWN
    mean = float(known.mean())
    if n == 1:
        return Estimate(mean, math.nan, math.nan)
    reach = float(stdtrit(n - 1, 0.975) * known.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - reach, mean + reach)


def _rankings(study: StoppingStudy) -> tuple[tuple[RankingSummary, ...], tuple[int, ...], tuple[int, ...]]:
    """Summaries, all observed epochs, and those that every predictor has."""
    # rule -> observed epochs -> fold -> row
    found: dict[str, dict[int, dict[int, RankingRow]]] = {}
    for row in study.ranking:
        found.setdefault(row.rule, {}).setdefault(row.epochs, {})[row.fold] = row

    def values(label: str, epochs: int, name: str) -> dict[int, float]:
        return {fold: float(getattr(row, name)) for fold, row in found[label].get(epochs, {}).items()}

    every = tuple(sorted({epochs for by_epochs in found.values() for epochs in by_epochs}))
    common = tuple(m for m in every if all(m in by_epochs for by_epochs in found.values()))
    last = reference(list(found), LAST_VALUE)
    summaries = []
    for label, by_epochs in found.items():
        cells: dict[int, RankingCell] = {}
        differences: dict[int, list[float]] = {}  # fold -> over the observed epochs
        for m in sorted(by_epochs):
            rho = values(label, m, "spearman")
            difference = None
            if last is not None and label != last:
                theirs = values(last, m, "spearman")
                paired = {fold: value - theirs[fold] for fold, value in rho.items() if fold in theirs}
                difference = student(list(paired.values()))
                for fold, value in paired.items():
                    if not math.isnan(value):
                        differences.setdefault(fold, []).append(value)
            cells[m] = RankingCell(
                epochs=m,
                fraction=m / study.max_epochs,
                folds=sum(not math.isnan(value) for value in rho.values()),
                spearman=student(list(rho.values())),
                r2=_mean(np.array(list(values(label, m, "r2").values()))),
                from_last=difference,
            )
        means = {
            name: _mean(np.array([v for m in common for v in values(label, m, name).values()]))
            for name in ("spearman", "tau", "pairwise", "recall_top", "spearman_top", "r2")
        }
        overall = None if last is None or label == last else student([float(np.mean(v)) for v in differences.values()])
        n_train = next(row.n_train for row in study.ranking if row.rule == label)
        summaries.append(RankingSummary(rule=label, n_train=n_train, cells=cells, from_last=overall, **means))
    return tuple(summaries), every, common


# ----------------------------------------------------------------------------------------------------------- decisions


def _calibrations(study: StoppingStudy) -> tuple[CalibrationRow, ...]:
    result = []
    for label in dict.fromkeys([*(row.rule for row in study.decisions), *study.reliability]):
        rows = [row for row in study.decisions if row.rule == label and row.n > 0]
        brier, log_loss, p_mean, share = (
            _weighted(rows, name) for name in ("brier", "log_loss", "p_mean", "share_better")
        )
        chance = share * (1 - share)
        ece, worst, worst_p = deviations(study.reliability.get(label))
        result.append(
            CalibrationRow(
                rule=label,
                n=sum(row.n for row in rows),
                brier=brier,
                log_loss=log_loss,
                skill=1 - brier / chance if chance > 0 else math.nan,
                p_mean=p_mean,
                share_better=share,
                ece=ece,
                worst=worst,
                worst_p=worst_p,
            )
        )
    return tuple(result)


def _weighted(rows: Sequence[DecisionRow], name: str) -> float:
    """Mean over all probabilities of check points."""
    total = sum(row.n for row in rows)
    return sum(row.n * float(getattr(row, name)) for row in rows) / total if total else math.nan


def deviations(diagram: Reliability | None) -> tuple[float, float, float]:
    """Expected calibration error; of the worst bin with enough in it, frequency less mean probability, and that probability."""
    if diagram is None:
        return math.nan, math.nan, math.nan
    filled = (diagram.count > 0) & ~np.isnan(diagram.p_mean) & ~np.isnan(diagram.frequency)
    off = np.where(filled, diagram.frequency - diagram.p_mean, 0.0)
    total = diagram.count[filled].sum()
    ece = float((diagram.count[filled] * np.abs(off[filled])).sum() / total) if total else math.nan
    judged = np.flatnonzero(filled & (diagram.count >= FEW_IN_BIN))
    if not len(judged):
        return ece, math.nan, math.nan
    bin_ = judged[np.argmax(np.abs(off[judged]))]
    return ece, float(off[bin_]), float(diagram.p_mean[bin_])


# ------------------------------------------------------------------------------------------------------------ sentences


def compared(difference: Estimate, *, higher: bool = False) -> Comparison | None:
    """What the interval of a difference says, of something lower or `higher` of which is better; None without an interval."""
    if not difference.has_interval:
        return None
    if difference.low > 0:
        return "better" if higher else "worse"
    if difference.high < 0:
        return "worse" if higher else "better"
    return "level"


def _verdicts(summary: StoppingSummary) -> list[str]:
    judged = [row for row in summary.rows if row.rule != NONE]
    sentences = []
    if not judged:
        sentences.append("There is no rule in this study beside no early termination.")
    if 0 < summary.orderings < FEW_RUNS and judged:
        sentences.append(
            "There is one search per rule, so there are no intervals and nothing can be compared."
            if summary.orderings == 1
            else f"With only {summary.orderings} searches per rule the intervals are too narrow."
        )
    sentences += _fronts(summary)
    sentences += [_of_rule(row, summary) for row in judged]
    sentences += _lost(judged)
    sentences += _ranked(summary)
    sentences += _calibrated(summary)
    sentences += _yardstick(summary)
    sentences += [f"{label} failed and is left out: {message}" for label, message in summary.errors.items()]
    return sentences


def _point(row: RuleRow, *, paid: bool = False) -> str:
    share = _inverse(row.speed_up_paid) if paid else row.share.value
    return f"{row.rule} ({_fixed(row.regret.value, 2)} points at {_fixed(100 * share, 1)} %)"


def _fronts(summary: StoppingSummary) -> list[str]:
    judged = [row for row in summary.rows if row.rule != NONE and not math.isnan(row.regret.value)]
    if len(judged) < 2:
        return []
    free = [row for row in judged if row.on_front]
    paid = [row for row in judged if row.on_front_paid]
    text = (
        "On the Pareto front of mean regret against GPU time, each rule at its own setting:"
        f" {_listed([_point(row) for row in free])}."
        if free
        else "No rule is better than no early termination."
    )
    if free and any(row.rule == NONE and not row.on_front for row in summary.rows):
        text += " No early termination is not on it: as little regret was had for less."
    sentences = [text]
    if {row.rule for row in free} != {row.rule for row in paid}:
        front = _listed([_point(row, paid=True) for row in paid]) if paid else "no early termination alone"
        sentences.append(f"Where a single search has to pay for the training curves, too, on the front: {front}.")
    return sentences


def _of_rule(row: RuleRow, summary: StoppingSummary) -> str:
    if math.isnan(row.regret.value):
        return f"{row.rule} has no search with a known regret."
    text = (
        f"{row.rule}: regret {row.regret.text(2)} points at {_fixed(100 * row.share.value, 1)} % of the GPU time, speed-up"
        f" {row.speed_up.text(1)}"
    )
    if row.training_seconds > 0:
        text += f", {_fixed(row.speed_up_paid, 1)} for a single search that pays for the training curves"
    text += "."
    if row.from_none is not None:
        place = compared(row.from_none)
        if row.regret_max == 0:
            text += " It lost nothing in any search."
        elif place == "worse":
            text += " It loses accuracy against no early termination."
        elif place == "level":
            text += " Its loss against no early termination is not told apart from 0."
    last = reference([r.rule for r in summary.rows], LAST_VALUE)
    if row.from_last is not None and row.share_from_last is not None:
        regret, cost = compared(row.from_last), compared(row.share_from_last)
        if regret is not None and cost is not None:
            difference = Estimate(*(abs(x) for x in _outward(row.from_last)))
            points = f"{difference.text(2)} points"
            words = {
                "better": f"its regret is lower by {points}",
                "worse": f"its regret is higher by {points}",
                "level": "its regret is not told apart",
            }
            shares = Estimate(*(100 * abs(x) for x in _outward(row.share_from_last)))
            costs = {
                "better": f"it takes {shares.text(1)} percentage points less of the GPU time",
                "worse": f"it takes {shares.text(1)} percentage points more of the GPU time",
                "level": "its GPU time is not told apart",
            }
            text += f" Against {last} {words[regret]}, and {costs[cost]}."
    return text


def _outward(difference: Estimate) -> tuple[float, float, float]:
    """Value and ends, turned over where it is negative, so that the absolute values are in order."""
    d = difference
    return (d.value, d.low, d.high) if d.value >= 0 else (d.value, d.high, d.low)


def _lost(rows: Sequence[RuleRow]) -> list[str]:
    known = [row for row in rows if not math.isnan(row.best_lost)]
    if not known:
        return []
    never = [row.rule for row in known if row.best_lost == 0]
    lost = sorted((row for row in known if row.best_lost > 0), key=lambda row: row.best_lost)
    sentences = []
    if lost:
        shares = _listed([f"{_share(row.best_lost)} by {row.rule}" for row in lost])
        sentences.append(f"Searches in which the best architecture was not trained in full: {shares}.")
    if never:
        sentences.append(f"The best architecture of every search was trained in full by {_listed(never)}.")
    return sentences


def _share(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "below 1 %"


def _ranked(summary: StoppingSummary) -> list[str]:
    if not summary.ranking:
        return []
    last = reference([r.rule for r in summary.ranking], LAST_VALUE)
    others = [r for r in summary.ranking if r.rule != last]
    undefined = [r.rule for r in summary.ranking if all(math.isnan(c.spearman.value) for c in r.cells.values())]
    sentences = []
    if last is not None and others:
        places = {r.rule: compared(r.from_last, higher=True) for r in others if r.from_last is not None}
        ahead, level, behind = (
            [rule for rule, place in places.items() if place == kind] for kind in ("better", "level", "worse")
        )
        if not any(places.values()):
            sentences.append(f"Whether a predictor ranks better than {last} cannot be said: it takes two folds.")
        elif ahead:
            sentences.append(
                f"Ranking, by Spearman's rho over all observed fractions: ahead of {last} {_are(ahead)} {_listed(ahead)}."
            )
        if level or behind:
            parts = [f"not told apart from it {_are(level)} {_listed(level)}"] if level else []
            parts += [f"behind it {_are(behind)} {_listed(behind)}"] if behind else []
            sentences.append(f"These do not beat {last} in ranking: {'; '.join(parts)}.")
    if undefined:
        sentences.append(f"No rank correlation is defined for {_listed(undefined)}.")
    return sentences


def _are(labels: Sequence[str]) -> str:
    return "are" if len(labels) > 1 else "is"


def _calibrated(summary: StoppingSummary) -> list[str]:
    known = sorted((c for c in summary.calibration if not math.isnan(c.worst)), key=lambda c: abs(c.worst))
    sentences = []
    if known:
        parts = [f"{c.rule} {abs(c.worst):.2f} (says {c.worst_p:.2f}, was {c.worst_p + c.worst:.2f})" for c in known]
        sentences.append(
            f"Worst deviation of the reliability diagram, of bins with {FEW_IN_BIN} probabilities or more: {_listed(parts)}."
        )
    worse = [c.rule for c in summary.calibration if c.skill < 0]
    if worse:
        sentences.append(
            f"By the Brier score worse than always saying how often trainings end above the incumbent: {_listed(worse)}."
        )
    return sentences


def _yardstick(summary: StoppingSummary) -> list[str]:
    base = reference([row.rule for row in summary.rows], I_EPOCH)
    found = [row for row in summary.rows if row.added is not None and row.added.has_interval]
    if base is None or not found:
        return []
    text = f"Over all settings, to the hypervolume of {base} "
    adding = sorted(
        (row for row in found if row.added is not None and row.added.low >= _LITTLE),
        key=lambda row: -(row.added.value if row.added else 0.0),
    )
    if not adding:
        return [text + f"no other rule surely adds {_LITTLE}."]
    parts = [f"{row.rule} {row.added.text(4)}" for row in adding if row.added is not None]
    rest = "" if len(adding) == len(found) else f"; of no other rule it is sure that it adds {_LITTLE}"
    return [f"{text}{'these add' if len(adding) > 1 else 'one adds'}: {_listed(parts)}{rest}."]
