"""The report of a study of supernets in a folder: one page that needs nothing else, and its numbers, figures and table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .figures import Drawing
from .latex import booktabs
from .supernets import FEW_ARCHITECTURES, RESAMPLES, SupernetSummary, epoch_records, summarise
from .supernets_figures import draw_supernets
from .writing import csv_bytes, inline_svg, plain, size_in_words, split_interval, template, this_process, write

if TYPE_CHECKING:
    from ..supernets import SupernetStudy


def write_supernet_report(
    study: SupernetStudy, folder: Path | str, *, environment: Mapping[str, Any] | None = None
) -> Path:
    """Write `index.html`, `summary.csv`, `epochs.csv`, `inherited.csv`, `weights.csv`, `table.tex` and `figures/*.png|svg`.

    Accuracies in the files are fractions, but regret and drop in `summary.csv` are percentage points; an empty cell is an
    undefined number. Each file is written under a temporary name and then moved; other files in the folder stay.

    Args:
        study: of any number of methods.
        folder: made if it is missing.
        environment: versions, hosts and whatever else belongs to "where"; None describes this process.

    Returns:
        The path of `index.html`.
    """
    summary = summarise(study)
    drawings = draw_supernets(study)
    page = _page(study, summary, drawings, this_process() if environment is None else environment)
    folder = Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, records in (("summary", summary.records()), ("epochs", epoch_records(study))):
        write(folder / f"{name}.csv", csv_bytes(list(records[0]), (record.values() for record in records)))
    fields = ("method", "seed", "epoch", "architecture", "disconnected", "inherited_batch", "inherited_recalibrated")
    rows = _inherited_rows(study)
    write(folder / "inherited.csv", csv_bytes((*fields, "test_accuracy", "validation_accuracy"), rows))
    write(
        folder / "weights.csv",
        csv_bytes(("method", "seed", "epoch", "cell", "operation", "weight"), _weight_rows(study)),
    )
    write(folder / "table.tex", supernet_table(summary).encode())
    for drawing in drawings:
        write(folder / "figures" / f"{drawing.name}.png", drawing.png)
        write(folder / "figures" / f"{drawing.name}.svg", drawing.svg)
    write(folder / "index.html", page.encode())
    return folder / "index.html"


def supernet_table(summary: SupernetSummary) -> str:
    """A booktabs table with caption and label; the same cells as on the page."""
    headings, rows = summary.rows_for_display()
    caption = (
        f"Supernets on {summary.benchmark}: Kendall's tau-b of inherited with {summary.split} accuracy over {summary.n:,}"
        " architectures and other measurements after the last epoch, means over seeds with the 95 % percentile bootstrap"
        " interval in brackets."
    )
    text = [c.text for c in summary.columns]
    return booktabs(headings, rows, text=text, caption=caption, label=summary.benchmark, prefix="tab:supernets-")


def _inherited_rows(study: SupernetStudy) -> Iterable[Iterable[object]]:
    names = [study.benchmark.space.to_string(tuple(arch)) for arch in study.archs.tolist()]
    for run in study.runs:
        for p, epoch in enumerate(run.points.tolist()):
            columns = (
                names,
                study.disconnected.astype(int).tolist(),
                run.inherited["batch"][p].tolist(),
                run.inherited["recalibrated"][p].tolist(),
                study.test_accuracy.tolist(),
                study.validation_accuracy.tolist(),
            )
            for row in zip(*columns, strict=True):
                yield (run.method, run.seed, epoch, *row)


def _weight_rows(study: SupernetStudy) -> Iterable[Iterable[object]]:
    for run in study.runs:
        for table, values in run.weights.items():
            for epoch, row in enumerate(values.tolist(), start=1):
                for operation, weight in zip(run.operations[table], row, strict=True):
                    yield (run.method, run.seed, epoch, table, operation, weight)


def _page(
    study: SupernetStudy, summary: SupernetSummary, drawings: Sequence[Drawing], environment: Mapping[str, Any]
) -> str:
    import markupsafe

    benchmark, info = study.benchmark, study.benchmark.info
    count = len(study.methods)
    return template("supernets.html.j2").render(
        title=f"{study.methods[0] if count == 1 else f'{count} supernet methods'} on {summary.benchmark}",
        lead=(
            f"Each method was trained {len(study.runs) // count} time{'s' * (len(study.runs) > count)} on the images of"
            f" {summary.benchmark}. At some epochs {summary.population} were evaluated with the weights that they inherit from"
            f" the supernet, on the held-out images, and compared with the {summary.split} accuracy that the benchmark's table"
            " has for them. Measuring took no part in the searches."
        ),
        verdicts=summary.verdicts(),
        caution=info.caution,
        columns=summary.columns,
        rows=[[split_interval(cell) for cell in row] for row in summary.rows_for_display()[1]],
        resamples=f"{RESAMPLES:,}",
        few=FEW_ARCHITECTURES,
        figures=[
            {
                "svg": markupsafe.Markup(inline_svg(drawing, number)),  # noqa: S704  (text in it is drawn as paths)
                "caption": drawing.caption,
            }
            for number, drawing in enumerate(drawings)
        ],
        specification=json.dumps(study.specification, indent=2, default=str, ensure_ascii=False),
        environment=[(str(name), plain(value)) for name, value in environment.items()],
        benchmark=[
            ("id", info.id),
            ("architectures", f"{size_in_words(benchmark)} ({benchmark.space.name})"),
            ("evaluated", summary.population),
            ("best in the table", f"{100 * study.optimum:.2f} % {study.split} accuracy"),
            ("source", info.source),
            ("licence", info.licence),
            ("sha256", info.sha256),
        ],
    )
