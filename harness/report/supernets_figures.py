"""The figures of a study of supernets, as PNG and SVG bytes; how they are made deterministic is in `figures`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import _WIDTH, DASHES, LINES, MARKERS, PALETTE, Drawing, _figure, _saved, _style, _styles, _wrapped
from .summary import Floats
from .supernets import pooled_tau

if TYPE_CHECKING:
    from ..supernets import Mode, SupernetRun, SupernetStudy

_SEEDS = " Thick: mean over the seeds; thin: the seeds."
_PANELS = 3  # side by side


def draw_supernets(study: SupernetStudy) -> list[Drawing]:
    """Rank correlations, weights, skip connections, regret, discretisation and eigenvalues over the training.

    A figure that would show nothing is left out.
    """
    with _style():
        drawings = [_taus(study), _scatter(study), _regret(study), _skips(study)]
        if any(run.weights for run in study.runs):
            drawings.insert(2, _weights(study))
        if any(np.isfinite(run.series["mixture_accuracy"]).any() for run in study.runs):
            drawings.append(_drop(study))
        if any(np.isfinite(run.eigenvalues).any() for run in study.runs):
            drawings.append(_eigenvalues(study))
    return drawings


def _legend(figure: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    columns = min(2, len(labels))
    wrapped = [_wrapped(label, 36 if columns == 2 else 76) for label in labels]
    if handles:
        # Numbers first: a legend leaves out labels that begin with an underscore.
        made = figure.legend(
            handles, list(map(str, range(len(labels)))), loc="outside upper left", ncols=columns, frameon=False
        )
        for text, label in zip(made.get_texts(), wrapped, strict=True):
            text.set_text(label)


def _mean(rows: Sequence[Floats]) -> Floats:
    """Mean over runs up to the end of the shortest."""
    length = min(map(len, rows))
    result: Floats = np.mean([row[:length] for row in rows], axis=0)
    return result


def _lines(
    study: SupernetStudy,
    x: Callable[[SupernetRun], Floats],
    y: Callable[[SupernetRun], Floats],
    name: str,
    labels: tuple[str, str],
    caption: str,
    *,
    marks: bool = False,
    log: bool = False,
) -> Drawing:
    """A line per method, its seeds thin."""
    looks = _styles(study.methods)
    figure, axes = _figure(4.0 + 0.21 * -(-len(study.methods) // 2))
    handles, drawn = [], []
    for method in study.methods:
        runs = [run for run in study.runs_of(method) if np.isfinite(y(run)).any()]
        if not runs:
            continue
        colour, dash, marker = looks[method]
        if len(runs) > 1:
            for run in runs:
                axes.plot(x(run), y(run), color=colour, linewidth=0.7, alpha=0.45)
        xs, ys = _mean([x(run) for run in runs]), _mean([y(run) for run in runs])
        single = marker if marks or len(xs) == 1 else None
        handles += axes.plot(xs, ys, color=colour, linestyle=dash, linewidth=1.9, marker=single, markersize=4)
        drawn.append(method)
    _legend(figure, handles, drawn)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    if log:
        axes.set_yscale("log")
    axes.grid(True, color=LINES, linewidth=0.7)
    axes.set_axisbelow(True)
    return _saved(figure, name, caption + _SEEDS * any(len(study.runs_of(m)) > 1 for m in drawn))


def _taus(study: SupernetStudy) -> Drawing:
    figure, axes = _figure(4.2 + 0.21 * len(study.methods))
    colours = _styles(study.methods)
    looks: tuple[tuple[Mode, Any, str, bool], ...] = (
        ("batch", "-", MARKERS[0], True),
        ("recalibrated", DASHES[1], MARKERS[1], False),
    )
    handles, labels = [], []
    span = max((int(run.points[-1]) for run in study.runs if len(run.points)), default=1)
    for place, method in enumerate(study.methods):
        runs = study.runs_of(method)
        points = min((run.points for run in runs), key=len)
        for which, (mode, dash, marker, filled) in enumerate(looks):
            found = [
                pooled_tau(np.stack([run.inherited[mode][p] for run in runs]), study.accuracy)
                for p in range(len(points))
            ]
            values = np.array([e.value for e in found])
            low = np.array([e.low if e.has_interval else e.value for e in found])
            high = np.array([e.high if e.has_interval else e.value for e in found])
            if not np.isfinite(values).any():
                continue
            colour = colours[method][0]
            # Side by side, so that intervals do not cover each other.
            shift = span * 0.006 * (2 * place + which - len(study.methods) + 0.5)
            handles.append(
                axes.errorbar(
                    points + shift,
                    values,
                    yerr=np.abs(np.stack((values - low, high - values))),
                    color=colour,
                    linestyle=dash,
                    marker=marker,
                    markersize=5,
                    markerfacecolor=colour if filled else "none",
                    linewidth=1.7,
                    elinewidth=1.0,
                    capsize=2.5,
                )
            )
            labels.append(f"{method}, {mode}")
    _legend(figure, handles, labels)
    axes.axhline(0, color=LINES, linewidth=1.0)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"Kendall tau with the {study.split} accuracy")
    axes.grid(True, color=LINES, linewidth=0.7)
    axes.set_axisbelow(True)
    caption = (
        f"Kendall tau between inherited accuracy and the table's {study.split} accuracy over {len(study.archs):,} architectures,"
        " mean over seeds; higher is better, 0 is chance. Lines up and down: 95 % bootstrap intervals over architectures and"
        " seeds. Filled: batch statistics, open: recalibrated. Marks are moved sideways a little to be told apart."
    )
    return _saved(figure, "tau", caption)


def _panels(count: int, height: float) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_PANELS, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(_WIDTH, 0.8 + height * lines), layout="constrained")
    FigureCanvasAgg(figure)
    every = list(figure.subplots(lines, columns, sharex=False, sharey=True, squeeze=False).flat)
    for axes in every[count:]:
        axes.remove()
    for axes in every[:count]:
        axes.grid(True, color=LINES, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
    return figure, every[:count]


def _scatter(study: SupernetStudy) -> Drawing:
    """Inherited against true accuracy after the last epoch, first seed."""
    figure, panels = _panels(len(study.methods), 2.6)
    connected = ~study.disconnected
    for axes, method in zip(panels, study.methods, strict=True):
        run = study.runs_of(method)[0]
        for among, colour in ((connected, PALETTE[0]), (~connected, PALETTE[1])):
            if len(run.points):
                axes.scatter(
                    100 * study.accuracy[among],
                    100 * run.inherited["recalibrated"][-1][among],
                    s=12 if len(study.archs) < 1000 else 4,
                    color=colour,
                    alpha=0.55,
                    linewidth=0,
                    rasterized=True,
                )
        axes.set_title(_wrapped(method, 60 // len(panels[:_PANELS])), fontsize=9)
    figure.supxlabel(f"{study.split} accuracy in the table (%)", fontsize=10)
    figure.supylabel("inherited accuracy (%)", fontsize=10)
    caption = (
        "Inherited accuracy on the held-out images (recalibrated, after the last epoch, first seed) against the accuracy of the"
        " architecture trained alone, a dot for each architecture."
    )
    if study.disconnected.any():
        caption += " Orange: a cell in which nothing leads from the input to the output."
    return _saved(figure, "inherited", caption)


def _weights(study: SupernetStudy) -> Drawing:
    """A panel per method and table of cells, a line per operation."""
    wanted = [
        (method, table)
        for method in study.methods
        if all(run.weights for run in study.runs_of(method))
        for table in study.runs_of(method)[0].weights
    ]
    figure, panels = _panels(len(wanted), 2.5)
    handles: dict[str, Any] = {}
    operations = list(dict.fromkeys(op for run in study.runs for names in run.operations.values() for op in names))
    looks = _styles(operations)
    tables = len({table for _, table in wanted})
    lowest = highest = 0.0
    for axes, (method, table) in zip(panels, wanted, strict=True):
        runs = study.runs_of(method)
        values = _mean([run.weights[table] for run in runs])
        for column, name in enumerate(runs[0].operations[table]):
            colour, dash, marker = looks[name]
            epochs = np.arange(1, len(values) + 1)
            mark = marker if len(values) == 1 else None
            handles[name] = axes.plot(
                epochs, values[:, column], color=colour, linestyle=dash, linewidth=1.6, marker=mark
            )[0]
        title = method if tables == 1 else f"{method}: {table}"
        axes.set_title(_wrapped(title, 60 // len(panels[:_PANELS])), fontsize=9)
        lowest, highest = min(lowest, float(values.min())), max(highest, float(values.max()))
    panels[0].set_ylim(lowest, lowest + 1.06 * max(highest - lowest, 1e-3))  # the panels share it
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper left",
        ncols=min(5, len(handles)),
        frameon=False,
        fontsize=8,
    )
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel("weight, mean over edges", fontsize=10)
    caption = (
        "Weights of the operations after each epoch, mean over the edges of a cell and over seeds: what decides which operations"
        " are proposed. Methods without such weights are left out."
    )
    return _saved(figure, "weights", caption)


def _epochs(run: SupernetRun) -> Floats:
    return run.series["epoch"]


def _regret(study: SupernetStudy) -> Drawing:
    return _lines(
        study,
        lambda run: run.series["seconds"],
        lambda run: 100 * study.regret(run),
        "regret",
        ("GPU time of the search (s)", f"{study.split} regret (percentage points)"),
        f"Regret of the architecture that the search would return, on the {study.split} set, over its own measured seconds; lower"
        " is better. What was measured on the way is not counted.",
    )


def _skips(study: SupernetStudy) -> Drawing:
    return _lines(
        study,
        _epochs,
        lambda run: 100 * run.series["skip_share"],
        "skips",
        ("epoch", "skip connections (% of the edges)"),
        "Share of skip connections among the edges of the architecture that the search would return.",
    )


def _drop(study: SupernetStudy) -> Drawing:
    return _lines(
        study,
        _epochs,
        lambda run: 100 * (run.series["mixture_accuracy"] - run.series["network_accuracy"]),
        "drop",
        ("epoch", "mixture less proposal (points)"),
        "Held-out accuracy of the mixture of operations less that of the architecture that would be returned, both with the"
        " supernet's weights and batch statistics: what is lost at the discretisation.",
    )


def _eigenvalues(study: SupernetStudy) -> Drawing:
    found = [value for run in study.runs for value in run.eigenvalues.tolist() if not math.isnan(value)]
    positive = min(found) > 0 and max(found) / min(found) > 20
    return _lines(
        study,
        lambda run: run.points.astype(np.float64),
        lambda run: run.eigenvalues,
        "eigenvalues",
        ("epoch", "dominant eigenvalue"),
        "Dominant eigenvalue of the Hessian of the held-out loss by the architecture parameters, on one held-out batch."
        + " The axis is logarithmic." * positive,
        marks=True,
        log=positive,
    )
