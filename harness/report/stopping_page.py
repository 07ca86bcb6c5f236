"""The report of a stopping study in a folder: one page that needs nothing else, and its numbers, figures and table as files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import stopping as study_module
from .figures import Drawing
from .latex import booktabs
from .stopping import FEW_IN_BIN, NONE, StoppingSummary, compared, summarise
from .stopping_figures import draw_stopping
from .summary import UNDEFINED, _fixed
from .writing import csv_bytes, inline_svg, plain, split_interval, template, this_process, write

if TYPE_CHECKING:
    from ..stopping import StoppingStudy

_DASH = "\N{EN DASH}"
_TABLES = {
    "ranking": study_module.RankingRow,
    "decisions": study_module.DecisionRow,
    "searches": study_module.SearchRow,
    "sweeps": study_module.SearchRow,
}
_SHOWN = ("sha256", "noise", "caution", "meta")  # of the specification, in "The benchmark"


def write_stopping_report(
    study: StoppingStudy, folder: Path | str, *, environment: Mapping[str, Any] | None = None
) -> Path:
    """Write `index.html`, `summary.csv`, the tables of the study, `reliability.csv`, `table.tex` and `figures/*.png|svg`.

    The tables are `ranking.csv`, `decisions.csv`, `searches.csv` and `sweeps.csv`, with a column per attribute of their rows;
    regrets are points of accuracy, times seconds, shares fractions. An empty cell is an undefined number.

    The same study and environment give the same bytes (with the same version of matplotlib). Each file is written under a
    temporary name and then moved, so a reader never sees half of one; other files in the folder stay.

    Args:
        study: of any number of rules.
        folder: made if it is missing.
        environment: versions, hosts and whatever else belongs to "where"; None describes this process.

    Returns:
        The path of `index.html`.
    """
    summary = summarise(study)
    drawings = draw_stopping(study, summary)
    page = _page(study, summary, drawings, this_process() if environment is None else environment)
    folder = Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    records = summary.records()
    write(folder / "summary.csv", csv_bytes(list(records[0]) if records else ["rule"], (r.values() for r in records)))
    for name, kind in _TABLES.items():
        names = [field.name for field in fields(kind)]
        rows = ([getattr(row, attribute) for attribute in names] for row in getattr(study, name))
        write(folder / f"{name}.csv", csv_bytes(names, rows))
    write(folder / "reliability.csv", csv_bytes(("rule", "low", "high", "count", "p_mean", "frequency"), _bins(study)))
    write(folder / "table.tex", stopping_table(summary).encode())
    for drawing in drawings:
        write(folder / "figures" / f"{drawing.name}.png", drawing.png)
        write(folder / "figures" / f"{drawing.name}.svg", drawing.svg)
    write(folder / "index.html", page.encode())
    return folder / "index.html"


def _bins(study: StoppingStudy) -> Iterable[Iterable[object]]:
    for label, d in study.reliability.items():
        edges = d.edges.tolist()
        columns = (edges[:-1], edges[1:], d.count.tolist(), d.p_mean.tolist(), d.frequency.tolist())
        for row in zip(*columns, strict=True):
            yield (label, *row)


def stopping_table(summary: StoppingSummary) -> str:
    """A booktabs table with caption and label; the same cells as on the page, the rules below a line."""
    headings, rows = summary.rows_for_display()
    caption = (
        f"Early-stopped random search on {summary.name}: regret in points of accuracy and GPU time, means over"
        f" {summary.orderings} searches with the 95 % percentile bootstrap interval in brackets."
    )
    return booktabs(
        headings,
        rows,
        text=[c.text for c in summary.columns],
        caption=caption,
        label=summary.name,
        prefix="tab:stopping-",
        rule_after=1 if len(rows) > 1 and summary.rows[0].rule == NONE else None,
    )


# -------------------------------------------------------------------------------------------------------------- page


def _page(
    study: StoppingStudy, summary: StoppingSummary, drawings: Sequence[Drawing], environment: Mapping[str, Any]
) -> str:
    import markupsafe

    specification = study.specification
    return template("stopping.html.j2").render(
        title=f"{_count(summary)} on {summary.name}",
        lead=_lead(study, summary),
        verdicts=summary.verdicts(),
        caution=specification.get("caution", ""),
        columns=summary.columns,
        rows=[[split_interval(cell) for cell in row] for row in summary.rows_for_display()[1]],
        restarts=any(column.heading.endswith("restarting") for column in summary.columns),
        tables={
            "spearman": _spearman_table(summary),
            "ranking": _ranking_table(summary),
            "r2": _r2_table(summary),
            "calibration": _calibration_table(summary),
            "hypervolume": _hypervolume_table(summary),
        },
        common=_common(summary),
        few=FEW_IN_BIN,
        figures={
            drawing.name: {
                "svg": markupsafe.Markup(inline_svg(drawing, number)),  # noqa: S704  (text in it is drawn as paths)
                "caption": drawing.caption,
                "number": number + 1,
            }
            for number, drawing in enumerate(drawings)
        },
        errors=list(summary.errors.items()),
        specification=json.dumps(specification, indent=2, default=str, ensure_ascii=False),
        environment=[(str(name), plain(value)) for name, value in environment.items()],
        benchmark=[
            ("name", summary.name),
            ("curves", summary.curves_words),
            ("full training", f"{summary.max_epochs} epochs"),
            *((name, plain(specification[name])) for name in _SHOWN if specification.get(name)),
        ],
    )


def _count(summary: StoppingSummary) -> str:
    rules = [row.rule for row in summary.rows if row.rule != NONE]
    return "No early termination" if not rules else rules[0] if len(rules) == 1 else f"{len(rules)} stopping rules"


def _lead(study: StoppingStudy, summary: StoppingSummary) -> str:
    n = study.specification.get("n")
    size = f"{n:,} architectures" if isinstance(n, int) else "architectures"
    return (
        f"{summary.orderings:,} random {'search' if summary.orderings == 1 else 'searches'} of {size} each, on"
        f" {summary.curves_words}, followed from the known curves: the architectures are trained one after the other, a rule"
        " says at its check points which trainings end, and the best of those trained in full is selected. Every rule meets the"
        " same architectures in the same order, and predictors learned from other ones."
    )


Table = tuple[list[str], list[list[tuple[str, str]]]]
"""Headings, and of each row its cells with what stands below them."""


def _spearman_table(summary: StoppingSummary) -> Table | None:
    if not summary.ranking:
        return None
    headings = ["predictor", "curves", *(_observed(m, summary) for m in summary.epochs), "against last_value"]
    words = {"better": "ahead", "worse": "behind", "level": "", None: ""}
    rows = []
    for r in summary.ranking:
        cells = [(r.rule, ""), (f"{r.n_train:,}", "")]
        for m in summary.epochs:
            if m not in r.cells:
                cells.append((_DASH, ""))
                continue
            cell = r.cells[m]
            place = None if cell.from_last is None else compared(cell.from_last, higher=True)
            cells.append((_fixed(cell.spearman.value, 3), words[place]))
        cells.append((_DASH, "") if r.from_last is None else split_interval(r.from_last.text(3)))
        rows.append(cells)
    if all(r.from_last is None for r in summary.ranking):  # nothing to compare with
        return headings[:-1], [row[:-1] for row in rows]
    return headings, rows


def _observed(epochs: int, summary: StoppingSummary) -> str:
    share = f"{100 * epochs / summary.max_epochs:.3g} %"
    return f"1 epoch ({share})" if epochs == 1 else share


def _ranking_table(summary: StoppingSummary) -> Table | None:
    if not summary.ranking or not summary.common:
        return None
    names = ("spearman", "tau", "pairwise", "recall_top", "spearman_top")
    headings = ["predictor", "Spearman rho", "Kendall tau", "pairs", "best 5 % found", "rho, best tenth"]
    return headings, [[(r.rule, ""), *((_fixed(getattr(r, name), 3), "") for name in names)] for r in summary.ranking]


def _r2_table(summary: StoppingSummary) -> Table | None:
    having = [r for r in summary.ranking if any(not math.isnan(cell.r2) for cell in r.cells.values())]
    if not having:
        return None
    headings = ["predictor", *(_observed(m, summary) for m in summary.epochs)]
    return headings, [
        [(r.rule, ""), *((_r2(r.cells[m].r2) if m in r.cells else _DASH, "") for m in summary.epochs)] for r in having
    ]


def _r2(value: float) -> str:
    if math.isnan(value):
        return UNDEFINED
    return _fixed(value, 2) if value > -100 else f"{value:.1e}"  # there is no limit to how wrong a mean can be


def _common(summary: StoppingSummary) -> str:
    return ", ".join(_observed(m, summary) for m in summary.common)


def _calibration_table(summary: StoppingSummary) -> Table | None:
    if not summary.calibration:
        return None
    headings = [
        "predictor",
        "probabilities",
        "Brier score",
        "skill",
        "log-loss",
        "mean probability",
        "share better",
        "mean deviation",
        "worst deviation",
    ]
    rows = []
    for c in summary.calibration:
        worst = (UNDEFINED, "") if math.isnan(c.worst) else (f"{c.worst:+.3f}", f"where it says {c.worst_p:.2f}")
        numbers = (c.brier, c.skill, c.log_loss, c.p_mean, c.share_better, c.ece)
        rows.append([(c.rule, ""), (f"{c.n:,}", ""), *((_fixed(number, 3), "") for number in numbers), worst])
    return headings, rows


def _hypervolume_table(summary: StoppingSummary) -> Table | None:
    found = [row for row in summary.rows if row.hypervolume is not None]
    if not found:
        return None
    headings = ["method", "settings", "hypervolume", "less that of i_epoch", "adds to i_epoch"]
    rows = []
    for row in sorted(found, key=lambda r: -_sortable(r.hypervolume.value if r.hypervolume else math.nan)):
        estimates = (row.hypervolume, row.from_i_epoch, row.added)
        cells = [(_DASH, "") if e is None else split_interval(e.text(4)) for e in estimates]
        rows.append([(row.rule, ""), (f"{row.settings}", ""), *cells])
    if all(row.from_i_epoch is None for row in found):
        return headings[:3], [row[:3] for row in rows]
    return headings, rows


def _sortable(value: float) -> float:
    return -math.inf if math.isnan(value) else value
