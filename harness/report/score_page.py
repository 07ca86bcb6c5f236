"""The report of a proxy study in a folder: one page that needs nothing else, and its numbers, figures and table as files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .latex import booktabs
from .score_figures import draw_scores
from .scores import (
    CHANCE,
    FEW_ARCHITECTURES,
    FITTED,
    FOLDS,
    MANY,
    PUBLISHED_VOTE,
    RANK_AVERAGE,
    RESAMPLES,
    Combination,
    Scores,
    ScoreSummary,
    base_name,
    summarise,
)
from .writing import csv_bytes, inline_svg, plain, size_in_words, split_interval, template, this_process, write

_MESSAGES = 3  # of one proxy that the page shows


def write_score_report(scores: Scores, folder: Path | str, *, environment: Mapping[str, Any] | None = None) -> Path:
    """Write `index.html`, `summary.csv`, `scores.csv`, `correlations.csv`, `table.tex` and `figures/*.png|svg`.

    `scores.csv` has one row per architecture: its string, its accuracy in percent, the score by each proxy and combination
    (-inf: could not be scored), the parts of those that rank several quantities as `proxy: part`, and the measured seconds as
    `proxy: seconds`. An empty cell is an undefined number.

    The same scores and environment give the same bytes (with the same version of matplotlib). Each file is written under a
    temporary name and then moved, so a reader never sees half of one; other files in the folder stay.

    Args:
        scores: of any number of proxies on one set of architectures.
        folder: made if it is missing.
        environment: versions, hosts and whatever else belongs to "where"; None describes this process.

    Returns:
        The path of `index.html`.

    Raises:
        ValueError: see `summarise`.
    """
    summary = summarise(scores)
    drawings = draw_scores(scores, summary)
    page = _page(scores, summary, drawings, this_process() if environment is None else environment)
    folder = Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    records = summary.records()
    write(folder / "summary.csv", csv_bytes(list(records[0]) if records else ["proxy"], (r.values() for r in records)))
    write(folder / "scores.csv", csv_bytes(*_score_rows(scores, summary)))
    matrix = zip(summary.labels, summary.correlations.tolist(), strict=True)
    write(folder / "correlations.csv", csv_bytes(("proxy", *summary.labels), ((label, *row) for label, row in matrix)))
    write(folder / "table.tex", score_table(summary).encode())
    for drawing in drawings:
        write(folder / "figures" / f"{drawing.name}.png", drawing.png)
        write(folder / "figures" / f"{drawing.name}.svg", drawing.svg)
    write(folder / "index.html", page.encode())
    return folder / "index.html"


def _score_rows(scores: Scores, summary: ScoreSummary) -> tuple[list[str], Iterable[Iterable[object]]]:
    columns: dict[str, Any] = {f"{scores.split} accuracy (%)": 100 * scores.accuracy}
    columns |= {label: scores.values[label] for label in scores.proxies}
    columns |= {label: combination.values for label, combination in summary.combinations.items()}
    for label in scores.proxies:
        columns |= {f"{label}: {part}": values for part, values in scores.parts.get(label, {}).items()}
    columns |= {f"{label}: seconds": scores.seconds[label] for label in scores.proxies}
    space = scores.benchmark.space
    names = [space.to_string(tuple(arch)) for arch in scores.archs.tolist()]
    return ["architecture", *columns], zip(names, *(np.asarray(c).tolist() for c in columns.values()), strict=True)


def score_table(summary: ScoreSummary) -> str:
    """A booktabs table with caption and label; the same cells as on the page, combinations below a line."""
    headings, rows = summary.rows_for_display()
    caption = (
        f"Zero-cost proxies on {summary.benchmark} ({summary.population}): rank correlation with the {summary.split} accuracy"
        " with the 95 % percentile bootstrap interval over architectures in brackets; regrets in percentage points."
    )
    first = len(summary.proxies)
    return booktabs(
        headings,
        rows,
        text=[c.text for c in summary.columns],
        caption=caption,
        label=summary.benchmark,
        prefix="tab:proxies-",
        rule_after=first if first < len(rows) else None,
    )


def _page(scores: Scores, summary: ScoreSummary, drawings: list[Any], environment: Mapping[str, Any]) -> str:
    import markupsafe

    benchmark, info = scores.benchmark, scores.benchmark.info
    rows = [[split_interval(cell) for cell in row] for row in summary.rows_for_display()[1]]
    first = len(summary.proxies)
    return template("scores.html.j2").render(
        title=f"{_count(scores)} on {summary.benchmark}",
        lead=_lead(scores, summary),
        verdicts=summary.verdicts(),
        caution=info.caution,
        columns=summary.columns,
        groups=[rows[:first], rows[first:]] if rows[first:] else [rows],
        resamples=f"{RESAMPLES:,}",
        few=FEW_ARCHITECTURES,
        notes=_notes(scores, summary),
        figures=[
            {
                "svg": markupsafe.Markup(inline_svg(drawing, number)),  # noqa: S704  (text in it is drawn as paths)
                "caption": drawing.caption,
            }
            for number, drawing in enumerate(drawings)
        ],
        combinations=[(label, _in_words(label, c, summary)) for label, c in summary.combinations.items()],
        errors=_errors(scores),
        specification=json.dumps(scores.specification, indent=2, default=str, ensure_ascii=False),
        environment=[(str(name), plain(value)) for name, value in environment.items()],
        benchmark=[
            ("id", info.id),
            ("architectures", f"{size_in_words(benchmark)} ({benchmark.space.name})"),
            ("judged", f"{summary.population}"),
            *([] if summary.n == 0 else [("best of these", f"{summary.best_accuracy:.2f} % {summary.split} accuracy")]),
            ("source", info.source),
            ("licence", info.licence),
            ("sha256", info.sha256),
            ("version history", info.version_history),
            *((str(name), plain(value)) for name, value in info.details.items() if name != "path"),
        ],
    )


def _count(scores: Scores) -> str:
    return scores.proxies[0] if len(scores.proxies) == 1 else f"{len(scores.proxies)} zero-cost proxies"


def _lead(scores: Scores, summary: ScoreSummary) -> str:
    verb = "was" if len(scores.proxies) == 1 else "were"
    size = f" ({summary.n:,} with a known accuracy)" if summary.unknown else ""
    return (
        f"{_count(scores)} {verb} computed on {summary.population}{size} of {summary.benchmark} and compared with their final"
        f" {summary.split} accuracy, the mean over the benchmark's training runs. A proxy scores the untrained network; all are"
        " judged on the same architectures, and one that cannot be scored counts as the lowest."
    )


def _notes(scores: Scores, summary: ScoreSummary) -> list[str]:
    notes = []
    ranked = [label for label in scores.proxies if scores.parts.get(label)]
    if ranked:
        notes.append(
            f"{', '.join(ranked)}: the score adds up places among the architectures scored here, so it would be another among"
            " others; what was measured of each is in scores.csv."
        )
    if summary.n >= FEW_ARCHITECTURES and summary.n == scores.benchmark.space.known_size:
        notes.append(
            "These are all architectures of the space, so the correlations are exact for it with these scores; the intervals"
            " answer for spaces from which this one might have been drawn."
        )
    return notes


def _in_words(label: str, combination: Combination, summary: ScoreSummary) -> str:
    everyone = sum(base_name(name) != CHANCE for name in summary.labels)
    members = "all proxies" if len(combination.members) == everyone else ", ".join(combination.members)
    if len(summary.labels) > everyone and members == "all proxies":
        members += f" but {CHANCE}"
    if label == FITTED:
        used = sorted(combination.weights.items(), key=lambda item: -item[1])
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in used if round(weight, 2) > 0) or "none above 0"
        return (
            f"The ranks by {members}, weighted so that their sum is closest to the rank by accuracy (least squares, weights of at"
            f" least 0). Unlike everything else here it needs trained accuracies: it is fitted on {FOLDS - 1} of {FOLDS} equal"
            f" parts of the architectures and judged on the one left out, each in turn. Mean weights: {weights}."
            " Its interval leaves out the uncertainty of the weights."
        )
    if label == RANK_AVERAGE:
        return f"The mean of the ranks by {members}."
    text = (
        f"Between two architectures the majority of {members} decides; the score is the number of others that an architecture"
        " beats less the number that it loses to."
    )
    if combination.members and tuple(map(base_name, combination.members)) == PUBLISHED_VOTE:
        text += " Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021."
    if summary.n > MANY:
        text += f" Each is compared with a fixed sample of {MANY:,} others."
    return text


def _errors(scores: Scores) -> list[tuple[str, list[str]]]:
    """Of each proxy that failed somewhere its most frequent messages, with how often they came."""
    result = []
    for label in scores.proxies:
        counts = Counter(scores.errors.get(label, {}).values())
        if not counts:
            continue
        common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        messages = [f"{count:,} \N{MULTIPLICATION SIGN} {message}" for message, count in common[:_MESSAGES]]
        if len(common) > _MESSAGES:
            messages.append(f"and {len(common) - _MESSAGES:,} other messages")
        result.append((label, messages))
    return result
