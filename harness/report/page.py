"""The report of a study in a folder: one page that needs nothing else, and its numbers, figures and table as files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import Budget
from .curves import AnytimeCurve, anytime_curves
from .early import EarlyRow
from .figures import Drawing, draw_all, draw_fronts
from .latex import latex_table
from .pareto import SAMPLED, Fronts, find_fronts
from .summary import UNDEFINED, Estimate, Measured, Summary, by_optimizer, measure, summarise_measured
from .writing import csv_bytes, inline_svg, plain, size_in_words, split_interval, template, this_process, write

if TYPE_CHECKING:
    from ...benchmarks.base import Benchmark
    from ..run import Run

CURVE_FIELDS = ("optimizer", "split", "gpu_seconds", "regret_mean", "low", "high")
RUN_FIELDS = (
    "optimizer",
    "seed",
    "repetition",
    "final_test_regret",
    "final_validation_regret",
    "tau",
    "simulated_seconds",
    "optimizer_seconds",
    "evaluations",
    "failed",
    "incumbent",
)
FRONT_FIELDS = (
    "objective",
    "optimizer",
    "seed",
    "repetition",
    "trial",
    "cost",
    "seen_validation_accuracy",
    "final_validation_accuracy",
    "final_test_accuracy",
    "architecture",
)
HYPERVOLUME_FIELDS = ("objective", "optimizer", "seed", "repetition", "hypervolume", "architectures")


def write_report(
    runs: Sequence[Run],
    benchmark: Benchmark,
    folder: Path | str,
    *,
    specification: Mapping[str, Any],
    environment: Mapping[str, Any] | None = None,
    objectives: Sequence[str] = (),
) -> Path:
    """Write `index.html`, `summary.csv`, `curves.csv`, `runs.csv`, `table.tex` and `figures/*.png|svg`.

    With strategies that ran with and without a stopping rule also `early_stopping.csv`, one row per pair, shares as fractions.
    With objectives also `fronts.csv`, the architectures that each run would return, with accuracies as fractions and costs in
    the benchmark's unit, and `hypervolumes.csv`, one row per run.

    Regrets in every file are percentage points, times are seconds; an empty cell is an undefined number. The same runs,
    specification and environment give the same bytes (with the same version of matplotlib). Each file is written under
    a temporary name and then moved, so a reader never sees half of one; other files in the folder stay.

    Args:
        runs: of any number of strategies on this benchmark.
        benchmark: opened; asked for final accuracies only.
        folder: made if it is missing.
        specification: what the study was asked to do, shown as JSON; `budget` in it heads the page as well.
        environment: versions, hosts and whatever else belongs to "where"; None describes this process.
        objectives: metrics of the benchmark; the page gets a section on the trade-off of accuracy with each of them.

    Returns:
        The path of `index.html`.

    Raises:
        ValueError: no runs, runs of another benchmark, one run given twice, or a metric that the benchmark does not have.
    """
    measured = measure(runs, benchmark)
    summary = summarise_measured(measured)
    curves = anytime_curves(measured)
    drawings = draw_all(measured, curves, summary)
    fronts = [find_fronts(measured, benchmark, objective) for objective in dict.fromkeys(objectives)]
    front_drawings = [draw_fronts(f) for f in fronts]
    page = _page(
        measured,
        summary,
        drawings,
        list(zip(fronts, front_drawings, strict=True)),
        benchmark,
        specification,
        this_process() if environment is None else environment,
    )
    folder = Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    records = summary.records()
    write(folder / "summary.csv", csv_bytes(list(records[0]), (record.values() for record in records)))
    write(folder / "curves.csv", csv_bytes(CURVE_FIELDS, _curve_rows(curves)))
    write(folder / "runs.csv", csv_bytes(RUN_FIELDS, _run_rows(measured, benchmark)))
    write(folder / "table.tex", latex_table(summary).encode())
    if summary.early:
        fields = [field.name for field in dataclasses.fields(EarlyRow)]
        kept = [dataclasses.asdict(row) for row in summary.early]
        header = [n for f in fields for n in ([f, f"{f}_low", f"{f}_high"] if isinstance(kept[0][f], dict) else [f])]
        rows = [
            [x for f in fields for x in (row[f].values() if isinstance(row[f], dict) else [row[f]])] for row in kept
        ]
        write(folder / "early_stopping.csv", csv_bytes(header, rows))
    if fronts:
        write(folder / "fronts.csv", csv_bytes(FRONT_FIELDS, _front_rows(fronts, benchmark)))
        write(folder / "hypervolumes.csv", csv_bytes(HYPERVOLUME_FIELDS, _hypervolume_rows(fronts)))
    for drawing in (*drawings, *front_drawings):
        write(folder / "figures" / f"{drawing.name}.png", drawing.png)
        write(folder / "figures" / f"{drawing.name}.svg", drawing.svg)
    write(folder / "index.html", page.encode())
    return folder / "index.html"


def _curve_rows(curves: Sequence[AnytimeCurve]) -> Iterable[Iterable[object]]:
    for c in curves:
        for point in zip(c.gpu_seconds.tolist(), c.mean.tolist(), c.low.tolist(), c.high.tolist(), strict=True):
            yield (c.optimizer, c.split, *point)


def _run_rows(measured: Sequence[Measured], benchmark: Benchmark) -> Iterable[Iterable[object]]:
    for group in by_optimizer(measured).values():
        for m in group:
            incumbent = m.run.incumbent
            yield (
                m.run.optimizer,
                m.run.seed,
                m.run.repetition,
                float(m.test_regret[-1]),
                float(m.validation_regret[-1]),
                m.tau,
                m.run.simulated_seconds,
                m.run.optimizer_seconds,
                len(m.run.trials),
                m.failed,
                None if incumbent is None else benchmark.space.to_string(incumbent),
            )


def _front_rows(fronts: Sequence[Fronts], benchmark: Benchmark) -> Iterable[Iterable[object]]:
    for found in fronts:
        for front in (front for group in found.fronts.values() for front in group):
            t = front.run.trials
            for i, cost, validation, test in zip(
                front.trials.tolist(),
                front.cost.tolist(),
                front.validation_accuracy.tolist(),
                front.test_accuracy.tolist(),
                strict=True,
            ):
                arch = benchmark.space.to_string(tuple(t.arch[i].tolist()))
                yield (*_whose(found, front.run), i, cost, float(t.value[i]), validation, test, arch)


def _hypervolume_rows(fronts: Sequence[Fronts]) -> Iterable[Iterable[object]]:
    for found in fronts:
        for label, group in found.fronts.items():
            for front, volume in zip(group, found.hypervolumes[label].tolist(), strict=True):
                yield (*_whose(found, front.run), volume, len(front.trials))


def _whose(found: Fronts, run: Run) -> tuple[str, str, int, int]:
    return found.objective, run.optimizer, run.seed, run.repetition


def _page(
    measured: Sequence[Measured],
    summary: Summary,
    drawings: Sequence[Drawing],
    fronts: Sequence[tuple[Fronts, Drawing]],
    benchmark: Benchmark,
    specification: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> str:
    import markupsafe

    info = benchmark.info
    labels = [row.optimizer for row in summary.rows]
    return template("report.html.j2").render(
        title=f"{labels[0] if len(labels) == 1 else f'{len(labels)} search strategies'} on {summary.benchmark}",
        lead=_lead(measured, summary, benchmark, specification),
        verdicts=summary.verdicts(),
        notes=_notes(summary),
        caution=info.caution,
        columns=summary.columns,
        rows=[[split_interval(cell) for cell in row] for row in summary.rows_for_display()[1]],
        figures=[
            {
                "svg": markupsafe.Markup(inline_svg(drawing, number)),  # noqa: S704  (text in it is drawn as paths)
                "caption": drawing.caption,
            }
            for number, drawing in enumerate(drawings)
        ],
        fronts=[
            {
                "objective": found.objective,
                "meaning": _hypervolume_in_words(found, benchmark),
                "rows": _hypervolume_table(found),
                "svg": markupsafe.Markup(inline_svg(drawing, number)),  # noqa: S704  (ditto)
                "caption": drawing.caption,
                "number": number + 1,
            }
            for number, (found, drawing) in enumerate(fronts, start=len(drawings))
        ],
        early=[
            [
                (row.optimizer, ""),
                (f"{row.repetitions}", ""),
                split_interval(_shares(row.stopped)),
                split_interval(_shares(row.saved)),
                split_interval(row.regret.text()),
                (f"{row.rule_seconds:.3g}", ""),
            ]
            for row in summary.early
        ],
        specification=json.dumps(specification, indent=2, default=str, ensure_ascii=False),
        environment=[(str(name), plain(value)) for name, value in environment.items()],
        benchmark=[
            ("id", info.id),
            ("architectures", f"{size_in_words(benchmark)} ({benchmark.space.name})"),
            ("full schedule", f"{benchmark.max_epochs} epochs"),
            ("best test accuracy", _percent(benchmark.optimum.test_accuracy, summary)),
            ("best validation accuracy", _percent(benchmark.optimum.val_accuracy, summary)),
            ("source", info.source),
            ("licence", info.licence),
            ("sha256", info.sha256),
            ("version history", info.version_history),
            *((str(name), plain(value)) for name, value in info.details.items() if name != "path"),
        ],
    )


def _shares(share: Estimate) -> str:
    """A share as a percentage with its interval."""
    return Estimate(100 * share.value, 100 * share.low, 100 * share.high).text(0)


def _hypervolume_in_words(found: Fronts, benchmark: Benchmark) -> str:
    if math.isnan(found.max_cost):
        return f"{benchmark.id} knows no positive {found.objective}, so there is no hypervolume."
    where = f"of a fixed sample of {SAMPLED:,} architectures" if found.sampled else "in the benchmark"
    return (
        "A run would return the architectures that no other of its trials dominates in what the search saw: validation"
        f" accuracy and {found.objective}. Their hypervolume, in [0, 1], is the final {found.split} accuracy (a fraction) of"
        f" the best of them within a limit on {found.objective}, averaged over all limits from 0 to {found.max_cost:,.10g},"
        f" the largest {found.objective} {where}; higher is better. The reference point is thus that cost and accuracy 0."
    )


def _hypervolume_table(found: Fronts) -> list[list[tuple[str, str]]]:
    """Strategy, runs, hypervolume, difference to random search, architectures; each cell with its interval."""
    none = "\N{EN DASH}"
    rows = [
        [
            row.optimizer,
            str(row.runs),
            row.hypervolume.text(4),
            none if row.difference is None else row.difference.text(4),
            f"{row.architectures:.1f}",
        ]
        for row in found.rows
    ]
    if len(found.best_cost):
        whole = f"{found.best_hypervolume:.4f}" if found.best_hypervolume == found.best_hypervolume else UNDEFINED
        rows.append(["all architectures", none, whole, none, str(len(found.best_cost))])
    return [[split_interval(cell) for cell in row] for row in rows]


def _percent(best: float, summary: Summary) -> str:
    if math.isnan(best):
        return "not known" if summary.best_found else "it has none"
    return f"{100 * best:.2f} %"


def _lead(
    measured: Sequence[Measured], summary: Summary, benchmark: Benchmark, specification: Mapping[str, Any]
) -> str:
    labels = [row.optimizer for row in summary.rows]
    names = labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
    repetitions = sorted({row.repetitions for row in summary.rows})
    counts = f"{repetitions[0]}" if len(repetitions) == 1 else f"{repetitions[0]} to {repetitions[-1]}"
    seeds = sorted({m.run.seed for m in measured})
    budget = budget_in_words(specification.get("budget"))
    verb = "was run" if len(labels) == 1 else "were each run"
    return (
        f"{names} {verb} {counts} {'time' if counts == '1' else 'times'} on {summary.benchmark}"
        f" ({size_in_words(benchmark)} architectures), {f'each run with a budget of {budget}, ' if budget else ''}"
        f"study {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}. "
        "A search sees only validation accuracy. Regret is how far the architecture that it would return lies below"
        f" {'the best that any of these runs ended with' if summary.best_found else 'the best of the benchmark'}, in"
        " percentage points; lower is better."
    )


def budget_in_words(value: object) -> str:
    """A budget in words: from a `Budget`, its text or its fields; empty where there is none to read."""
    try:
        if isinstance(value, Mapping):
            value = Budget(seconds=value.get("seconds"), evaluations=value.get("evaluations"))
        elif isinstance(value, str | int):
            value = Budget.parse(str(value))
    except (ValueError, TypeError):
        return str(value)
    if not isinstance(value, Budget):
        return "" if value is None else str(value)
    parts = [f"{value.seconds:,.10g} simulated GPU seconds"] if value.seconds is not None else []
    parts += [f"{value.evaluations:,} evaluations"] if value.evaluations is not None else []
    return " or ".join(parts) + (", whichever comes first" if len(parts) == 2 else "")


def _notes(summary: Summary) -> list[str]:
    return [
        f"{row.optimizer} had nothing left to propose before the budget ended in {row.finished_early} of"
        f" {row.repetitions} runs."
        for row in summary.rows
        if row.finished_early
    ]
