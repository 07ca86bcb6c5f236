"""The report of a study in a folder: one page that needs nothing else, and its numbers, figures and table as files."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import Budget
from .curves import AnytimeCurve, anytime_curves
from .early import EarlyRow
from .figures import INK, LINES, PALETTE, PAPER, Drawing, draw_all, draw_fronts
from .latex import latex_table
from .pareto import SAMPLED, Fronts, find_fronts
from .summary import UNDEFINED, Estimate, Measured, Summary, by_optimizer, measure, summarise_measured

if TYPE_CHECKING:
    import jinja2

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
        _here() if environment is None else environment,
    )
    folder = Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    records = summary.records()
    _write(folder / "summary.csv", _csv(list(records[0]), (record.values() for record in records)))
    _write(folder / "curves.csv", _csv(CURVE_FIELDS, _curve_rows(curves)))
    _write(folder / "runs.csv", _csv(RUN_FIELDS, _run_rows(measured, benchmark)))
    _write(folder / "table.tex", latex_table(summary).encode())
    if summary.early:
        fields = [field.name for field in dataclasses.fields(EarlyRow)]
        kept = [dataclasses.asdict(row) for row in summary.early]
        header = [n for f in fields for n in ([f, f"{f}_low", f"{f}_high"] if isinstance(kept[0][f], dict) else [f])]
        rows = [
            [x for f in fields for x in (row[f].values() if isinstance(row[f], dict) else [row[f]])] for row in kept
        ]
        _write(folder / "early_stopping.csv", _csv(header, rows))
    if fronts:
        _write(folder / "fronts.csv", _csv(FRONT_FIELDS, _front_rows(fronts, benchmark)))
        _write(folder / "hypervolumes.csv", _csv(HYPERVOLUME_FIELDS, _hypervolume_rows(fronts)))
    for drawing in (*drawings, *front_drawings):
        _write(folder / "figures" / f"{drawing.name}.png", drawing.png)
        _write(folder / "figures" / f"{drawing.name}.svg", drawing.svg)
    _write(folder / "index.html", page.encode())
    return folder / "index.html"


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _csv(fields: Sequence[str], rows: Iterable[Iterable[object]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue().encode()


def _cell(value: object) -> object:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


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


def _here() -> dict[str, str]:
    """Versions and host of this process."""
    versions = {"Python": platform.python_version()}
    for name in ("nasharness", "numpy", "matplotlib"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source folder that was never installed
            versions[name] = "not installed as a package"
    return {**versions, "platform": platform.platform(), "host": platform.node()}


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
    return _template("report.html.j2").render(
        title=f"{labels[0] if len(labels) == 1 else f'{len(labels)} search strategies'} on {summary.benchmark}",
        lead=_lead(measured, summary, benchmark, specification),
        verdicts=summary.verdicts(),
        notes=_notes(summary),
        caution=info.caution,
        columns=summary.columns,
        rows=[[_split_interval(cell) for cell in row] for row in summary.rows_for_display()[1]],
        figures=[
            {
                "svg": markupsafe.Markup(_inline_svg(drawing, number)),  # noqa: S704  (text in it is drawn as paths)
                "caption": drawing.caption,
            }
            for number, drawing in enumerate(drawings)
        ],
        fronts=[
            {
                "objective": found.objective,
                "meaning": _hypervolume_in_words(found, benchmark),
                "rows": _hypervolume_table(found),
                "svg": markupsafe.Markup(_inline_svg(drawing, number)),  # noqa: S704  (ditto)
                "caption": drawing.caption,
                "number": number + 1,
            }
            for number, (found, drawing) in enumerate(fronts, start=len(drawings))
        ],
        early=[
            [
                (row.optimizer, ""),
                (f"{row.repetitions}", ""),
                _split_interval(_shares(row.stopped)),
                _split_interval(_shares(row.saved)),
                _split_interval(row.regret.text()),
                (f"{row.rule_seconds:.3g}", ""),
            ]
            for row in summary.early
        ],
        specification=json.dumps(specification, indent=2, default=str, ensure_ascii=False),
        environment=[(str(name), _plain(value)) for name, value in environment.items()],
        benchmark=[
            ("id", info.id),
            ("architectures", f"{benchmark.space.size:,} ({benchmark.space.name})"),
            ("full schedule", f"{benchmark.max_epochs} epochs"),
            ("best test accuracy", _percent(benchmark.optimum.test_accuracy, summary)),
            ("best validation accuracy", _percent(benchmark.optimum.val_accuracy, summary)),
            ("source", info.source),
            ("licence", info.licence),
            ("sha256", info.sha256),
            ("version history", info.version_history),
            *((str(name), _plain(value)) for name, value in info.details.items() if name != "path"),
        ],
    )


def _shares(share: Estimate) -> str:
    """A share as a percentage with its interval."""
    return Estimate(100 * share.value, 100 * share.low, 100 * share.high).text(0)


def _template(name: str) -> jinja2.Template:
    """A template of this folder, with what all of them use."""
    import jinja2

    folder = resources.files(__package__)
    engine = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda wanted: folder.joinpath(wanted).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters["breakable"] = _breakable
    return engine.get_template(name)


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
    return [[_split_interval(cell) for cell in row] for row in rows]


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
        f" ({benchmark.space.size:,} architectures), {f'each run with a budget of {budget}, ' if budget else ''}"
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


def _breakable(text: str) -> str:
    """Let a browser break a long label after an underscore, comma or bracket, and nowhere else."""
    import markupsafe

    return markupsafe.Markup(re.sub(r"([_,(])", r"\1<wbr>", str(markupsafe.escape(text))))  # noqa: S704  (escaped)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _split_interval(cell: str) -> tuple[str, str]:
    """`1.23 [1.10, 1.37]` in two, so that the page can put the interval on a line of its own."""
    match = re.fullmatch(r"(-?[\d.,]+) (\[.*)", cell)
    return (match[1], match[2]) if match else (cell, "")


_SVG_CHANGES = (
    (r"^.*?(?=<svg)", ""),  # XML declaration and doctype
    (r"<metadata>.*?</metadata>", ""),
    (r'\sxmlns(:\w+)?="[^"]*"', ""),  # HTML knows SVG without
    (r"xlink:href", "href"),
    (r'(<svg\b[^>]*?)\swidth="[^"]*"', r"\1"),  # the page sizes it
    (r'(<svg\b[^>]*?)\sheight="[^"]*"', r"\1"),
    (re.escape(INK), "var(--ink)"),
    (re.escape(LINES), "var(--line)"),
    (re.escape(PAPER), "var(--paper)"),
    (re.escape(PALETTE[0].lower()), "var(--blue)"),  # too dark on a dark page
)


def _inline_svg(drawing: Drawing, number: int) -> str:
    """A figure for the page: no namespaces or comments, the page's colours, ids that no other figure has."""
    svg = drawing.svg.decode()
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)  # matplotlib writes every text into one, unescaped labels too
    for pattern, replacement in _SVG_CHANGES:
        svg = re.sub(pattern, replacement, svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>f{number}-", svg)
    label = f"Figure {number + 1}: {drawing.name.replace('_', ' ')}"
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()
