"""The figures of a stopping study, as PNG and SVG bytes; how they are made deterministic is in `figures`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import metrics
from .figures import _WIDTH, INK, LINES, PALETTE, PAPER, Drawing, _figure, _saved, _style, _styles, _wrapped
from .score_figures import _name
from .stopping import FEW_IN_BIN, I_EPOCH, LAST_VALUE, NONE, RuleRow, StoppingSummary, reference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..stopping import StoppingStudy

_PANELS = 4  # side by side
_DOTTED = (0, (1, 1.5))


def draw_stopping(study: StoppingStudy, summary: StoppingSummary) -> list[Drawing]:
    """Regret against GPU time, the sweeps, the rank correlations and the reliability diagrams.

    A figure that would show nothing is left out.
    """
    with _style():
        drawings = []
        points = [row for row in summary.rows if _drawable(row)]
        if any(row.rule != NONE for row in points):
            drawings.append(_trade_off(summary, points))
        if any(_known(summary, label) for label in summary.sweeps):
            drawings.append(_sweeps(summary))
        if any(not math.isnan(c.spearman.value) for r in summary.ranking for c in r.cells.values()):
            drawings.append(_spearman(summary))
        if any(diagram.count.sum() > 0 for diagram in study.reliability.values()):
            drawings.append(_reliability(study))
    return drawings


def _drawable(row: RuleRow) -> bool:
    return math.isfinite(row.regret.value) and math.isfinite(row.share.value) and row.share.value > 0


def _known(summary: StoppingSummary, label: str) -> list[tuple[float, float]]:
    """GPU time in percent and regret of the settings of a sweep, by ascending GPU time."""
    points = [(100 * p.share, p.regret) for p in summary.sweeps.get(label, ())]
    return sorted((x, y) for x, y in points if math.isfinite(x) and math.isfinite(y) and x > 0)


def _panels(count: int, *, ratio: float) -> tuple[Figure, list[Axes], int]:
    """A figure of `count` panels, the panels, and how many there are in a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_PANELS, count)
    lines = -(-count // columns)
    height = min(ratio * _WIDTH / columns, 3.4) + 0.35
    figure = Figure(figsize=(min(_WIDTH, 3.6 * columns), 0.75 + lines * height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.flat)
    for place, panel in enumerate(axes):
        if place >= count:
            panel.remove()
            continue
        panel.grid(True, color=LINES, linewidth=0.6)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8, labelbottom=place + columns >= count)
    return figure, axes[:count], columns


def _title(axes: Axes, label: str, columns: int) -> None:
    axes.set_title(_wrapped(label, 22 if columns > 2 else 40), fontsize=8 if columns > 2 else 10)


# ---------------------------------------------------------------------------------------------------------- GPU time


def _trade_off(summary: StoppingSummary, points: Sequence[RuleRow]) -> Drawing:
    """Regret against GPU time of every rule at its own setting, with the front; the sweeps as thin lines."""
    figure, axes = _figure(5.2)
    looks = _styles([row.rule for row in summary.rows])
    x = [100 * row.share.value for row in points]
    y = [row.regret.value for row in points]
    far = [*x], [*y]  # of all that is drawn
    for label in summary.sweeps:
        swept = _known(summary, label)
        if len(swept) > 1 and label in looks:
            xs, ys = zip(*swept, strict=True)
            axes.plot(xs, ys, color=looks[label][0], linewidth=0.9, alpha=0.5, zorder=1)
            far[0].extend(xs)
            far[1].extend(ys)
    for row, share, regret in zip(points, x, y, strict=True):
        colour, _, marker = looks[row.rule]
        if row.regret.has_interval:
            axes.vlines(share, row.regret.low, row.regret.high, color=colour, linewidth=1.2, alpha=0.8, zorder=2)
            far[1].append(row.regret.high)
        axes.scatter([share], [regret], s=34, color=colour, marker=marker, edgecolor=PAPER, linewidth=0.6, zorder=3)
    front = metrics.pareto_front(x, [-value for value in y])
    if len(front) > 1:
        axes.step(
            np.array(x)[front],
            np.array(y)[front],
            where="post",
            color=INK,
            linewidth=1.3,
            linestyle=_DOTTED,
            alpha=0.85,
            zorder=1,
        )
    _share_axis(axes, *far)
    axes.set_xlabel("GPU time (% of training everything in full)")
    axes.set_ylabel("mean regret (points of accuracy)")
    axes.grid(True, color=LINES, linewidth=0.7)
    axes.set_axisbelow(True)
    _name(figure, axes, x, y, [row.rule for row in points])
    caption = (
        "What ending trainings early saves and what it costs: mean regret against GPU time, on a logarithmic axis, each rule at"
        " its own setting. Further left and lower is better; the dotted line joins the rules that no other beats in both."
    )
    if any(row.regret.has_interval for row in points):
        caption += " Upright lines: 95 % bootstrap intervals of the regret over searches."
    if any(len(_known(summary, label)) > 1 for label in summary.sweeps):
        caption += " Thin lines: the same rules under other settings."
    caption += _broken(axes)
    return _saved(figure, "trade_off", caption)


def _share_axis(axes: Axes, x: Sequence[float], y: Sequence[float], *, small: bool = False) -> None:
    """A logarithmic axis of GPU time, and one of regret that is linear near 0 where regrets differ by orders of magnitude."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, SymmetricalLogLocator

    left, right, top = min(x), max(x), max(y)
    axes.set_xscale("log")
    axes.set_xlim(left / 1.25, right * 1.25)
    wide = right / left > (8 if small else 300)
    subs = (1.0, 3.0) if wide else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=30))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if top > 0.5:
        axes.set_yscale("symlog", linthresh=0.1, linscale=0.7)
        axes.yaxis.set_major_locator(
            SymmetricalLogLocator(base=10, linthresh=0.1, subs=[1.0] if small and top > 5 else [1.0, 2.0, 5.0])
        )
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(-0.015, top * 1.3)
    else:
        height = top or 1.0
        axes.set_ylim(-0.05 * height, 1.08 * height)


def _broken(axes: Axes) -> str:
    return "" if axes.get_yscale() == "linear" else " The axis of regret is logarithmic above 0.1 and linear below."


def _sweeps(summary: StoppingSummary) -> Drawing:
    """Each rule under all its settings beside i_epoch."""
    labels = [row.rule for row in summary.rows if _known(summary, row.rule)]
    labels += [label for label in summary.sweeps if label not in labels and _known(summary, label)]
    base = reference(labels, I_EPOCH)
    yardstick = _known(summary, base) if base else []
    panels = [label for label in labels if label != base] or labels
    own = {row.rule: row for row in summary.rows if _drawable(row)}
    figure, axes, columns = _panels(len(panels), ratio=0.85)
    far: tuple[list[float], list[float]] = ([], [])
    for panel, label in zip(axes, panels, strict=True):
        if yardstick and label != base:
            panel.plot(*zip(*yardstick, strict=True), color=INK, linewidth=1.0, linestyle=_DOTTED, alpha=0.8)
        points = _known(summary, label)
        panel.plot(*zip(*points, strict=True), color=PALETTE[0], linewidth=1.3, marker="o", markersize=2.5)
        found = [*points, *yardstick]
        if label in own:
            row = own[label]
            found.append((100 * row.share.value, row.regret.value))
            panel.scatter(*found[-1], s=34, color=PALETTE[1], marker="D", edgecolor=PAPER, linewidth=0.6, zorder=3)
        for kept, values in zip(far, zip(*found, strict=True), strict=True):
            kept.extend(values)
        _title(panel, label, columns)
    _share_axis(axes[0], *far, small=columns > 2)
    for panel in axes[1:]:
        _share_axis(panel, *far, small=columns > 2)
    figure.supxlabel("GPU time (% of training everything in full)", fontsize=10)
    figure.supylabel("mean regret (points of accuracy)", fontsize=10)
    caption = (
        "Mean regret against GPU time of each rule under all its settings: the probability at or below which it stops"
        f"{', or the epochs that all are trained (i_epoch)' if panels == [base] else ''}. Orange diamond: its own setting."
    )
    if yardstick and panels != [base]:
        caption += (
            f" Dotted: {base}, which trains everything for a few epochs and the best in full, under its settings."
        )
    caption += _broken(axes[0])
    return _saved(figure, "sweeps", caption)


# ----------------------------------------------------------------------------------------------------------- ranking


def _spearman(summary: StoppingSummary) -> Drawing:
    """Rank correlation over the observed share of each predictor beside last_value."""
    found = {
        r.rule: [(100 * c.fraction, c.spearman) for c in r.cells.values() if not math.isnan(c.spearman.value)]
        for r in summary.ranking
    }
    found = {label: points for label, points in found.items() if points}
    base = reference(list(found), LAST_VALUE)
    panels = [label for label in found if label != base] or list(found)
    figure, axes, columns = _panels(len(panels), ratio=0.8)
    lowest = min(e.value for points in found.values() for _, e in points)
    banded = False
    for panel, label in zip(axes, panels, strict=True):
        if base is not None and label != base:
            panel.plot([x for x, _ in found[base]], [e.value for _, e in found[base]], color=INK, linestyle=_DOTTED)
        points = found[label]
        x = [at for at, _ in points]
        panel.plot(x, [e.value for _, e in points], color=PALETTE[0], linewidth=1.3, marker="o", markersize=2.5)
        if all(e.has_interval for _, e in points) and len(points) > 1:
            low, high = [e.low for _, e in points], [min(1.0, e.high) for _, e in points]
            panel.fill_between(x, low, high, color=PALETTE[0], alpha=0.18, linewidth=0)
            banded = True
        _title(panel, label, columns)
    axes[0].set_ylim(max(-1.03, min(lowest - 0.05, 0.95)), 1.02)
    axes[0].set_xlim(left=0)
    figure.supxlabel("observed share of the training (%)", fontsize=10)
    figure.supylabel("Spearman rho", fontsize=10)
    caption = (
        "Rank correlation of what is predicted from the first epochs with the final accuracy, mean over folds, against the share"
        " of the training that was observed. Higher is better."
    )
    if banded:
        caption += " Bands: 95 % Student intervals over folds."
    if base is not None and panels != [base]:
        caption += f" Dotted: {base}, which a predictor has to beat."
    return _saved(figure, "spearman", caption)


# --------------------------------------------------------------------------------------------------------- decisions


def _reliability(study: StoppingStudy) -> Drawing:
    """Reliability diagrams: how often it happened against how probable it was said to be."""
    found = {label: diagram for label, diagram in study.reliability.items() if diagram.count.sum() > 0}
    figure, axes, columns = _panels(len(found), ratio=1.0)
    for panel, (label, diagram) in zip(axes, found.items(), strict=True):
        panel.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=_DOTTED)
        filled = (diagram.count > 0) & ~np.isnan(diagram.p_mean) & ~np.isnan(diagram.frequency)
        judged = filled & (diagram.count >= FEW_IN_BIN)
        panel.plot(diagram.p_mean[judged], diagram.frequency[judged], color=PALETTE[0], linewidth=1.2)
        share = diagram.count / diagram.count.sum()
        for which, colour in ((judged, PALETTE[0]), (filled & ~judged, PALETTE[6])):
            panel.scatter(
                diagram.p_mean[which],
                diagram.frequency[which],
                s=10 + 110 * share[which],
                color=colour,
                alpha=0.75,
                linewidth=0,
                zorder=3,
            )
        _title(panel, label, columns)
    axes[0].set_xlim(-0.04, 1.04)
    axes[0].set_ylim(-0.04, 1.04)
    axes[0].set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    axes[0].set_yticks((0, 0.5, 1), ("0", "0.5", "1"))
    figure.supxlabel("probability of ending above the incumbent", fontsize=10)
    figure.supylabel("share that did", fontsize=10)
    caption = (
        "Reliability of the probabilities that the predictors give at all check points, in ten bins: a dot is as large as the"
        " share of the probabilities in its bin. On the dotted line what is said is what happens; above it good trainings are"
        f" stopped that should not be. Grey: bins with fewer than {FEW_IN_BIN} probabilities."
    )
    return _saved(figure, "reliability", caption)
