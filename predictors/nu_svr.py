"""nu_svr: one support vector regression per check point, from the curve so far to its end.

Baker, Gupta, Raskar and Naik, "Accelerating Neural Architecture Search using Performance Prediction", ICLR workshop track 2018.
https://arxiv.org/abs/1705.10823

    y_T ~ N(f_m(y_1..m, y', y''), sigma_m^2),   y'_t = y_t - y_(t-1),   y''_t = y'_t - y'_(t-1)
    stop if Phi((y_best - f_m) / sigma_m) >= Delta,   Delta = 1 - delta

f_m: nu-SVR with an RBF or a linear kernel, its hyper-parameters by random search with 3-fold cross-validation; sigma_m: standard
deviation of its leave-one-out residuals, the same for every training. Both on the completed trainings only.

Looks at: validation accuracy; with `architecture=True` also at the architecture. Needs: complete trainings of the task, at
least 10 (paper: 100).

Where this file differs from the paper:
    * The architecture is not looked at unless `architecture=True`. The paper adds the numbers of weights and layers, which a
      search space does not know; here it is the one-hot code, each column z-scored on the training curves. Thirty columns of
      unit variance outweigh accuracies in one RBF distance, and in the paper's own ablation (25 % of the curve) such features
      raise R^2 in one of four data sets, lower it in two and hardly change it in the fourth.
    * No training hyper-parameters: a benchmark's trainings share them.
    * The ranges of the random search, which the paper does not give, are C in [1e-3, 10] and gamma in [1e-4, 10],
      log-uniform, and nu in [0.01, 1], uniform. The accuracies are fractions and not scaled further.
    * Random search picks the smallest squared error over all held-out trainings, not the best mean of three R^2, which is
      unstable where a fold has three trainings.
    * The solver stops after 5,000 iterations, for the model that predicts after 100,000.
    * Models are fitted for the check points; for another number of epochs when it is first asked for.
    * No margin below the incumbent, and no incumbent but the best (the paper's variants of the stopping rule).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .base import Curves, CurvesError, Prediction, Predictor

Floats = npt.NDArray[np.float64]

_FOLDS = 3
_TOLERANCE = 1e-4  # of the solver, in accuracy; its default of 1e-3 is a tenth of a point
_ITERATIONS = 5_000  # of the solver; 100 trainings take some hundreds, but a linear kernel can go on for a minute
_FEWEST = 2 * _FOLDS  # usable trainings without which a check point has no model: two in every fold


class _Model(NamedTuple):
    """A fitted regression.

    Attributes:
        svr: scikit-learn's, with a precomputed kernel.
        x: training features `(n, features)`.
        shift, scale: of the features, `(features,)`.
        gamma: of the kernel; NaN of the linear one.
        sigma: standard deviation of the leave-one-out residuals.
    """

    svr: Any
    x: Floats
    shift: Floats
    scale: Floats
    gamma: float
    sigma: float


class NuSVR(Predictor):
    """Support vector regression of the final accuracy on the curve so far and its differences.

    Args:
        rng: for the random search over the regression's hyper-parameters, and for the folds.
        kernel: "rbf" or "linear" (as good or better in the paper's table).
        draws: hyper-parameters tried per check point.
        architecture: look at the architecture, too.

    Presets: `safe` stops at Delta = 0.99 instead of 0.95, which the paper found necessary outside Hyperband; `linear`.

    Raises:
        ValueError: an unknown kernel, or draws below 1.
    """

    delta: ClassVar[float] = 0.05  # as published
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"safe": {"delta": 0.01}, "linear": {"kernel": "linear"}}
    needs_curves: ClassVar[int] = 10
    uses: ClassVar[frozenset[str]] = frozenset({"accuracy", "arch"})

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        kernel: Literal["rbf", "linear"] = "rbf",
        draws: int = 60,
        architecture: bool = False,
    ) -> None:
        super().__init__(rng)
        if kernel not in ("rbf", "linear"):
            raise ValueError(f"kernel must be 'rbf' or 'linear', not {kernel!r}")
        if draws < 1:
            raise ValueError(f"draws must be at least 1, not {draws!r}")
        self.kernel = kernel
        self.draws = draws
        self.architecture = architecture
        self._curves: Curves | None = None
        self._models: dict[int, _Model | None] = {}
        self._seed = 0

    def learn(self, curves: Curves, checks: Sequence[int], meta: Curves | None) -> None:
        """Fit the model of every check point. Trainings that diverged before their end are left out."""
        self._curves = curves
        self._seed = int(
            self.rng.integers(2**63)
        )  # one stream per check point, whatever the order in which they are asked
        self._models = {m: self._fit(curves, m) for m in checks}

    def predict(self, observed: Curves) -> Prediction:
        """A normal distribution with the same standard deviation for every training; not ok where an accuracy is NaN.

        Raises:
            CurvesError: nothing was learned yet.
        """
        if self._curves is None:
            raise CurvesError("NuSVR predicts after it was fitted on complete curves")
        m = observed.epochs
        if m not in self._models:
            self._models[m] = self._fit(self._curves, m)
        model = self._models[m]
        features = self._features(observed)
        fine = np.isfinite(features).all(axis=1)
        mean = np.full(len(observed), np.nan)
        if model is None or not fine.any():
            return Prediction.of_normal(mean, np.nan)
        x = (features[fine] - model.shift) / model.scale
        mean[fine] = model.svr.predict(_gram(x, model.x, model.gamma))
        return Prediction.of_normal(mean, model.sigma)

    def r2(self, curves: Curves, epochs: int) -> float:
        """Coefficient of determination R^2 of the predictions after `epochs` epochs of complete curves, the paper's measure."""
        prediction, final = self.predict(curves.observed(epochs)), curves.final
        fine = prediction.ok & np.isfinite(final)
        error = np.sum((prediction.mean[fine] - final[fine]) ** 2)
        return float(1 - error / np.sum((final[fine] - final[fine].mean()) ** 2))

    def _features(self, curves: Curves) -> Floats:
        """`(n, features)`: accuracies, first differences, second differences, and the architecture where asked for."""
        y = curves.accuracy
        parts = [y, np.diff(y, axis=1), np.diff(y, n=2, axis=1)]
        return np.concatenate([*parts, curves.one_hot()] if self.architecture else parts, axis=1)

    def _fit(self, curves: Curves, m: int) -> _Model | None:
        x, y = self._features(curves.observed(m)), curves.final
        fine = np.isfinite(x).all(axis=1) & np.isfinite(y)
        x, y = x[fine], y[fine]
        n = len(y)
        if n < _FEWEST:
            return None
        shift, scale = np.zeros(x.shape[1]), np.ones(x.shape[1])
        if self.architecture:
            first = x.shape[1] - sum(curves.cardinalities)
            spread = x[:, first:].std(axis=0)
            shift[first:] = x[:, first:].mean(axis=0)
            scale[first:] = np.where(spread > 0, spread, 1.0)
        x = (x - shift) / scale

        rng = np.random.default_rng((self._seed, m))
        fold = rng.permutation(np.arange(n) % _FOLDS)
        folds = [np.flatnonzero(fold == k) for k in range(_FOLDS)]
        best: tuple[float, float, float, float] | None = None
        gram = _gram(x, x, np.nan)
        squares = _square_distances(x, x) if self.kernel == "rbf" else None
        for u in rng.random((self.draws, 3)):
            c, nu = 10.0 ** (-3 + 4 * u[0]), 0.01 + 0.99 * u[1]
            gamma = 10.0 ** (-4 + 5 * u[2]) if squares is not None else np.nan
            if squares is not None:
                gram = np.exp(-gamma * squares)
            error = float(np.mean(_residuals(gram, y, folds, c, nu) ** 2))
            if best is None or error < best[0]:
                best = error, c, nu, gamma
        assert best is not None
        _, c, nu, gamma = best
        if squares is not None:
            gram = np.exp(-gamma * squares)
        residuals = _residuals(gram, y, [np.array([i]) for i in range(n)], c, nu)
        return _Model(_train(gram, y, c, nu, 20 * _ITERATIONS), x, shift, scale, gamma, float(residuals.std(ddof=1)))


def _square_distances(a: Floats, b: Floats) -> Floats:
    """Between the rows of two matrices, `(len(a), len(b))`."""
    squares = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1)[None, :] - 2 * a @ b.T
    return np.asarray(np.maximum(squares, 0.0), dtype=np.float64)


def _gram(a: Floats, b: Floats, gamma: float) -> Floats:
    """Kernel between the rows of two matrices, RBF, or linear where gamma is NaN."""
    return np.asarray(a @ b.T if np.isnan(gamma) else np.exp(-gamma * _square_distances(a, b)), dtype=np.float64)


def _train(gram: Floats, y: Floats, c: float, nu: float, iterations: int = _ITERATIONS) -> Any:
    from sklearn import config_context, svm  # half a second to import, and only this method needs it
    from sklearn.exceptions import ConvergenceWarning

    # Checking the parameters takes as long as a fit of 100 trainings, and some 300 fits are made per check point.
    with config_context(skip_parameter_validation=True, assume_finite=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fit that was cut off is judged by its held-out errors
        model = svm.NuSVR(kernel="precomputed", C=c, nu=nu, tol=_TOLERANCE, max_iter=iterations)
        model.random_state = 0  # not used, but without it every fit draws from NumPy's global generator
        return model.fit(gram, y)


def _residuals(gram: Floats, y: Floats, folds: Sequence[npt.NDArray[np.intp]], c: float, nu: float) -> Floats:
    """True less predicted value of every training, `(n,)`, by the models that are fitted without its fold."""
    residuals = np.empty(len(y))
    for held_out in folds:
        kept = np.delete(np.arange(len(y)), held_out)
        model = _train(gram[np.ix_(kept, kept)], y[kept], c, nu)
        residuals[held_out] = y[held_out] - model.predict(gram[np.ix_(held_out, kept)])
    return residuals
