"""The figures of a report, as PNG and SVG bytes.

matplotlib is imported when a figure is made, and only its object interface is used: no pyplot, no global state beyond a
context that is left again. The same data give the same bytes.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .curves import SPLITS, AnytimeCurve
from .pareto import Fronts, attainment
from .ranks import ALPHA, rank_strategies
from .summary import BOOTSTRAP_SEED, Measured, Split, Summary, by_optimizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
"""Okabe and Ito, "Color universal design", 2008, without yellow (too pale) and black (the text); grey is added."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
"""Run along with the colours, so that lines can be told apart in grey too; 28 combinations."""
MARKERS = ("o", "s", "D", "^")

INK, LINES, PAPER = "#222222", "#d4d4d4", "#ffffff"
"""Text, grid and background. The page puts its own colours in their place, so that dark mode works."""
FLOOR = 0.01
"""Percentage points: a smaller regret, zero too, is drawn here, because a logarithmic axis has no zero."""

_DPI = 150
_WIDTH = 7.2  # inches
_LINE = 0.21  # inches, a line of text with its spacing
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "savefig.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a dollar sign in a label does not start a formula
    "svg.fonttype": "path",
    "path.simplify": True,
}


@dataclass(frozen=True)
class Drawing:
    """One figure.

    Attributes:
        name: file name without its ending.
        caption: what it shows, in plain words.
        png, svg: the files' content.
    """

    name: str
    caption: str
    png: bytes
    svg: bytes


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the user's matplotlibrc must not change a report
        matplotlib.rcParams.update(cast("Any", _STYLE))
        yield


def draw_all(measured: Sequence[Measured], curves: Sequence[AnytimeCurve], summary: Summary) -> list[Drawing]:
    """The anytime regret on each split that the benchmark has, and the distribution of the final regret."""
    with _style():
        drawings = [
            _anytime([c for c in curves if c.split == split], split, summary, measured[0].interpolation)
            for split in SPLITS
            if any(c.split == split for c in curves)
        ]
        drawings.append(_distribution(measured, summary))
        if len(summary.rows) > 2 and min(row.repetitions for row in summary.rows) > 1:
            drawings.append(_ranks(measured))
    return drawings


def draw_fronts(fronts: Fronts) -> Drawing:
    """Median attainment of each strategy over its runs, and the front of the whole space where it is known."""
    with _style():
        return _fronts(fronts)


def _fronts(fronts: Fronts) -> Drawing:
    split = fronts.split
    drawn = {label: group for label, group in fronts.fronts.items() if any(len(f.cost) for f in group)}
    labels = [_wrapped(label, 36 if len(drawn) > 1 else 76) for label in drawn]
    rows = [*labels, "all architectures"] if len(fronts.best_cost) else labels
    columns = min(2, len(rows)) or 1
    figure, axes = _figure(4.2 + _LINE * sum(label.count("\n") + 1 for label in rows) / columns)
    colours = _styles(list(fronts.fronts))
    handles: list[Any] = []
    lowest, bottom = np.inf, np.inf  # of all that is drawn, and of what costs a tenth of the largest cost or more
    ends = [c for group in drawn.values() for f in group for c in f.cost[-1:].tolist()]
    right = fronts.max_cost if fronts.max_cost == fronts.max_cost else max(ends, default=1.0)
    for label, group in drawn.items():
        colour, dash, _ = colours[label]
        costs = np.unique(np.concatenate([*(f.cost for f in group), [right]]))
        low, median, high = (100 * attainment(group, split, costs, share) for share in (0.75, 0.5, 0.25))
        handles += axes.step(costs, median, where="post", color=colour, linestyle=dash, linewidth=1.8)
        axes.fill_between(costs, low, high, step="post", color=colour, alpha=0.14, linewidth=0)
        lowest = min(lowest, np.fmin.reduce(median))
        bottom = min(bottom, np.fmin.reduce(low[max(0, np.searchsorted(costs, right / 10, side="right") - 1) :]))
    if len(fronts.best_cost):
        costs, best = np.append(fronts.best_cost, right), 100 * fronts.best_accuracy
        handles += axes.step(costs, np.append(best, best[-1]), where="post", color=INK, linestyle=":", linewidth=1.2)
    axes.set_xlabel(fronts.objective)
    axes.set_ylabel(f"{split} accuracy (%)")
    if handles:
        axes.grid(True, which="major", color=LINES, linewidth=0.7)
        legend = figure.legend(
            handles, list(map(str, range(len(rows)))), loc="outside upper left", ncols=columns, frameon=False
        )
        for text, label in zip(legend.get_texts(), rows, strict=True):
            text.set_text(label)
    if not drawn:
        _nothing(axes)
    clipped = lowest < bottom < np.inf
    if clipped:
        axes.set_ylim(bottom=bottom - 0.05 * (axes.get_ylim()[1] - bottom))
    caption = (
        f"Final {split} accuracy of what a run would return within a limit on {fronts.objective}: lines are the median"
        " attainment, the accuracy that at least half of the runs reach; bands lie between what a quarter and what three"
        " quarters of them reach. Higher and further left is better."
    )
    if clipped:
        caption += f" Below the picture is only what costs less than a tenth of the largest {fronts.objective}."
    if len(fronts.best_cost):
        caption += " Dotted: the best architectures of the whole benchmark."
    return _saved(figure, f"front_{_file_name(fronts.objective)}", caption)


def _file_name(objective: str) -> str:
    return re.sub(r"[^\w.-]", "_", objective)


def _anytime(curves: Sequence[AnytimeCurve], split: Split, summary: Summary, interpolation: str) -> Drawing:
    drawn = [c for c in curves if c.runs]
    columns = min(2, len(drawn))
    labels = [_wrapped(c.optimizer, 36 if columns == 2 else 76) for c in drawn]
    lines = sum(label.count("\n") + 1 for label in labels)
    figure, axes = _figure(4.2 + _LINE * lines / max(1, columns))
    single = [c for c in drawn if len(c.gpu_seconds) == 1]
    lowest = min((float(np.nanmin([c.mean, c.low])) for c in drawn if len(c.mean)), default=1.0)
    colours = _styles([c.optimizer for c in curves])
    handles: list[Any] = []
    for curve in drawn:
        colour, dash, marker = colours[curve.optimizer]
        mean, low, high = (np.maximum(y, FLOOR) for y in (curve.mean, curve.low, curve.high))
        if curve in single:  # one point is no line
            errors = np.nan_to_num(np.stack((mean - low, high - mean)))
            handles.append(axes.errorbar(curve.gpu_seconds, mean, yerr=errors, color=colour, marker=marker, capsize=3))
        else:
            axes.fill_between(curve.gpu_seconds, low, high, color=colour, alpha=0.18, linewidth=0)
            handles += axes.plot(curve.gpu_seconds, mean, color=colour, linestyle=dash, linewidth=1.8)
    clipped = lowest < FLOOR
    axes.set_xlabel("GPU time of a run (s)")
    axes.set_ylabel(
        f"{split} regret (percentage points)" + (f"\nbelow {FLOOR:g} drawn at {FLOOR:g}" if clipped else "")
    )
    if drawn:
        axes.set_xscale("log")
        axes.set_yscale("log")
        if clipped:
            axes.set_ylim(bottom=FLOOR * 0.85)
        _plain_log_ticks(axes)
        axes.grid(True, which="major", color=LINES, linewidth=0.7)
        # Numbers first: a legend leaves out labels that begin with an underscore.
        legend = figure.legend(
            handles, list(map(str, range(len(labels)))), loc="outside upper left", ncols=columns, frameon=False
        )
        for text, label in zip(legend.get_texts(), labels, strict=True):
            text.set_text(label)
    else:
        _nothing(axes)
    caption = (
        f"Regret of the incumbent on the {split} set over GPU time (simulated seconds plus the optimizer's own): mean"
        " over runs, with the pointwise 95 % bootstrap band. Lower is better; both axes are logarithmic. A line starts"
        " where every run of the strategy has an incumbent; a run that has ended keeps its last one."
    )
    if interpolation == "linear":
        caption += (
            " Between two trials regret is read on the straight line between them, as the benchmark's protocol asks."
        )
    if clipped:
        caption += f" Regrets below {FLOOR:g} points, zero too, are drawn at {FLOOR:g}."
    if alone := [c.optimizer for c in drawn if c.runs == 1]:
        caption += f" No band with a single run: {', '.join(alone)}."
    caption += _left_out(summary)
    return _saved(figure, f"anytime_{split}_regret", caption)


def _distribution(measured: Sequence[Measured], summary: Summary) -> Drawing:
    from matplotlib.patches import Rectangle

    groups = {label: [m.regret[-1] for m in group if m.found] for label, group in by_optimizer(measured).items()}
    labels = [_wrapped(label, 26) for label in groups]
    most_lines = max(label.count("\n") + 1 for label in labels)
    figure, axes = _figure(1.1 + max(0.62, _LINE * most_lines) * len(groups))
    colours = _styles(list(groups))
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    means = {row.optimizer: row.mean for row in summary.rows}
    for place, (label, regrets) in enumerate(groups.items()):
        colour, _, marker = colours[label]
        jitter = place + rng.uniform(
            -0.2, 0.2, size=len(regrets)
        )  # before the branch: one row's runs do not move another's
        if not regrets:
            continue
        if len(regrets) > 1:
            low, first, median, third, high = np.quantile(regrets, (0, 0.25, 0.5, 0.75, 1))
            box = Rectangle((first, place - 0.28), third - first, 0.56, fill=False, edgecolor=INK, linewidth=1.0)
            axes.add_patch(box)
            axes.hlines((place, place), (low, third), (first, high), color=INK, linewidth=0.8)
            axes.vlines((low, high), place - 0.14, place + 0.14, color=INK, linewidth=0.8)
            axes.vlines(median, place - 0.28, place + 0.28, color=INK, linewidth=2.0)
        axes.scatter(regrets, jitter, s=14, color=colour, marker=marker, alpha=0.65, linewidth=0, zorder=3)
        axes.scatter(
            [means[label].value], [place], s=46, color=PAPER, edgecolor=INK, linewidth=1.3, marker="D", zorder=4
        )
    axes.set_yticks(range(len(groups)), labels)
    axes.set_ylim(len(groups) - 0.45, -0.55)  # the first strategy on top
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{summary.split} regret at the end of a run (percentage points)")
    if any(groups.values()):
        axes.set_xlim(
            left=min(0.0, *(min(g) for g in groups.values() if g)) - 0.02 * max(max(g) for g in groups.values() if g)
        )
        axes.grid(True, axis="x", color=LINES, linewidth=0.7)
        axes.set_axisbelow(True)
    else:
        _nothing(axes)
    caption = (
        f"{summary.split.capitalize()} regret at the end of each run; lower is better. Small marks are runs (spread up and"
        " down only to be told apart), the box holds the middle half of them, its thick line is the median, the whiskers"
        " reach the best and the worst run, the diamond is the mean." + _left_out(summary)
    )
    return _saved(figure, f"final_{summary.split}_regret", caption)


def _ranks(measured: Sequence[Measured]) -> Drawing:
    """The critical-difference diagram."""
    regrets = {label: np.array([m.regret[-1] for m in group]) for label, group in by_optimizer(measured).items()}
    ranking = rank_strategies(regrets, rng=np.random.default_rng(BOOTSTRAP_SEED))
    k = len(ranking.optimizers)
    figure, axes = _figure(1.3 + 0.3 * k + 0.14 * len(ranking.groups))
    looks = _styles(list(regrets))
    for place, label in enumerate(ranking.optimizers):
        colour, _, marker = looks[label]
        axes.hlines(place, ranking.low[place], ranking.high[place], color=colour, linewidth=1.6)
        axes.plot([ranking.ranks[place]], [place], marker=marker, color=colour, markersize=7, linestyle="")
    for line, (first, last) in enumerate(ranking.groups):
        height = k - 0.2 + 0.45 * line
        axes.hlines(height, ranking.ranks[first], ranking.ranks[last], color=INK, linewidth=3.5)
        for place in (first, last):
            axes.vlines(ranking.ranks[place], place, height, color=LINES, linewidth=0.7, zorder=0)
    axes.set_yticks(range(k), [_wrapped(label, 26) for label in ranking.optimizers])
    axes.set_ylim(k - 0.2 + 0.45 * max(1, len(ranking.groups)), -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(1 - 0.05 * (k - 1), k + 0.05 * (k - 1))
    axes.set_xlabel("expected rank (1 is best)")
    axes.grid(True, axis="x", color=LINES, linewidth=0.7)
    axes.set_axisbelow(True)
    split = measured[0].split
    caption = (
        f"Critical-difference diagram: expected rank by final {split} regret when one run of each strategy is drawn, with its"
        " 95 % bootstrap interval. A thick bar below joins strategies of which no two differ (Mann-Whitney tests of all"
        f" pairs, corrected by Holm, {ALPHA:.0%}); strategies without a common bar differ."
    )
    return _saved(figure, "ranks", caption)


def _left_out(summary: Summary) -> str:
    rows = [f"{row.without_incumbent} of {row.optimizer}" for row in summary.rows if row.without_incumbent]
    return f" Runs without an incumbent are not drawn: {', '.join(rows)}." if rows else ""


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _styles(labels: Sequence[str]) -> dict[str, tuple[str, Any, str]]:
    """Colour, line style and marker of each label, by its place among all."""
    looks = zip(itertools.cycle(PALETTE), itertools.cycle(DASHES), itertools.cycle(MARKERS), strict=False)
    return dict(zip(labels, looks, strict=False))


def _wrapped(label: str, width: int) -> str:
    """Break a label into lines of at most `width` characters, where possible after a punctuation mark."""
    lines = [""]
    for part in re.findall(rf".{{0,{width - 1}}}?[,(_.:\s]|.{{1,{width}}}", label.replace("\n", " ")):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def _plain_log_ticks(axes: Axes) -> None:
    """Write 0.1, 1, 10 and not powers of ten; label 2 and 5 as well where the axis is shorter than two decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        decades = np.log10(high / low)
        subs = (1.0, 2.0, 3.0, 5.0, 7.0) if decades < 0.8 else (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
        axis.set_major_locator(LogLocator(subs=subs, numticks=30))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}" if value < 1e6 else f"{value:.0e}"))
        axis.set_minor_formatter(NullFormatter())


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "no run found an incumbent", transform=axes.transAxes, ha="center", va="center")
    axes.set_xticks([])


def _saved(figure: Figure, name: str, caption: str) -> Drawing:
    import matplotlib

    files = {}
    with matplotlib.rc_context({"svg.hashsalt": name}):  # ids from the content, not from the clock
        for kind in ("png", "svg"):
            buffer = io.BytesIO()
            # Agg and SVG would differ in the layout by their dots per inch; one value for both.
            metadata = {"Software": None} if kind == "png" else {"Date": None}
            figure.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
            files[kind] = buffer.getvalue()
    return Drawing(name, caption, files["png"], files["svg"])
