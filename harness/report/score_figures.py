"""The figures of a proxy study, as PNG and SVG bytes; how they are made deterministic is in `figures`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import metrics
from .figures import _WIDTH, INK, LINES, PALETTE, PAPER, Drawing, _figure, _saved, _style, _wrapped
from .scores import CHANCE, PARAMS, ScoreRow, Scores, ScoreSummary, base_name
from .summary import BOOTSTRAP_SEED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COUNTS = (PARAMS, "flops", "live_params", CHANCE)
"""What does not compute anything with the network: drawn in grey."""
MOST_POINTS = 5000
"""Architectures in a panel of the scatter plot; a fixed sample of more."""

_KINDS = (("proxies", PALETTE[0]), ("counts and chance", PALETTE[6]), ("combinations", PALETTE[1]))
_PANELS = 4  # side by side
_DARK, _PALE = "#1a1a1a", "#fafafa"  # on coloured cells: not the colours of the page, which changes them
_EMPTY = "#bbbbbb"


def draw_scores(scores: Scores, summary: ScoreSummary) -> list[Drawing]:
    """The correlations with the accuracy, every score against it, the proxies against each other and against their cost.

    A figure that would show nothing is left out: correlations of fewer than two proxies, costs that were not measured.
    """
    with _style():
        drawings = [_taus(summary), _scatter(scores, summary)]
        if not np.isnan(summary.correlations[~np.eye(len(summary.labels), dtype=bool)]).all():
            drawings.append(_matrix(summary))
        costs = [row.seconds for row in summary.proxies if not math.isnan(row.tau.value)]
        if len(costs) > 1 and max(costs) > 0:
            drawings.append(_trade_off(summary))
    return drawings


def _kind(row: ScoreRow) -> int:
    return 2 if row.combined else 1 if base_name(row.proxy) in COUNTS else 0


def _taus(summary: ScoreSummary) -> Drawing:
    rows = summary.rows
    labels = [_wrapped(row.proxy, 30) for row in rows]
    heights = [0.25 + 0.16 * label.count("\n") for label in labels]
    figure, axes = _figure(1.3 + sum(heights))
    handles: dict[int, Any] = {}
    places = (np.cumsum(heights) - np.array(heights) / 2) / 0.25 if rows else np.zeros(0)
    for place, row in zip(places.tolist(), rows, strict=True):
        if math.isnan(row.tau.value):
            axes.text(0, place, " not defined", va="center", fontsize=8)
            continue
        kind = _kind(row)
        bar = axes.barh(place, row.tau.value, height=0.62, color=_KINDS[kind][1], alpha=0.85, linewidth=0)
        handles.setdefault(kind, bar)
        if row.tau.has_interval:
            axes.hlines(place, row.tau.low, row.tau.high, color=INK, linewidth=1.3)
            axes.vlines((row.tau.low, row.tau.high), place - 0.17, place + 0.17, color=INK, linewidth=1.3)
    if len(handles) > 1:
        kinds = sorted(handles)
        figure.legend(
            [handles[kind] for kind in kinds],
            [_KINDS[kind][0] for kind in kinds],
            loc="outside upper right",
            ncols=3,
            frameon=False,
            fontsize=9,
        )
    params = next((row for row in summary.proxies if base_name(row.proxy) == PARAMS), None)
    if params is not None and len(rows) > 1 and not math.isnan(params.tau.value):
        axes.axvline(params.tau.value, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=0)
    else:
        params = None
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(places, labels)
    axes.set_ylim((places[-1] if rows else 1) + 0.6, 0 if rows else -1)
    axes.tick_params(axis="y", length=0, labelsize=9)
    low, high = axes.get_xlim()
    if not handles:
        low, high = 0, 1
    axes.set_xlim(max(-1.02, min(low, -0.02)), min(1.02, high))
    axes.set_xlabel(f"Kendall tau with the {summary.split} accuracy")
    axes.grid(True, axis="x", color=LINES, linewidth=0.7)
    axes.set_axisbelow(True)
    caption = (
        f"Kendall tau between score and {summary.split} accuracy over {summary.n:,} architecture{'' if summary.n == 1 else 's'};"
        " higher is better, 0 is chance."
    )
    if any(row.tau.has_interval for row in rows):
        caption += (
            " The lines are 95 % bootstrap intervals; whether two proxies differ is a matter of their difference (see What can"
            " be said), not of whether their intervals overlap."
        )
    if params is not None:
        caption += " Dotted: the number of parameters."
    return _saved(figure, "tau", caption)


def _scatter(scores: Scores, summary: ScoreSummary) -> Drawing:
    """Every score against the accuracy, a panel each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = ~np.isnan(scores.accuracy)
    accuracy = 100 * scores.accuracy[known]
    n = len(accuracy)
    drawn = np.arange(n)
    if n > MOST_POINTS:
        drawn = np.sort(np.random.default_rng(BOOTSTRAP_SEED).choice(n, MOST_POINTS, replace=False))
    floor, clipped = -math.inf, False
    if n >= 100:
        low, high = np.quantile(accuracy, 0.05), accuracy.max()
        floor = low - 0.4 * (high - low)
        clipped = high - low > 0 and accuracy.min() < floor
    if clipped:  # a few failures would squeeze all others into a line
        accuracy = np.maximum(accuracy, floor)
    labels = summary.labels
    columns = min(_PANELS, len(labels)) or 1
    lines = -(-len(labels) // columns) or 1
    side = _WIDTH / columns
    figure = Figure(figsize=(_WIDTH, 0.75 + lines * (min(side * 0.8, 3.6) + 0.3)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    small = columns > 2
    size = 30 if n <= 50 else 12 if n <= 500 else 4
    for place, label in enumerate(labels):
        axes = panels[place // columns, place % columns]
        values = scores.values[label][known]
        shares = 100 * (metrics.mean_ranks(values) - 0.5) / max(1, n)
        scorable = np.isfinite(values)[drawn]
        for which, colour in ((scorable, PALETTE[0]), (~scorable, PALETTE[1])):
            axes.scatter(
                shares[drawn][which],
                accuracy[drawn][which],
                s=size,
                color=colour,
                alpha=0.75 if n <= 50 else 0.5 if n <= 500 else 0.3,
                linewidth=0,
                rasterized=True,  # tens of thousands of points would make the page slow
            )
        tau = next(row.tau.value for row in summary.rows if row.proxy == label)
        title = _wrapped(label, 22 if small else 60)
        if not math.isnan(tau):
            title += f"\ntau {tau:.2f}" if small else f", tau {tau:.2f}"
        axes.set_title(title, fontsize=8 if small else 10)
    for place, axes in enumerate(panels.flat):
        if place >= len(labels):
            axes.remove()
            continue
        axes.set_xlim(-3, 103)
        axes.set_xticks((0, 50, 100))
        axes.grid(True, color=LINES, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8, labelbottom=place + columns >= len(labels))
    figure.supxlabel("place by score (0: lowest, 100: highest)", fontsize=10)
    figure.supylabel(f"{summary.split} accuracy (%)", fontsize=10)
    caption = (
        f"{summary.split.capitalize()} accuracy against the score, a dot for each architecture. The horizontal axis is the place"
        " of the score among all, from the lowest to the highest, and not its value, because many scores spread over orders of"
        " magnitude; equal scores share a place."
    )
    if any(row.unscorable for row in summary.proxies):
        caption += " Orange: could not be scored."
    if clipped:
        caption += f" Accuracies below {floor:.1f} % are drawn at the lower edge."
    if n > MOST_POINTS:
        caption += f" {MOST_POINTS:,} of {n:,} architectures are drawn, the same in every panel."
    return _saved(figure, "scores", caption)


def _matrix(summary: ScoreSummary) -> Drawing:
    """Kendall's tau of every two proxies."""
    from matplotlib.colors import LinearSegmentedColormap

    k = len(summary.labels)
    labels = [_wrapped(label, 22) for label in summary.labels]
    figure, axes = _figure(1.6 + min(5.6, 0.9 + 0.3 * k))
    # Through grey-white and not white, which the page would put its background in place of.
    colours = LinearSegmentedColormap.from_list("tau", ("#b2540a", "#eebf91", "#f5f5f5", "#8fbfe0", "#00568a"))
    axes.set_facecolor(_EMPTY)
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(summary.correlations), cmap=colours, vmin=-1, vmax=1, edgecolors="face", linewidth=0.2
    )
    if k <= 30:
        for i, j in np.ndindex(k, k):
            value = summary.correlations[i, j]
            if math.isnan(value):
                continue
            text = f"{value:.2f}".replace("0.", ".").replace("-.00", ".00")
            axes.text(
                j + 0.5,
                i + 0.5,
                text,
                ha="center",
                va="center",
                fontsize=9 if k <= 8 else 7 if k <= 16 else 5.5,
                color=_PALE if abs(value) > 0.75 else _DARK,
            )
    size = 9 if k <= 12 else 8 if k <= 24 else 6
    axes.set_xticks(np.arange(k) + 0.5, labels, rotation=90, fontsize=size)
    axes.set_yticks(np.arange(k) + 0.5, labels, fontsize=size)
    axes.tick_params(length=0)
    axes.set_ylim(k, 0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(mesh, ax=axes, shrink=0.8, pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    assert bar.solids is not None
    bar.solids.set(rasterized=False, edgecolor="face", linewidth=0.2)  # the page brightens pictures in dark mode
    bar.set_label("Kendall tau")
    caption = (
        "Kendall tau of the proxies with each other, in the order of their tau with the accuracy. Proxies that agree say the same"
        " thing twice; those that agree little and are both good are worth combining. Grey: not defined."
    )
    if summary.correlated < summary.n:
        caption += f" From a fixed sample of {summary.correlated:,} of {summary.n:,} architectures."
    return _saved(figure, "correlations", caption)


def _trade_off(summary: ScoreSummary) -> Drawing:
    """Correlation against seconds, the fastest of each quality joined."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    rows = [row for row in summary.proxies if not math.isnan(row.tau.value) and not math.isnan(row.seconds)]
    measured = [row.seconds for row in rows if row.seconds > 0]
    free = min(measured) / 4  # where 0 is drawn: a logarithmic axis has none
    figure, axes = _figure(4.6)
    x = [max(row.seconds, free) for row in rows]
    y = [row.tau.value for row in rows]
    front = metrics.pareto_front([row.seconds for row in rows], y)
    if len(front) > 1:
        xs, ys = np.array(x)[front], np.array(y)[front]
        axes.step(xs, ys, where="post", color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)), alpha=0.6, zorder=1)
    for row, seconds in zip(rows, x, strict=True):
        axes.scatter(
            [seconds], [row.tau.value], s=30, color=_KINDS[_kind(row)][1], edgecolor=PAPER, linewidth=0.6, zorder=3
        )
    axes.set_xscale("log")
    left, right = min(x), max(x)
    axes.set_xlim(left / 1.6, right * max(1.6, (right / left) ** 0.22))
    span = max(y) - min(y) or 0.2
    axes.set_ylim(min(y) - 0.1 * span, max(y) + 0.1 * span)
    # 0.1, 1, 10 and not powers of ten.
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if right / left > 100 else (1.0, 2.0, 5.0), numticks=30))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds per network, as if the proxy were computed alone")
    axes.set_ylabel(f"Kendall tau with the {summary.split} accuracy")
    axes.grid(True, color=LINES, linewidth=0.7)
    axes.set_axisbelow(True)
    _name(figure, axes, x, y, [row.proxy for row in rows])
    caption = (
        "What a score costs and what it is worth: mean seconds per network, on a logarithmic axis, against tau. Further left and"
        " higher is better; the dotted line joins the proxies that no other beats in both."
    )
    if any(row.seconds <= 0 for row in rows):
        caption += " At the left edge: looked up, 0 seconds."
    return _saved(figure, "trade_off", caption)


def _name(figure: Figure, axes: Axes, x: Sequence[float], y: Sequence[float], labels: Sequence[str]) -> None:
    """Write a label beside each point where it covers no other label and no point; with a thin line where it is away."""
    figure.draw_without_rendering()  # the layout decides where points are
    points = axes.transData.transform(np.column_stack((x, y)))
    scale = figure.dpi / 72
    box = axes.get_window_extent()
    height, dot = 9.5 * scale, 3.5 * scale
    taken = [(px - dot, py - dot, px + dot, py + dot) for px, py in points]
    for i in np.lexsort((points[:, 0], -points[:, 1])):
        px, py = points[i]
        text = labels[i] if len(labels[i]) <= 34 else f"{labels[i][:33]}\N{HORIZONTAL ELLIPSIS}"
        width = 5.0 * scale * len(text)
        best: tuple[float, float, float, float, float] | None = None
        for reach in (6.0, 14.0, 24.0, 36.0, 50.0, 66.0):
            for angle in (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200):
                dx, dy = reach * scale * math.cos(math.radians(angle)), reach * scale * math.sin(math.radians(angle))
                toward = math.cos(math.radians(angle))
                left = px + dx - (0 if toward > 0.3 else width if toward < -0.3 else width / 2)
                bottom = py + dy - height / 2
                rectangle = (left, bottom, left + width, bottom + height)
                outside = left < box.x0 or rectangle[2] > box.x1 or bottom < box.y0 or rectangle[3] > box.y1
                covered = sum(_overlap(rectangle, other) for other in taken)
                cost = covered + (1e9 if outside else 0) + 0.01 * reach
                if best is None or cost < best[0]:
                    best = (cost, left, bottom, reach, angle)
            if best is not None and best[0] < 1:
                break
        assert best is not None
        _, left, bottom, reach, _ = best
        taken.append((left, bottom, left + width, bottom + height))
        # As a share of the picture: it is saved with other dots per inch than it was laid out with.
        where = (left - box.x0) / box.width, (bottom + height / 2 - box.y0) / box.height
        paper = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
        axes.text(*where, text, transform=axes.transAxes, fontsize=8, va="center", color=INK, bbox=paper)
        if reach > 6:
            end = min(max(px, left), left + width), bottom + height / 2
            (x0, y0), (x1, y1) = axes.transData.inverted().transform([(px, py), end])
            axes.plot([x0, x1], [y0, y1], color=INK, linewidth=0.4, zorder=2)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Area that two rectangles (left, bottom, right, top) share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
