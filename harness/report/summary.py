"""The numbers of a report: one row per strategy, and what can honestly be said about them.

Regrets are in percentage points, times in seconds. The bootstrap's seed is fixed and every interval starts from it, so
the same runs give the same report, and a row does not depend on which other strategies stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from .. import metrics
from ..core import STATUSES
from .early import EarlyRow, early_rows

if TYPE_CHECKING:
    from ...benchmarks.base import Benchmark
    from ..run import Run

Floats: TypeAlias = npt.NDArray[np.float64]
Split: TypeAlias = Literal["test", "validation"]

BASELINE = "random_search"
"""Label of the strategy that the others are compared with."""

BOOTSTRAP_SEED = 20240229
FEW_RUNS = 10
"""Below this many runs a percentile bootstrap interval covers clearly less than it says; the verdicts then say so."""

UNDEFINED = "n/a"
_FAILED = STATUSES.index("failed")
_BATCH = 200_000  # trials per look-up: bounds memory, and is one look-up for an ordinary study


@dataclass(frozen=True)
class Measured:
    """A run with what only the benchmark knows.

    Attributes:
        run: the record.
        test_regret, validation_regret: percentage points of the incumbent after each trial, `(n,)`; NaN while there is
            none, and throughout where the benchmark lacks such accuracies.
        tau: Kendall tau between the value that the search saw and the final accuracy on `split` over the trials that did
            not fail and were trained as long as the longest; NaN where it is undefined (fewer than two such trials, or all
            equal).
        failed: number of failed trials.
        split: what strategies are compared by: validation only where the benchmark has no test accuracies, or not those of
            every incumbent of every run.
        best_found: the benchmark does not know its best architecture, so regret is relative to the best that any of the
            runs ended with.
        interpolation: see `Benchmark.interpolation`.
    """

    run: Run
    test_regret: Floats
    validation_regret: Floats
    tau: float
    failed: int
    split: Split = "test"
    best_found: bool = False
    interpolation: Literal["step", "linear"] = "step"

    @property
    def regret(self) -> Floats:
        """The regret on `split`."""
        return self.test_regret if self.split == "test" else self.validation_regret

    @property
    def found(self) -> bool:
        """Whether the run has an incumbent at its end: one trial at least did not fail."""
        return int(self.run.incumbents[-1]) >= 0


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % bootstrap interval over repetitions; NaN where it is undefined."""

    value: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        return not (math.isnan(self.low) or math.isnan(self.high))

    def text(self, digits: int = 2) -> str:
        """`1.23 [1.10, 1.37]`; without an interval `1.23 [n/a]`; undefined `n/a`."""
        if math.isnan(self.value):
            return UNDEFINED
        return f"{_fixed(self.value, digits)} {self.interval_text(digits)}"

    def interval_text(self, digits: int = 2) -> str:
        """`[1.10, 1.37]`, or `[n/a]`."""
        return f"[{_fixed(self.low, digits)}, {_fixed(self.high, digits)}]" if self.has_interval else f"[{UNDEFINED}]"


@dataclass(frozen=True)
class Row:
    """One strategy. Means and intervals are over its runs; regrets are those of the runs that found an incumbent.

    Attributes:
        optimizer: label.
        repetitions: number of runs.
        without_incumbent: how many of them never had a trial that did not fail, and so have no regret.
        test_mean, test_iqm: test regret at the end of a run, percentage points: mean and interquartile mean.
        validation_mean, validation_iqm: validation regret likewise.
        tau: mean Kendall tau, see `Measured.tau`.
        tau_runs: number of runs in which it is defined.
        simulated_seconds: mean simulated seconds of a run.
        optimizer_seconds: mean measured seconds of the optimizer itself in a run.
        evaluations: mean number of trials in a run.
        failed: failed trials of all runs together.
        finished_early: runs in which the optimizer had nothing left to propose before the budget ended.
        beats_baseline: probability that a run has a lower final regret on `split` than a run of random search, ties
            counted half, a run without an incumbent as the worst; None for random search itself and in a study without it.
        difference: mean final regret on `split` minus random search's, over the runs with an incumbent; None likewise.
        split: what strategies are compared by, see `Measured.split`.
    """

    optimizer: str
    repetitions: int
    without_incumbent: int
    test_mean: Estimate
    test_iqm: Estimate
    validation_mean: Estimate
    validation_iqm: Estimate
    tau: Estimate
    tau_runs: int
    simulated_seconds: float
    optimizer_seconds: float
    evaluations: float
    failed: int
    finished_early: int
    beats_baseline: Estimate | None
    difference: Estimate | None = None
    split: Split = "test"

    @property
    def mean(self) -> Estimate:
        """The mean regret on `split`."""
        return self.test_mean if self.split == "test" else self.validation_mean


@dataclass(frozen=True)
class Column:
    """A column of the displayed table: heading, what it means, the cell of a row.

    `text` columns are set flush left; those that are not `brief` are left out where there is little room.
    """

    heading: str
    meaning: str
    cell: Callable[[Row], str]
    text: bool = False
    brief: bool = True


def _fixed(value: float, digits: int) -> str:
    if math.isnan(value):
        return UNDEFINED
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text  # no "-0.00"


def _seconds(value: float) -> str:
    """Seconds with about three significant digits, from microseconds to years."""
    if math.isnan(value):
        return UNDEFINED
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _runs(row: Row) -> str:
    return f"{row.repetitions}" + (f" ({row.without_incumbent} without incumbent)" if row.without_incumbent else "")


def columns(split: Split = "test", *, best_found: bool = False) -> tuple[Column, ...]:
    """The columns of a table whose strategies are compared on `split`."""
    best = "the best that any run of this study ended with (the benchmark does not know its best)"
    test = (
        Column(
            "test regret, mean",
            f"Percentage points between {best if best_found else 'the best test accuracy in the whole benchmark'} and"
            " that of the run's incumbent at its end, both averaged over the benchmark's training runs. The incumbent is"
            " the trial with the best validation accuracy.",
            lambda r: r.test_mean.text(),
        ),
        Column(
            "test regret, IQM",
            "The same, as the interquartile mean: the mean of the runs that remain when the best quarter and the worst"
            " quarter are left out. A few unlucky runs hardly move it.",
            lambda r: r.test_iqm.text(),
        ),
    )
    return (
        Column(
            "strategy",
            "The optimizer, with its hyper-parameters where they were given.",
            lambda r: r.optimizer,
            text=True,
        ),
        Column(
            "runs",
            "Independent repetitions, each with its own random generator. A run in which every trial failed has no"
            " incumbent and no regret: it is counted here and left out of the regret means.",
            _runs,
        ),
        *(test if split == "test" else ()),
        Column(
            "P(better than random)",
            f"Probability that one run of the strategy ends with a lower {split} regret than one run of random_search; a"
            " tie counts half, a run without an incumbent as the worst. 0.5 is no better and no worse.",
            lambda r: "\N{EN DASH}" if r.beats_baseline is None else r.beats_baseline.text(),
        ),
        Column(
            "validation regret, mean",
            f"Percentage points between {best if best_found else 'the best final validation accuracy in the benchmark'}"
            " and that of the incumbent."
            + (
                " A search can do well here and badly on the test set; the first is what it was asked for."
                if split == "test"
                else " The benchmark has no test accuracies, or lacks those of some incumbents."
            ),
            lambda r: r.validation_mean.text(),
        ),
        Column(
            "validation regret, IQM",
            "Interquartile mean of the same validation regrets over runs"
            + ("." if split == "test" else ": of what remains without the best and the worst quarter."),
            lambda r: r.validation_iqm.text(),
            brief=False,
        ),
        Column(
            "Kendall tau",
            f"Rank correlation (tau-b), within a run, of the validation accuracies that the search saw with the final {split}"
            " accuracies, failed trials left out; mean over the runs in which it is defined. A supernet is not told such"
            " values: `nasharness supernet` measures how it ranks.",
            lambda r: (
                r.tau.text() + (f" ({r.tau_runs} of {r.repetitions} runs)" if 0 < r.tau_runs < r.repetitions else "")
            ),
        ),
        Column(
            "simulated s",
            "Mean simulated GPU seconds of a run: what training and validating its trials costs according to the"
            " benchmark.",
            lambda r: _seconds(r.simulated_seconds),
        ),
        Column(
            "optimizer s",
            "Mean measured seconds that the optimizer's own computations took in a run, such as the training of a supernet. GPU"
            " time is the two together; only this part depends on the machine.",
            lambda r: _seconds(r.optimizer_seconds),
        ),
        Column("evaluations", "Mean number of trials in a run.", lambda r: _fixed(r.evaluations, 1), brief=False),
        Column(
            "failed",
            "Failed trials in all runs together. A failed trial never wins.",
            lambda r: f"{r.failed:,}",
            brief=False,
        ),
    )


@dataclass(frozen=True)
class Summary:
    """The table of a report.

    Attributes:
        benchmark: id.
        rows: one per strategy, in the order in which the strategies first appear among the runs.
        best_found: see `Measured.best_found`.
        early: one per strategy that was run with and without a rule that ends trainings early.
    """

    benchmark: str
    rows: tuple[Row, ...]
    best_found: bool = False
    early: tuple[EarlyRow, ...] = ()

    @property
    def split(self) -> Split:
        """What the strategies are compared by."""
        return self.rows[0].split

    @property
    def columns(self) -> tuple[Column, ...]:
        return columns(self.split, best_found=self.best_found)

    def rows_for_display(self, *, brief: bool = False) -> tuple[list[str], list[list[str]]]:
        """Headings and the cells of each row as plain text, for a terminal (`brief`), a page or a LaTeX table."""
        shown = [c for c in self.columns if c.brief or not brief]
        return [c.heading for c in shown], [[c.cell(row) for c in shown] for row in self.rows]

    def records(self) -> list[dict[str, str | int | float | None]]:
        """One flat record per strategy in full precision, for a CSV file or a frame; an estimate is three fields."""
        return [_record(row) for row in self.rows]

    def verdicts(self) -> list[str]:
        """For each strategy one plain sentence on whether it can be told apart from random search, see `verdict`.

        Without random search in the study, a single sentence that says so. A strategy with a stopping rule is compared with
        the same strategy without, if that is there.
        """
        return [*self._against_baseline(), *(row.sentence() for row in self.early)]

    def _against_baseline(self) -> list[str]:
        baseline = next((row for row in self.rows if row.optimizer == BASELINE), None)
        paired = {row.optimizer for row in self.early}
        others = [row for row in self.rows if row is not baseline and row.optimizer not in paired]
        if baseline is None:
            return [f"There is no {BASELINE} in this study, so no strategy is compared with it."]
        if not others and self.early:
            return []
        if not others:
            return [f"There is only {BASELINE} in this study, so there is nothing to compare with it."]
        return [verdict(row, baseline) for row in others]


def verdict(row: Row, baseline: Row) -> str:
    """Say whether a strategy's mean regret differs from random search's: whether the interval of the difference excludes 0.

    Runs without an incumbent are left out of the means, so the sentence goes on to count them; so few runs that the
    intervals cannot be relied on are named too.
    """
    a, b, difference = row.mean, baseline.mean, row.difference
    pair = f"{row.optimizer} and {baseline.optimizer}"
    means = f"mean {row.split} regret {_fixed(a.value, 2)} vs {_fixed(b.value, 2)} points"
    none_found = [r.optimizer for r in (row, baseline) if r.without_incumbent == r.repetitions]
    if none_found:
        return f"{pair} cannot be compared: every trial of every run of {' and of '.join(none_found)} failed."
    if difference is None or not difference.has_interval:
        sentence = (
            f"{pair} cannot be compared: {means}, but an interval needs at least two runs of each with an incumbent."
        )
    else:
        apart = a.high < b.low or b.high < a.low
        place = "cannot be told apart from"
        if difference.high < 0:
            place = "is ahead of"
        elif difference.low > 0:
            place = "is behind"
        sentence = (
            f"{row.optimizer} {place} {baseline.optimizer}: {means}, difference {difference.text()};"
            f" the intervals {a.interval_text()} and {b.interval_text()} {'do not ' if apart else ''}overlap."
        )
    for r in (row, baseline):
        if r.without_incumbent:
            counted = f"{r.without_incumbent} of {r.repetitions} runs of {r.optimizer}"
            sentence += f" In {counted} every trial failed; its mean is over the others."
    fewest = min(r.repetitions - r.without_incumbent for r in (row, baseline))
    if difference is not None and difference.has_interval and fewest < FEW_RUNS:
        sentence += f" With only {fewest} runs the intervals are too narrow to rely on; use {FEW_RUNS} or more."
    return sentence


def _record(row: Row) -> dict[str, str | int | float | None]:
    record: dict[str, str | int | float | None] = {
        "optimizer": row.optimizer,
        "repetitions": row.repetitions,
        "without_incumbent": row.without_incumbent,
    }

    def add(name: str, estimate: Estimate | None) -> None:
        for suffix, field in (("", "value"), ("_low", "low"), ("_high", "high")):
            record[name + suffix] = None if estimate is None else float(getattr(estimate, field))

    add("test_regret_mean", row.test_mean)
    add("test_regret_iqm", row.test_iqm)
    add("validation_regret_mean", row.validation_mean)
    add("validation_regret_iqm", row.validation_iqm)
    add("kendall_tau", row.tau)
    record |= {
        "kendall_tau_runs": row.tau_runs,
        "simulated_seconds": row.simulated_seconds,
        "optimizer_seconds": row.optimizer_seconds,
        "evaluations": row.evaluations,
        "failed_trials": row.failed,
        "finished_early": row.finished_early,
    }
    add("probability_better_than_random", row.beats_baseline)
    add(f"{row.split}_regret_difference_to_random", row.difference)
    return record


def measure(runs: Sequence[Run], benchmark: Benchmark) -> list[Measured]:
    """Look up what the benchmark knows about every trial, a large batch of runs at a time.

    Raises:
        ValueError: no runs, runs of another benchmark, or one run given twice.
    """
    if not runs:
        raise ValueError("there are no runs to report: the list is empty")
    if foreign := {run.benchmark for run in runs} - {benchmark.id}:
        raise ValueError(
            f"runs on {', '.join(sorted(foreign))} cannot be reported against the benchmark {benchmark.id}"
        )
    seen: set[tuple[str, int, int]] = set()
    for run in runs:
        key = (run.optimizer, run.seed, run.repetition)
        if key in seen:
            raise ValueError(f"repetition {run.repetition} of {run.optimizer} with seed {run.seed} is given twice")
        seen.add(key)
    finals: list[tuple[Floats, Floats]] = []
    for batch in _batches(runs):
        found = benchmark.final_many(np.concatenate([run.trials.arch for run in batch]))
        cuts = np.cumsum([len(run.trials) for run in batch])[:-1]
        finals += zip(np.split(found.test_accuracy, cuts), np.split(found.val_accuracy, cuts), strict=True)
    best_test, best_validation = benchmark.optimum.test_accuracy, benchmark.optimum.val_accuracy
    best_found = math.isnan(best_validation)
    if best_found:
        ends = [
            (run.incumbents[-1], *final) for run, final in zip(runs, finals, strict=True) if run.incumbents[-1] >= 0
        ]
        best_test = _best([test[last] for last, test, _ in ends])
        best_validation = _best([validation[last] for last, _, validation in ends])
    if any(
        np.isnan(test[run.incumbents[run.incumbents >= 0]]).any() for run, (test, _) in zip(runs, finals, strict=True)
    ):
        best_test = math.nan  # a mean over the runs whose test accuracy happens to be known would be of a biased sample
    split: Split = "validation" if math.isnan(best_test) else "test"
    measured: list[Measured] = []
    for run, (test, validation) in zip(runs, finals, strict=True):
        failed = (run.trials.status == _FAILED) | np.isnan(run.trials.value)
        ranked = ~failed & (run.trials.epochs == run.trials.epochs.max())  # values of one schedule only
        none_yet = run.incumbents < 0
        measured.append(
            Measured(
                run=run,
                test_regret=np.where(none_yet, np.nan, 100 * (best_test - test[run.incumbents])),
                validation_regret=np.where(none_yet, np.nan, 100 * (best_validation - validation[run.incumbents])),
                # A search that trains by itself was not told these values.
                tau=metrics.kendall_tau(run.trials.value[ranked], (test if split == "test" else validation)[ranked])
                if run.charged
                else float("nan"),
                failed=int(failed.sum()),
                split=split,
                best_found=best_found,
                interpolation=benchmark.interpolation,
            )
        )
    return measured


def _best(accuracies: Sequence[float]) -> float:
    known = [accuracy for accuracy in accuracies if not math.isnan(accuracy)]
    return max(known, default=math.nan)


def _batches(runs: Sequence[Run]) -> Iterator[list[Run]]:
    batch: list[Run] = []
    size = 0
    for run in runs:
        if batch and size + len(run.trials) > _BATCH:
            yield batch
            batch, size = [], 0
        batch.append(run)
        size += len(run.trials)
    yield batch


def by_optimizer(measured: Sequence[Measured]) -> dict[str, list[Measured]]:
    """The runs of each strategy, in order of first appearance, and within one by seed and repetition."""
    groups: dict[str, list[Measured]] = {}
    for m in measured:
        groups.setdefault(m.run.optimizer, []).append(m)
    return {label: sorted(group, key=lambda m: (m.run.seed, m.run.repetition)) for label, group in groups.items()}


def summarise(runs: Sequence[Run], benchmark: Benchmark) -> Summary:
    """The summary of a study.

    Args:
        runs: of any number of strategies, all on this benchmark.
        benchmark: opened.

    Raises:
        ValueError: see `measure`.
    """
    return summarise_measured(measure(runs, benchmark))


def summarise_measured(measured: Sequence[Measured]) -> Summary:
    """`summarise` for runs that `measure` has already looked up."""
    groups = by_optimizer(measured)
    finals = {label: np.array([m.regret[-1] for m in group]) for label, group in groups.items()}
    rows = tuple(_row(label, group, finals[label], finals.get(BASELINE)) for label, group in groups.items())
    return Summary(measured[0].run.benchmark, rows, measured[0].best_found, early_rows(groups, estimated))


def _row(label: str, group: Sequence[Measured], regret: Floats, baseline: Floats | None) -> Row:
    test = np.array([m.test_regret[-1] for m in group])
    validation = np.array([m.validation_regret[-1] for m in group])
    taus = np.array([m.tau for m in group])
    beats: Estimate | None = None
    difference: Estimate | None = None
    if baseline is not None and label != BASELINE:
        low, high = metrics.probability_of_improvement_interval(-regret, -baseline, rng=_generator())
        beats = Estimate(metrics.probability_of_improvement(-regret, -baseline), low, high)
        x, y = regret[~np.isnan(regret)], baseline[~np.isnan(baseline)]
        if len(x) and len(y):
            low, high = metrics.difference_interval(x, y, rng=_generator())
            difference = Estimate(float(x.mean() - y.mean()), low, high)
    return Row(
        optimizer=label,
        repetitions=len(group),
        without_incumbent=sum(not m.found for m in group),
        test_mean=estimated(test, np.mean),
        test_iqm=estimated(test, metrics.iqm),
        validation_mean=estimated(validation, np.mean),
        validation_iqm=estimated(validation, metrics.iqm),
        tau=estimated(taus, np.mean),
        tau_runs=int((~np.isnan(taus)).sum()),
        simulated_seconds=float(np.mean([m.run.simulated_seconds for m in group])),
        optimizer_seconds=float(np.mean([m.run.optimizer_seconds for m in group])),
        evaluations=float(np.mean([len(m.run.trials) for m in group])),
        failed=sum(m.failed for m in group),
        finished_early=sum(m.run.finished_early for m in group),
        beats_baseline=beats,
        difference=difference,
        split=group[0].split,
    )


def estimated(values: Floats, statistic: metrics.Statistic) -> Estimate:
    """The statistic of the values that are not NaN, with its interval; all NaN where there are none."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return Estimate(math.nan, math.nan, math.nan)
    low, high = metrics.bootstrap_interval(known, statistic, rng=_generator())
    return Estimate(float(statistic(known, axis=-1)), low, high)


def _generator() -> np.random.Generator:
    return np.random.default_rng(BOOTSTRAP_SEED)
