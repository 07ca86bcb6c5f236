"""Judge regressors from architectures to accuracies: rank correlation against the number of trained architectures.

    study = nh.compare_regressors(["bananas", "gp_bo"], "digits201", sizes=(20, 100), repetitions=10)
    study.frame()                # a row per regressor, repetition and size
    print(study.summary())       # means with 95 % bootstrap intervals over repetitions
    study.figure("tau.svg")

The regressors are those inside the model-based strategies, taken out of their searches: as they are, with the hyper-parameters
that the strategy has. Three baselines are part of every study: a regressor that ranks no better than they do has learned
nothing from its own inductive bias.

    mean             the mean accuracy of the training set, whatever the architecture
    one_hot_ridge    linear regression with ridge on the one-hot encoding
    nearest          the mean accuracy of the nearest trained architectures in Hamming distance

White, Zela, Ru, Liu and Hutter, "How Powerful are Performance Predictors in Neural Architecture Search?", NeurIPS 2021, judge
model-based predictors by rank correlation against training-set size, too. https://arxiv.org/abs/2104.01177

A repetition draws architectures in the order in which random search would meet them, of every class of networks that are the
same only the first. The first `n_test` are tested on, those that follow are trained on: 10 of them, then 20, and so on. So no
network that is tested on was learned from, the training sets of a repetition are nested, and every regressor sees the same
ones. A regressor learns what a search sees, the validation accuracy of one training run, and has to rank the mean final
accuracy over all runs. What training the architectures costs is not counted: all regressors pay the same.

Where a regressor differs from what it is inside its strategy:
    * It learns from the whole training set; `max_points` of bananas and gp_bo is not applied.
    * Failed trainings are left out; inside bananas and gp_bo they count as the worst value seen.
    * What is ranked is the predicted mean: there is no Thompson sampling and no expected improvement.

Nothing here looks at how a strategy explores. A strategy learns from architectures that it chose, a regressor here from random
ones, so the order of strategies in a search may be another one.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..benchmarks.base import Benchmark
from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..benchmarks.workers import one_thread
from . import metrics
from .registry import OptimizerSpec, RegistryError, Spec, _keywords, load, optimizer_spec
from .stopping import _generator

if TYPE_CHECKING:
    import pandas as pd

    from ..optimizers.bananas import Bananas
    from ..optimizers.gp_bo import GPBO, Kernel
    from ..optimizers.nao import NAO
    from ..optimizers.neural_predictor import NeuralPredictor
    from ..optimizers.pnas import PNAS
    from .report.summary import Estimate

Floats: TypeAlias = npt.NDArray[np.float64]
Progress: TypeAlias = Callable[[int, int], None]
Split: TypeAlias = Literal["validation", "test"]

RIDGE = "one_hot_ridge"
DEFAULT = ("mean", RIDGE, "nearest", "bananas", "gp_bo", "neural_predictor", "pnas", "nao")
TOP = 0.1
"""Share of the test architectures that `precision_top` looks at."""
_LISTED = 50_000  # architectures of the largest space that is listed; of a larger one they are sampled
_DRAWS = 200  # per architecture that is wanted, where a space is sampled
_STRENGTHS = (100.0, 10.0, 1.0, 0.1, 0.01, 1e-4, 1e-6)


class Regressor(Protocol):
    """Learns accuracies of architectures. It is made anew for every training set, with the space and a generator."""

    def fit(self, archs: Sequence[Architecture], values: Floats) -> None:
        """Learn from n architectures and their validation accuracies `(n,)`, finite fractions; n is at least 1."""

    def predict(self, archs: Sequence[Architecture]) -> Floats:
        """Predicted accuracies of m architectures, `(m,)`, finite. Only their order is judged."""


# ----------------------------------------------------------------------------------------------------------- baselines


class _Baseline:
    def __init__(self, space: SearchSpace, rng: np.random.Generator) -> None:
        self.space, self.rng = space, rng


class Mean(_Baseline):
    """The mean of the accuracies it learned from, for every architecture."""

    def fit(self, archs: Sequence[Architecture], values: Floats) -> None:  # noqa: ARG002  it looks at no architecture
        self._mean = float(values.mean())

    def predict(self, archs: Sequence[Architecture]) -> Floats:
        return np.full(len(archs), self._mean)


class OneHotRidge(_Baseline):
    """Linear regression on the one-hot encoding with an intercept and a squared penalty on the weights, in closed form.

    With centred encodings X = U S V' and centred accuracies y the weights are V (S^2 + a)^-1 S U' y (Hoerl and Kennard, "Ridge
    regression: biased estimation for nonorthogonal problems", Technometrics 12(1), 1970).

    Args:
        space: of the architectures.
        rng: not used.
        strength: a, the penalty; None for the one of a grid from 1e-6 to 100 with the least squared leave-one-out error on the
            training set, which the diagonal h of the hat matrix gives: the residuals divided by 1 - h (Golub, Heath and Wahba,
            "Generalized cross-validation", Technometrics 21(2), 1979). Of equal errors the stronger penalty.

    Raises:
        ValueError: a strength that is not positive.
    """

    def __init__(self, space: SearchSpace, rng: np.random.Generator, *, strength: float | None = None) -> None:
        if strength is not None and not 0 < strength < math.inf:
            raise ValueError(f"strength must be positive and finite, not {strength!r}")
        super().__init__(space, rng)
        self._given = strength
        self.strength = _STRENGTHS[0] if strength is None else strength

    def fit(self, archs: Sequence[Architecture], values: Floats) -> None:
        x = self.space.one_hot(archs).astype(np.float64)
        self._centre, self._mean = x.mean(axis=0), float(values.mean())
        u, s, v = np.linalg.svd(x - self._centre, full_matrices=False)
        along = u.T @ (values - self._mean)
        if self._given is None and len(values) > 2:  # of two, leaving one out leaves nothing to learn from
            least = math.inf
            for strength in _STRENGTHS:
                shrunk = s * s / (s * s + strength)
                left = 1.0 - 1.0 / len(values) - (u * u) @ shrunk
                errors = (values - self._mean - u @ (shrunk * along)) / np.maximum(left, 1e-12)
                if (error := float((errors * errors).mean())) < least:
                    least, self.strength = error, strength
        self.weights: Floats = v.T @ (s / (s * s + self.strength) * along)

    def predict(self, archs: Sequence[Architecture]) -> Floats:
        return np.asarray((self.space.one_hot(archs) - self._centre) @ self.weights + self._mean)


class Nearest(_Baseline):
    """The mean accuracy of the k nearest architectures in Hamming distance, the number of dimensions that differ.

    All that are as near as the k-th are averaged, so that the order of the training set does not matter: distances are small
    whole numbers, and ties the rule.

    Args:
        space: of the architectures.
        rng: not used.
        k: how many, all where there are fewer; 5 is the default of scikit-learn.

    Raises:
        ValueError: k below 1.
    """

    def __init__(self, space: SearchSpace, rng: np.random.Generator, *, k: int = 5) -> None:
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise ValueError(f"k must be a whole number from 1, not {k!r}")
        super().__init__(space, rng)
        self.k = k

    def fit(self, archs: Sequence[Architecture], values: Floats) -> None:
        self._archs, self._values = np.asarray(archs, dtype=np.int64), values

    def predict(self, archs: Sequence[Architecture]) -> Floats:
        k = min(self.k, len(self._values))
        predicted = np.empty(len(archs))
        for row, arch in enumerate(np.asarray(archs, dtype=np.int64)):
            distance = (self._archs != arch).sum(axis=1)
            predicted[row] = self._values[distance <= np.partition(distance, k - 1)[k - 1]].mean()
        return predicted


# ------------------------------------------------------------------------------- the regressors inside the strategies


class _OfBananas:
    """The mean of the ensemble of feed-forward networks on the truncated path encoding."""

    def __init__(self, optimizer: Bananas) -> None:
        self._optimizer, self._mean, self._std = optimizer, 0.0, 1.0

    def fit(self, archs: Sequence[Architecture], values: Floats) -> None:
        from ..optimizers.gp_bo import standardise

        self._mean, self._std = float(values.mean()), float(values.std())
        self._optimizer.networks.fit(self._encode(archs), standardise(values), self._optimizer.rng)

    def predict(self, archs: Sequence[Architecture]) -> Floats:
        predicted = self._optimizer.networks.predict(self._encode(archs)).mean(axis=0)
        return np.asarray(predicted * self._std + self._mean)

    def _encode(self, archs: Sequence[Architecture]) -> Floats:
        from ..optimizers.encodings import encode

        return encode(self._optimizer.space, archs, self._optimizer.encoding).astype(np.float64)


class _OfGPBO:
    """The mean of the Gaussian process of the logarithm of the error, as an accuracy."""

    def __init__(self, optimizer: GPBO) -> None:
        from ..optimizers.gp_bo import GaussianProcess, HammingKernel, WeisfeilerLehmanKernel

        space = optimizer.space
        kernel: Kernel[Any] = WeisfeilerLehmanKernel(space) if optimizer.kernel == "wl" else HammingKernel(space)
        self._process, self._mean, self._std = GaussianProcess(kernel), 0.0, 1.0

    def fit(self, archs: Sequence[Architecture], values: Floats) -> None:
        from ..optimizers.gp_bo import _SMALLEST_ERROR, standardise

        errors = np.log(np.maximum(1.0 - values, _SMALLEST_ERROR))
        self._mean, self._std = float(errors.mean()), float(errors.std())
        self._process.fit(archs, standardise(errors))

    def predict(self, archs: Sequence[Architecture]) -> Floats:
        return np.asarray(1.0 - np.exp(self._process.predict(archs)[0] * self._std + self._mean))


class _OfNeuralPredictor:
    """The graph convolutional network."""

    def __init__(self, optimizer: NeuralPredictor) -> None:
        from ..optimizers.graphs import graph_encoder

        self._optimizer, self._encode = optimizer, graph_encoder(optimizer.space)

    def fit(self, archs: Sequence[Architecture], values: Floats) -> None:
        import torch

        of = self._optimizer
        of.regressor.fit(
            self._encode(archs),
            values,
            torch.Generator().manual_seed(int(of.rng.integers(1 << 62))),
            epochs=of.epochs,
            batch_size=of.batch_size,
            learning_rate=of.learning_rate,
            weight_decay=of.weight_decay,
        )

    def predict(self, archs: Sequence[Architecture]) -> Floats:
        return self._optimizer.regressor.predict(self._encode(archs))


class _OfPNAS:
    """The mean of the ensemble of multilayer perceptrons."""

    def __init__(self, optimizer: PNAS) -> None:
        self._optimizer = optimizer

    def fit(self, archs: Sequence[Architecture], values: Floats) -> None:
        of = self._optimizer
        of.surrogate.fit(archs, values, of.rng, epochs=of.epochs, learning_rate=of.learning_rate)

    def predict(self, archs: Sequence[Architecture]) -> Floats:
        return self._optimizer.surrogate.predict(archs)


class _OfNAO:
    """The encoder and the predictor, trained together with the decoder."""

    def __init__(self, optimizer: NAO) -> None:
        self._optimizer, self._mean, self._std = optimizer, 0.0, 1.0

    def fit(self, archs: Sequence[Architecture], values: Floats) -> None:
        import torch

        from ..optimizers.nao import AutoEncoder

        of = self._optimizer
        self._mean, self._std = float(values.mean()), float(values.std()) or 1.0
        generator = torch.Generator().manual_seed(int(of.rng.integers(1 << 62)))
        self._model = AutoEncoder(of.space.cardinalities, embedding=of.embedding, hidden=of.hidden, generator=generator)
        self._model.fit(
            torch.tensor(list(archs)),
            torch.from_numpy((values - self._mean) / self._std),
            generator,
            epochs=of.epochs,
            batch_size=of.batch_size,
            learning_rate=of.learning_rate,
            trade_off=of.trade_off,
        )

    def predict(self, archs: Sequence[Architecture]) -> Floats:
        import torch

        with torch.no_grad():
            predicted = self._model.predict(self._model.encode(torch.tensor(list(archs))))
        return np.asarray(predicted.numpy() * self._std + self._mean)


_BASELINES: Mapping[str, type] = {"mean": Mean, RIDGE: OneHotRidge, "nearest": Nearest}
_INSIDE: Mapping[str, Callable[[Any], Regressor]] = {
    "bananas": _OfBananas,
    "gp_bo": _OfGPBO,
    "neural_predictor": _OfNeuralPredictor,
    "pnas": _OfPNAS,
    "nao": _OfNAO,
}


@dataclass(frozen=True)
class RegressorSpec(Spec):
    """A regressor with its hyper-parameters, before it meets a space and a generator.

    Attributes:
        inside: the strategy that the regressor is taken from; None for one that stands by itself.
    """

    inside: OptimizerSpec | None = None

    def make(self, space: SearchSpace, rng: np.random.Generator) -> Regressor:
        """A fresh regressor."""
        if self.inside is None:
            made: Regressor = self.factory(space, rng, **self._fresh())
            return made
        return _INSIDE[_base(self.label)](self.inside.make(space, rng))


def _base(label: str) -> str:
    return re.split(r"[@(+]", label)[0].strip()


def regressor_spec(given: str | type | RegressorSpec) -> RegressorSpec:
    """Read the id of a regressor, such as "nearest(k=3)", "gp_bo@nas_bowl" or "bananas(layers=3)", or wrap a class.

    A class is called with the space and a generator, and has the methods of `Regressor`.

    Raises:
        RegistryError: an unknown id, a strategy without a regressor, or parameters that it does not take.
    """
    if isinstance(given, RegressorSpec):
        return given
    if not isinstance(given, str):
        missing = [name for name in ("fit", "predict") if not callable(getattr(given, name, None))]
        if missing or not isinstance(given, type):
            raise RegistryError(f"{given!r} is no class with the methods fit and predict")
        label = next((name for name, baseline in _BASELINES.items() if baseline is given), given.__name__)
        return RegressorSpec(label, given, {})
    name = _base(given)
    if name in _INSIDE:
        spec = optimizer_spec(given)
        if spec.stop is not None:
            raise RegistryError(f"{spec.label}: a stopping rule is of no use to a regressor")
        return RegressorSpec(spec.label, spec.factory, spec.parameters, spec)
    if name not in _BASELINES:
        raise RegistryError(f"unknown regressor {name!r}; known: {', '.join([*_BASELINES, *_INSIDE])}")
    match = re.fullmatch(r"\w+\s*(?:\((?P<parameters>.*)\))?", given.strip(), re.DOTALL)
    if match is None:
        raise RegistryError(f"cannot read the regressor {given!r}: write name or name(parameter=value)")
    parameters = _keywords(match["parameters"], name) if match["parameters"] else {}
    spec_of = RegressorSpec(name, _BASELINES[name], parameters)
    if wrong := [
        parameter for parameter in parameters if not spec_of.takes(parameter) or parameter in ("space", "rng")
    ]:
        raise RegistryError(f"{name} has no hyper-parameter {', '.join(wrong)}")
    if parameters:
        words = ", ".join(f"{key}={value!r}" for key, value in sorted(parameters.items()))
        spec_of = dataclasses.replace(spec_of, label=f"{name}({words})")
    return spec_of


# ------------------------------------------------------------------------------------------------------------- results


@dataclass(frozen=True)
class Fit:
    """One regressor on one training set.

    Attributes:
        regressor: label.
        repetition: number.
        n_train: architectures that were trained; those whose training failed count, but nothing is learned from them.
        tau, spearman: Kendall's tau-b and Spearman's rho of predictions and final accuracies of the test architectures; 0 where
            all predictions are the same, which is no ranking, and NaN where the accuracies are.
        precision_top: share of the tenth with the best predictions that is among the truly best tenth; with tied predictions
            its expectation. Chance gives about 0.1.
        fit_seconds, predict_seconds: measured on this machine.
    """

    regressor: str
    repetition: int
    n_train: int
    tau: float
    spearman: float
    precision_top: float
    fit_seconds: float = field(compare=False)  # no two runs measure the same
    predict_seconds: float = field(compare=False)


@dataclass(frozen=True)
class RegressorRow:
    """One regressor at one size of the training set: means over repetitions with 95 % bootstrap intervals.

    Attributes:
        regressor, n_train: see `Fit`.
        repetitions: their number.
        tau, spearman, precision_top: see `Fit`.
        from_ridge: tau less that of one_hot_ridge in the same repetition; None for one_hot_ridge itself.
        fit_seconds, predict_seconds: means.
    """

    regressor: str
    n_train: int
    repetitions: int
    tau: Estimate
    spearman: Estimate
    precision_top: Estimate
    from_ridge: Estimate | None
    fit_seconds: float
    predict_seconds: float


@dataclass(frozen=True)
class RegressorSummary:
    """The table of a study; `str` of it is plain text.

    Attributes:
        rows: by size, then in the order of the regressors.
        caption: what was measured, in words.
    """

    rows: tuple[RegressorRow, ...]
    caption: str

    def __str__(self) -> str:
        head = ("size", "regressor", "Kendall tau", f"less {RIDGE}", "Spearman rho", "precision top 10 %", "fit (s)")
        lines = [
            (
                str(row.n_train),
                row.regressor,
                row.tau.text(),
                "" if row.from_ridge is None else row.from_ridge.text(),
                row.spearman.text(),
                row.precision_top.text(),
                f"{row.fit_seconds:.3f}",
            )
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
        texts = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in [head, *lines]]
        return "\n".join([self.caption, "", *texts])


@dataclass(frozen=True, eq=False)
class RegressorStudy:
    """What `compare_regressors` found.

    Attributes:
        name: of the benchmark.
        regressors: labels, the baselines first, less those that failed.
        sizes: of the training sets, ascending.
        fits: by repetition, regressor and size.
        errors: label -> what went wrong.
        specification: everything that was asked for.
    """

    name: str
    regressors: tuple[str, ...]
    sizes: tuple[int, ...]
    fits: tuple[Fit, ...]
    errors: Mapping[str, str]
    specification: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<RegressorStudy of {', '.join(self.regressors)} on {self.name}>"

    def frame(self) -> pd.DataFrame:
        """A pandas DataFrame with a row per `Fit` and a column per attribute."""
        import pandas as pd

        names = [f.name for f in dataclasses.fields(Fit)]
        return pd.DataFrame([[getattr(fit, name) for name in names] for fit in self.fits], columns=names)

    def summary(self) -> RegressorSummary:
        """Means over repetitions, with 95 % percentile bootstrap intervals over them.

        Repetitions share the benchmark, so the intervals say nothing about another one; of few repetitions they are too narrow
        (see `metrics.bootstrap_interval`).
        """
        from .report.summary import estimated

        values: dict[tuple[str, int], list[Fit]] = {}
        for fit in self.fits:
            values.setdefault((fit.regressor, fit.n_train), []).append(fit)

        def column(label: str, size: int, name: str) -> Floats:
            return np.array([getattr(fit, name) for fit in values[label, size]], dtype=np.float64)

        rows = []
        for size in self.sizes:
            for label in self.regressors:
                tau = column(label, size, "tau")
                paired = label != RIDGE and (RIDGE, size) in values
                rows.append(
                    RegressorRow(
                        label,
                        size,
                        len(tau),
                        estimated(tau, np.mean),
                        estimated(column(label, size, "spearman"), np.mean),
                        estimated(column(label, size, "precision_top"), np.mean),
                        estimated(tau - column(RIDGE, size, "tau"), np.mean) if paired else None,
                        float(column(label, size, "fit_seconds").mean()),
                        float(column(label, size, "predict_seconds").mean()),
                    )
                )
        return RegressorSummary(tuple(rows), self._caption())

    def figure(self, path: str | os.PathLike[str]) -> Path:
        """Draw tau against the size of the training set, a line per regressor with its band; returns the path.

        Raises:
            ValueError: the path ends neither in `.png` nor in `.svg`.
        """
        path = Path(path)
        if path.suffix not in (".png", ".svg"):
            raise ValueError(f"a figure is written as .png or .svg, not as {path.name!r}")
        drawing = _draw(self)
        path.write_bytes(drawing.png if path.suffix == ".png" else drawing.svg)
        return path

    def _caption(self) -> str:
        n, split = self.specification["n_test"], self.specification["split"]
        repetitions = self.specification["repetitions"]
        over = (
            f"mean over {repetitions} repetitions with 95 % bootstrap intervals"
            if repetitions > 1
            else "one repetition"
        )
        return (
            f"Rank correlation of predicted and mean final {split} accuracy over {n:,} architectures of {self.name} that were not"
            f" learned from, against the number of architectures that were; {over}. Higher is better, 0 is chance."
        )


def _draw(study: RegressorStudy) -> Any:
    from matplotlib.ticker import NullLocator

    from .report.figures import LINES, _figure, _saved, _style, _styles, _wrapped

    summary = study.summary()
    with _style():
        columns = min(3, len(study.regressors)) or 1
        labels = [_wrapped(label, 26) for label in study.regressors]
        figure, axes = _figure(4.4 + 0.21 * sum(label.count("\n") + 1 for label in labels) / columns)
        handles: list[Any] = []
        for label, (colour, dash, marker) in _styles(study.regressors).items():
            rows = [row for row in summary.rows if row.regressor == label]
            sizes = [row.n_train for row in rows]
            low, high = [row.tau.low for row in rows], [row.tau.high for row in rows]
            axes.fill_between(sizes, low, high, color=colour, alpha=0.16, linewidth=0)
            handles += axes.plot(
                sizes,
                [row.tau.value for row in rows],
                color=colour,
                linestyle=dash,
                marker=marker,
                markersize=4,
                linewidth=1.6,
            )
        axes.set_xscale("log")
        axes.set_xticks(study.sizes, [f"{size:,}" for size in study.sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("architectures in the training set")
        axes.set_ylabel(f"Kendall tau with the {study.specification['split']} accuracy")
        axes.grid(True, color=LINES, linewidth=0.7)
        axes.set_axisbelow(True)
        # Numbers first: a legend leaves out labels that begin with an underscore.
        legend = figure.legend(
            handles, list(map(str, range(len(labels)))), loc="outside upper left", ncols=columns, frameon=False
        )
        for text, label in zip(legend.get_texts(), labels, strict=True):
            text.set_text(label)
        return _saved(figure, "regressors", study._caption())


# --------------------------------------------------------------------------------------------------------------- study


def compare_regressors(
    regressors: str | type | RegressorSpec | Iterable[str | type | RegressorSpec] = DEFAULT,
    benchmark: str | Benchmark = "digits201",
    *,
    sizes: Sequence[int] = (10, 20, 50, 100, 200, 400),
    repetitions: int = 10,
    n_test: int = 1000,
    split: Split = "validation",
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> RegressorStudy:
    """Judge regressors from architectures to accuracies; see the head of this file.

    Args:
        regressors: ids, such as "bananas" or "nearest(k=3)", or classes (see `regressor_spec`). The baselines "mean",
            "one_hot_ridge" and "nearest" are always there.
        benchmark: an id or an opened benchmark.
        sizes: of the training sets.
        repetitions: how often test and training sets are drawn.
        n_test: architectures that are tested on in each repetition.
        split: of the mean final accuracy that is to be ranked. A regressor learns validation accuracies in any case.
        seed: of the sets, of the training runs and of the regressors' own chance. A row depends on the seed, its repetition,
            its size and its label, and not on what else is in the study.
        progress: called with (fits done, fits in all).

    Raises:
        RegistryError: an unknown id, or a regressor named twice.
        ValueError: numbers out of range, a space with too few classes, or a benchmark without accuracies of the split.
    """
    numbers = {"repetitions": (repetitions, 1), "n_test": (n_test, 2), "seed": (seed, 0)}
    for name, (number, least) in {**numbers, **{f"size {size!r}": (size, 1) for size in sizes}}.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < least:
            raise ValueError(f"{name} must be a whole number from {least}, not {number!r}")
    if not sizes or len(set(sizes)) < len(sizes):
        raise ValueError(f"sizes must be different numbers, at least one, not {sizes!r}")
    if split not in get_args(Split):
        raise ValueError(f"unknown split {split!r}: choose from {', '.join(get_args(Split))}")
    given = [regressors] if isinstance(regressors, str | type | RegressorSpec) else list(regressors)
    specs: dict[str, RegressorSpec] = {name: regressor_spec(name) for name in _BASELINES}
    named: set[str] = set()
    for spec in map(regressor_spec, given):
        if spec.label in named:
            raise RegistryError(f"{spec.label} is named twice")
        named.add(spec.label)
        specs[spec.label] = spec
    opened = load(benchmark) if isinstance(benchmark, str) else benchmark
    ascending = tuple(sorted(map(int, sizes)))
    listed = _listed(opened.space)
    fits: list[Fit] = []
    errors: dict[str, str] = {}
    done, total = 0, repetitions * len(specs) * len(ascending)
    progress(done, total)
    with one_thread():
        for repetition in range(repetitions):
            task = draw_task(opened, listed, ascending[-1], n_test, split, seed, repetition)
            for label, spec in specs.items():
                for size in ascending:
                    if label not in errors:
                        try:
                            fits.append(_judge(spec, opened.space, task, size, seed, repetition))
                        except Exception as error:  # the others go on
                            errors[label] = f"{type(error).__name__}: {error}"
                    done += 1
                    progress(done, total)
    specification: dict[str, Any] = {
        "benchmark": opened.id,
        "sha256": opened.info.sha256,
        "caution": opened.info.caution,
        "regressors": {label: {**spec.parameters} for label, spec in specs.items()},
        "code": {label: spec.source_sha256() for label, spec in specs.items()},
        "sizes": list(ascending),
        "repetitions": int(repetitions),
        "n_test": int(n_test),
        "split": split,
        "seed": int(seed),
    }
    kept = tuple(label for label in specs if label not in errors)
    fits = [fit for fit in fits if fit.regressor in kept]
    return RegressorStudy(opened.id, kept, ascending, tuple(fits), errors, specification)


@dataclass(frozen=True, eq=False)
class Task:
    """What every regressor meets in a repetition.

    Attributes:
        train: architectures to learn from; a smaller training set is the head of a larger one.
        values: `(n,)`, validation accuracy of one training run of each; NaN where it failed.
        test: architectures to rank, none in a class with one of `train`, with known accuracies.
        target: `(m,)`, mean final accuracy of each.
    """

    train: Sequence[Architecture]
    values: Floats
    test: Sequence[Architecture]
    target: Floats


def draw_task(
    benchmark: Benchmark,
    listed: Sequence[Architecture] | None,
    n_train: int,
    n_test: int,
    split: Split,
    seed: int,
    repetition: int,
) -> Task:
    """Draw the sets of a repetition. `listed` is the whole space, or None for one that has to be sampled.

    Raises:
        ValueError: too few classes, or no accuracies of the split.
    """
    archs = _of_different_classes(benchmark.space, listed, n_test + n_train, _generator(seed, "classes", repetition))
    if len(archs) < n_test + n_train:
        raise ValueError(
            f"{benchmark.space.name}: {n_test} architectures to test and {n_train} to train on were asked for, and"
            f" {len(archs)} different networks found"
        )
    test, train = archs[:n_test], archs[n_test:]
    final = benchmark.final_many(np.array(test))
    target = np.asarray(final.val_accuracy if split == "validation" else final.test_accuracy, dtype=np.float64)
    known = np.isfinite(target)
    if known.sum() < 2:
        raise ValueError(f"{benchmark.id} has no {split} accuracies to rank")
    runs = _generator(seed, "runs", repetition)
    values = np.array([benchmark.query(arch, rng=runs).val_accuracy for arch in train], dtype=np.float64)
    return Task(train, values, [arch for arch, ok in zip(test, known.tolist(), strict=True) if ok], target[known])


def _listed(space: SearchSpace) -> list[Architecture] | None:
    from ..optimizers.drawing import can_enumerate

    return list(space) if can_enumerate(space, _LISTED) else None


def _of_different_classes(
    space: SearchSpace, listed: Sequence[Architecture] | None, n: int, rng: np.random.Generator
) -> list[Architecture]:
    """At most n random architectures, each the first that was met of its class of equal networks.

    The classes are those of `curves.groups`. Those met first are the larger ones more often, as in a random search.
    """
    class_of: Callable[[Architecture], Hashable] = getattr(space, "network_class", space.canonical)
    order: Iterable[Architecture]
    if listed is None:
        order = (space.sample(rng) for _ in range(_DRAWS * n))
    else:
        order = (listed[i] for i in rng.permutation(len(listed)).tolist())
    found: dict[Hashable, Architecture] = {}
    for arch in order:
        found.setdefault(class_of(arch), arch)
        if len(found) == n:
            break
    return list(found.values())


def _judge(spec: RegressorSpec, space: SearchSpace, task: Task, size: int, seed: int, repetition: int) -> Fit:
    """Fit a regressor to the head of the training set and compare its predictions with the target."""
    values = task.values[:size]
    learned = np.flatnonzero(np.isfinite(values))
    predicted, fitted, done = np.zeros(len(task.test)), 0.0, 0.0  # where every training failed, nothing is ranked
    if len(learned):
        regressor = spec.make(space, _generator(seed, "regressor " + spec.label, repetition, size))
        start = time.perf_counter()
        regressor.fit([task.train[i] for i in learned.tolist()], values[learned])
        middle = time.perf_counter()
        predicted = np.asarray(regressor.predict(task.test), dtype=np.float64)
        fitted, done = middle - start, time.perf_counter() - middle
    return Fit(spec.label, repetition, size, *_agreement(predicted, task.target), fitted, done)


def _agreement(predicted: Floats, target: Floats) -> tuple[float, float, float]:
    """Tau, rho and precision; see `Fit`.

    Raises:
        ValueError: predictions of another number or that are not finite.
    """
    if predicted.shape != target.shape or not np.isfinite(predicted).all():
        raise ValueError(f"a regressor must predict {len(target)} finite numbers")
    scores = _levelled(predicted)
    k = max(1, round(TOP * len(target)))
    tau, rho = metrics.kendall_tau(scores, target), metrics.spearman_rho(scores, target)
    if not scores.any() and np.ptp(target) > 0:
        tau = rho = 0.0
    return tau, rho, metrics.precision_at(scores, target, k)


def _levelled(predicted: Floats) -> Floats:
    """The same order without the last digits, 0 where all are the same.

    Architectures that an encoding cannot tell apart are common, and which of them gets the larger last digit is a matter of the
    machine.
    """
    away = predicted - predicted.mean()
    scale = float(np.abs(away).max(initial=0.0))
    if scale <= 1e-12 * max(1e-3, float(np.abs(predicted).max(initial=0.0))):
        return np.zeros_like(predicted)
    return np.asarray(np.round(away / scale, 9) + 0.0)
