"""The table of a study of supernets, and what its numbers allow to say.

Two things move a rank correlation here: which architectures are evaluated, and the chance of the training. The displayed interval
resamples both, architectures and seeds; that of a single run resamples architectures alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import metrics
from .summary import BOOTSTRAP_SEED, UNDEFINED, Estimate, Floats, Split, _fixed, _seconds

if TYPE_CHECKING:
    from ..supernets import Mode, SupernetRun, SupernetStudy

RESAMPLES = 1000
FEW_ARCHITECTURES = 10
"""With fewer there is no interval of a rank correlation."""
SHARP = 0.1
"""Accuracy that is lost at the discretisation from which on the verdicts mention it."""

_NONE = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class SupernetRow:
    """One method at the end of its training; means over its seeds.

    Attributes:
        method: label.
        seeds: number of runs.
        epochs: of the training, the mean.
        tau_batch, tau_recalibrated: Kendall's tau-b of the inherited with the table's accuracy, mean over the seeds; batch
            normalisation by the batch, or by statistics that were estimated for the architecture. Interval over architectures
            and seeds.
        connected_batch, connected_recalibrated: the same without the architectures that have a disconnected cell.
        validation_batch, validation_recalibrated: with the table's validation accuracy.
        regret: of the proposal, percentage points; interval over seeds.
        better_than_random: probability that the proposal is better than a uniformly random architecture; interval over seeds.
        skip_share: share of skip connections among the proposal's edges.
        alpha_entropy: nats, mean over edges; NaN for a method without architecture parameters.
        drop: held-out accuracy of the mixture less that of the proposal, percentage points, inherited weights; NaN likewise.
        eigenvalue: the dominant one of the Hessian by the architecture parameters; NaN likewise.
        saved_mib: kept for the backward pass of a training step.
        peak_mib: most memory in use.
        seconds_per_step, seconds: of the search.
    """

    method: str
    seeds: int
    epochs: float
    tau_batch: Estimate
    tau_recalibrated: Estimate
    connected_batch: Estimate
    connected_recalibrated: Estimate
    validation_batch: Estimate
    validation_recalibrated: Estimate
    regret: Estimate
    better_than_random: Estimate
    skip_share: float
    alpha_entropy: float
    drop: float
    eigenvalue: float
    saved_mib: float
    peak_mib: float
    seconds_per_step: float
    seconds: float


@dataclass(frozen=True)
class SupernetColumn:
    """A column of the displayed table: heading, what it means, the cell of a row; not `brief`: left out on a terminal."""

    heading: str
    meaning: str
    cell: Callable[[SupernetRow], str]
    text: bool = False
    brief: bool = True


@dataclass(frozen=True)
class SupernetSummary:
    """The table of a study.

    Attributes:
        benchmark: id.
        population, reference: see `SupernetStudy`.
        split: of the accuracies.
        n, n_disconnected: evaluated architectures, and those of them that have a disconnected cell.
        rows: one per method, in the order in which they were given.
    """

    benchmark: str
    population: str
    reference: str
    split: Split
    n: int
    n_disconnected: int
    rows: tuple[SupernetRow, ...]

    @property
    def columns(self) -> tuple[SupernetColumn, ...]:
        return _columns(self)

    def rows_for_display(self, *, brief: bool = False) -> tuple[list[str], list[list[str]]]:
        """Headings and the cells of each row as plain text, for a terminal (`brief`), a page or a LaTeX table."""
        shown = [c for c in self.columns if c.brief or not brief]
        return [c.heading for c in shown], [[c.cell(row) for c in shown] for row in self.rows]

    def records(self) -> list[dict[str, Any]]:
        """One flat record per row in full precision; an estimate is three fields."""
        return [_flat(row) for row in self.rows]

    def verdicts(self) -> list[str]:
        """What the numbers allow to say, a sentence each."""
        return [sentence for row in self.rows for sentence in _verdicts(row, self)]


def summarise(study: SupernetStudy) -> SupernetSummary:
    """The table of a study."""
    rows = tuple(_row(study, method) for method in study.methods)
    return SupernetSummary(
        study.benchmark.id,
        study.population,
        study.reference,
        study.split,
        len(study.archs),
        int(study.disconnected.sum()),
        rows,
    )


def pooled_tau(inherited: Floats, accuracy: Floats) -> Estimate:
    """Mean over runs of Kendall's tau-b, with an interval.

    Both architectures and runs are resampled: a replicate is the mean, over as many runs drawn with replacement, of their taus
    on one resample of the architectures that all of them share. With one run it is the interval over architectures.

    Args:
        inherited: `(runs, n)`.
        accuracy: `(n,)`.
    """
    known = ~(np.isnan(inherited).any(axis=0) | np.isnan(accuracy))
    scores, target = inherited[:, known], accuracy[known]
    taus = [metrics.kendall_tau(row, target) for row in scores]
    value = float(np.mean(taus)) if taus else math.nan
    if math.isnan(value) or len(target) < FEW_ARCHITECTURES:
        return Estimate(value, math.nan, math.nan)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    replicates, _ = metrics.resampled_correlations(scores, target, rng=rng, n_resamples=RESAMPLES)
    drawn = rng.integers(len(scores), size=replicates.T.shape)
    means = np.take_along_axis(replicates.T, drawn, axis=1).mean(axis=1)
    return Estimate(value, *metrics.percentile_interval(means))


def tau(study: SupernetStudy, run: SupernetRun, point: int, mode: Mode) -> Estimate:
    """Kendall's tau-b of one run at one of its points of evaluation, interval over architectures."""
    return pooled_tau(run.inherited[mode][point][None], study.accuracy)


def _over_seeds(values: Sequence[float]) -> Estimate:
    array = np.array(values, dtype=np.float64)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    return Estimate(float(array.mean()), *metrics.bootstrap_interval(array, np.mean, rng=rng))


def _row(study: SupernetStudy, method: str) -> SupernetRow:
    runs = study.runs_of(method)
    connected = ~study.disconnected

    def pooled(mode: Mode, accuracy: Floats, among: Any = slice(None)) -> Estimate:
        if not all(len(run.points) for run in runs):
            return _NONE
        return pooled_tau(np.stack([run.inherited[mode][-1][among] for run in runs]), accuracy[among])

    def last(name: str) -> float:
        return float(np.mean([run.series[name][-1] for run in runs]))

    return SupernetRow(
        method=method,
        seeds=len(runs),
        epochs=float(np.mean([len(run.proposals) for run in runs])),
        tau_batch=pooled("batch", study.accuracy),
        tau_recalibrated=pooled("recalibrated", study.accuracy),
        connected_batch=pooled("batch", study.accuracy, connected),
        connected_recalibrated=pooled("recalibrated", study.accuracy, connected),
        validation_batch=pooled("batch", study.validation_accuracy),
        validation_recalibrated=pooled("recalibrated", study.validation_accuracy),
        regret=_over_seeds([100 * study.regret(run)[-1] for run in runs]),
        better_than_random=_over_seeds([run.series["better_than_random"][-1] for run in runs]),
        skip_share=last("skip_share"),
        alpha_entropy=last("alpha_entropy"),
        drop=100 * (last("mixture_accuracy") - last("network_accuracy")),
        eigenvalue=float(np.mean([run.eigenvalues[-1] if len(run.points) else math.nan for run in runs])),
        saved_mib=float(np.mean([run.saved_bytes for run in runs])) / 2**20,
        peak_mib=max(run.peak_bytes for run in runs) / 2**20,
        seconds_per_step=float(np.mean([run.seconds_per_step for run in runs])),
        seconds=last("seconds"),
    )


def _columns(summary: SupernetSummary) -> tuple[SupernetColumn, ...]:
    split = summary.split
    return (
        SupernetColumn(
            "method", "The method, with its hyper-parameters where they were given.", lambda r: r.method, True
        ),
        SupernetColumn("seeds", "Runs with chance of their own.", lambda r: f"{r.seeds}", brief=False),
        SupernetColumn("epochs", "Of the supernet.", lambda r: _fixed(r.epochs, 0), brief=False),
        SupernetColumn(
            "tau, batch",
            f"Kendall's tau-b of the inherited accuracy on the held-out images with the table's {split} accuracy, after the last"
            " epoch, mean over the seeds. Batch normalisation by the statistics of the batch that is evaluated.",
            lambda r: r.tau_batch.text(),
        ),
        SupernetColumn(
            "tau, recalibrated",
            "The same with statistics that were estimated for each architecture from training images first (Guo et al., 2020).",
            lambda r: r.tau_recalibrated.text(),
        ),
        SupernetColumn(
            "tau, batch, connected",
            f"Without the {summary.n_disconnected:,} architectures that have a cell in which nothing leads from the input to the"
            " output: these are easily told from the others and raise every correlation.",
            lambda r: r.connected_batch.text(),
            brief=False,
        ),
        SupernetColumn(
            "tau, recalibrated, connected",
            "The same with recalibrated statistics.",
            lambda r: r.connected_recalibrated.text(),
            brief=False,
        ),
        SupernetColumn(
            f"{split} regret",
            f"Percentage points of {split} accuracy between the best architecture of the table and the one that the search"
            " returns.",
            lambda r: r.regret.text(),
        ),
        SupernetColumn(
            "P(better than random)",
            f"Probability that the {split} accuracy of what the search returns is above that of an architecture drawn uniformly"
            f" from {summary.reference}, ties counted half.",
            lambda r: r.better_than_random.text(),
        ),
        SupernetColumn(
            "skip share",
            "Share of skip connections among the edges of what the search returns.",
            lambda r: _fixed(r.skip_share, 2),
        ),
        SupernetColumn(
            "entropy",
            "Of the weights of an edge's operations, in nats, mean over edges: 0 is a decision.",
            lambda r: _fixed(r.alpha_entropy, 2),
            brief=False,
        ),
        SupernetColumn(
            "drop",
            "Percentage points of held-out accuracy that are lost where the mixture of operations becomes one architecture,"
            " both with the supernet's weights and batch statistics. Of a mixture that is drawn it is the mean of a few draws.",
            lambda r: _fixed(r.drop, 1),
        ),
        SupernetColumn(
            "eigenvalue",
            "The dominant eigenvalue of the Hessian of the held-out loss by the architecture parameters, on one batch; a steep"
            " rise went with failures in Zela et al., 2020.",
            lambda r: _number(r.eigenvalue),
        ),
        SupernetColumn(
            "saved MiB",
            "Kept for the backward pass in one training step, measured once on a search that was thrown away.",
            lambda r: _number(r.saved_mib),
        ),
        SupernetColumn(
            "peak MiB",
            "Most memory: allocated on the GPU or, on a CPU, resident in the whole process with its libraries and images, also"
            " while architectures were evaluated.",
            lambda r: _fixed(r.peak_mib, 0),
            brief=False,
        ),
        SupernetColumn("s/step", "Mean measured seconds of a training step.", lambda r: _seconds(r.seconds_per_step)),
        SupernetColumn(
            "search s",
            "Measured seconds of the search, without what was measured on the way.",
            lambda r: _seconds(r.seconds),
        ),
    )


def _number(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _flat(row: SupernetRow) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for field in fields(row):
        value = getattr(row, field.name)
        if isinstance(value, Estimate):
            record |= {field.name: value.value, f"{field.name}_low": value.low, f"{field.name}_high": value.high}
        else:
            record[field.name] = value
    return record


def _verdicts(row: SupernetRow, summary: SupernetSummary) -> list[str]:
    best = max((row.tau_batch, row.tau_recalibrated), key=lambda e: -math.inf if math.isnan(e.value) else e.value)
    said = []
    if math.isnan(best.value):
        said.append(
            f"{row.method}: the rank correlation is not defined: in some run all inherited accuracies are equal."
        )
    elif not best.has_interval:
        said.append(f"{row.method}: tau is {best.value:.2f}, from too few architectures for an interval.")
    elif best.low > 0:
        said.append(
            f"{row.method}: inherited accuracies rank better than chance, tau {best.text()} over {summary.n:,} architectures."
        )
    else:
        said.append(
            f"{row.method}: it is not shown that inherited accuracies rank better than chance, tau {best.text()} over"
            f" {summary.n:,} architectures."
        )
    value = row.better_than_random
    if not math.isnan(value.value):
        seeds = "1 seed" if row.seeds == 1 else f"{row.seeds} seeds"
        said.append(
            f"{row.method}: what the search returns is better than {value.value:.0%} of random architectures (mean over {seeds})."
        )
    if row.skip_share >= 0.5:
        said.append(f"{row.method}: {row.skip_share:.0%} of the edges that it returns are skip connections.")
    if row.drop >= 100 * SHARP:
        said.append(
            f"{row.method}: {row.drop:.0f} points of accuracy are lost where the mixture becomes one architecture."
        )
    return said


def epoch_records(study: SupernetStudy) -> list[dict[str, Any]]:
    """One record per method, seed and epoch; where architectures were evaluated, with their taus and intervals."""
    records = []
    for run in study.runs:
        regret = study.regret(run)
        for epoch in range(len(run.proposals)):
            record: dict[str, Any] = {"method": run.method, "seed": run.seed}
            record |= {name: float(values[epoch]) for name, values in run.series.items()}
            record["epoch"] = epoch + 1
            record["regret"] = float(regret[epoch])
            record["proposal"] = study.benchmark.space.to_string(tuple(run.proposals[epoch].tolist()))
            at = np.flatnonzero(run.points == epoch + 1)
            for mode in ("batch", "recalibrated"):
                found = tau(study, run, int(at[0]), mode) if len(at) else _NONE
                record |= {f"tau_{mode}": found.value, f"tau_{mode}_low": found.low, f"tau_{mode}_high": found.high}
            record["eigenvalue"] = float(run.eigenvalues[at[0]]) if len(at) else math.nan
            records.append(record)
    return records
