"""parametric: a weighted combination of growth curves, fitted to the epochs so far.

Domhan, Springenberg and Hutter, "Speeding Up Automatic Hyperparameter Optimization of Deep Neural Networks by Extrapolation of
Learning Curves", IJCAI 2015. https://www.ijcai.org/Abstract/15/487
Reference code: tdomhan/pylearningcurvepredictor, for the eleven curves and where their fits start.

    y_t ~ N(sum_k w_k f_k(t; theta_k), sigma^2),   w_k >= 0, sum_k w_k = 1
    stop if p(y_T > y_best | y_1..m) < 0.05

A family that cannot be fitted, or whose fit is not finite, is negative at the last epoch, or falls between epoch 2 and the last,
is dropped. With fewer than two families left nothing is said, and the training goes on. (Hill3 and log power are the same curves
with other parameters, and so are exp4, Janoschek and Weibull; MMF without its beta is Hill3 again. As priors they differ.)

Looks at: validation accuracy of this training alone. Needs: nothing; 4 epochs, because a family is used from one epoch more on
than it has parameters (log-log linear and ilog2: 2; four families: 3; five: 4).

`sampler="emcee"` draws theta, w and sigma from their posterior by Markov chain Monte Carlo, as the paper does, in seconds per
curve, and needs `pip install 'nasharness[emcee]'`. `sampler="fit"`, the default, is ours and takes milliseconds:

    end_k = f_k(T), clipped to [0, 1],   v_k = s_k^2 (1 + g^T (J^T J)^-1 g), at most 1/4,   w_k ~ exp(-AICc_k / 2)
    mean = sum_k w_k end_k,   variance = sum_k w_k (v_k + (end_k - mean)^2)

with the least squares fit of each family, its Jacobian J, the gradient g of its end, and the variance s_k^2 of its residuals.

Where this file differs from the paper and its code:
    * Four families by default (MMF, log-log linear, Hill3, log power), as in NASLib, where fewer were found to be better; the
      preset `eleven` has all.
    * A family may fall by 0.001 between epoch 2 and the last, so that a flat curve can be fitted; the code forbids any fall.
      Samples of the end are clipped to [0, 1]. The weights are at most 100 before they are normalised; the code leaves them
      unbounded, and nothing determines their sum.
    * The likelihood has no term for the last epoch, as in Klein et al. 2017.
    * 50 walkers or twice the parameters, 800 steps of which 500 are dropped, as in NASLib (code of the paper: 100, 2,500, 500).
    * The samples give mean and standard deviation of a normal distribution, not the mean of their probabilities.
    * No recency weights, no cutting of the beginning, and none of the code's rules on the spread of the prediction.
    * Least squares by Levenberg and Marquardt without a second method; for MMF and Weibull from two starts, the code's and
      the code's for the same curve in its other form (Hill3, Janoschek): from its own alone MMF often stays at a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import leastsq

from .base import Curves, Prediction, Predictor

Floats = npt.NDArray[np.float64]
Curve = Callable[..., Any]


class Family(NamedTuple):
    """A family of curves.

    Attributes:
        curve: accuracy from epochs and parameters, which broadcast.
        start: where the search for the parameters starts, in the order of the arguments.
        second: another start; None for none.
    """

    curve: Curve
    start: tuple[float, ...]
    second: tuple[float, ...] | None = None


def _vapor_pressure(x: Floats, a: Any, b: Any, c: Any) -> Any:
    return np.exp(a + b / x + c * np.log(x))


def _pow3(x: Floats, c: Any, a: Any, alpha: Any) -> Any:
    return c - a * x ** (-alpha)


def _log_log_linear(x: Floats, a: Any, b: Any) -> Any:
    return np.log(a * np.log(x) + b)


def _hill3(x: Floats, theta: Any, eta: Any, kappa: Any) -> Any:
    return theta / ((kappa / x) ** eta + 1)  # theta x^eta / (kappa^eta + x^eta)


def _log_power(x: Floats, a: Any, b: Any, c: Any) -> Any:
    return a / (1 + (x / np.exp(b)) ** c)


def _pow4(x: Floats, c: Any, a: Any, b: Any, alpha: Any) -> Any:
    return c - (a * x + b) ** (-alpha)


def _mmf(x: Floats, alpha: Any, beta: Any, kappa: Any, delta: Any) -> Any:
    return alpha - (alpha - beta) / (1 + (kappa * x) ** delta)


def _exp4(x: Floats, c: Any, a: Any, b: Any, alpha: Any) -> Any:
    return c - np.exp(-a * x**alpha + b)


def _janoschek(x: Floats, alpha: Any, beta: Any, kappa: Any, delta: Any) -> Any:
    return alpha - (alpha - beta) * np.exp(-kappa * x**delta)


def _weibull(x: Floats, alpha: Any, beta: Any, kappa: Any, delta: Any) -> Any:
    return alpha - (alpha - beta) * np.exp(-((kappa * x) ** delta))


def _ilog2(x: Floats, c: Any, a: Any) -> Any:
    return c - a / np.log(x + 1)


FAMILIES: Mapping[str, Family] = {
    "vapor_pressure": Family(_vapor_pressure, (-0.622, -0.470, 0.042)),
    "pow3": Family(_pow3, (0.84, 0.52, 0.01)),
    "log_log_linear": Family(_log_log_linear, (1.0, 1.0)),
    "hill3": Family(_hill3, (0.7723, 0.5864, 2.4608)),
    "log_power": Family(_log_power, (0.77, 2.98, -0.51)),
    "pow4": Family(_pow4, (0.8, 200.0, 0.0, 0.1)),
    "mmf": Family(_mmf, (0.7, 0.1, 0.01, 5.0), (0.7723, 0.0, 1 / 2.4608, 0.5864)),  # second: that of hill3
    "exp4": Family(_exp4, (0.7, 0.8, -0.8, 0.3)),
    "janoschek": Family(_janoschek, (0.73, 0.07, 0.355, 0.46)),
    "weibull": Family(
        _weibull, (0.7, 0.1, 0.01, 1.0), (0.73, 0.07, 0.355 ** (1 / 0.46), 0.46)
    ),  # second: that of janoschek
    "ilog2": Family(_ilog2, (0.78, 0.43)),
}
ELEVEN = tuple(FAMILIES)
FOUR = ("mmf", "log_log_linear", "hill3", "log_power")

_HIGHEST = 100.0  # end of a family
_FALL = 1e-3  # how far a family may fall between epoch 2 and the last, in accuracy
_FINEST = 1e-4  # residuals smaller than this, one image in 10,000, say nothing of the noise
_LARGEST = 0.25  # variance of an end: nothing within [0, 1] has a larger one
_EVALUATIONS = 400  # of a family in one least squares fit
_UNFIT = 10.0  # stands in for a value that is not finite, so that least squares turns back
_MOST_WEIGHT = 100.0  # of a family, before the weights are normalised
_FIRST_WEIGHT = 10.0


class Fit(NamedTuple):
    """The least squares fit of a family to one curve.

    Attributes:
        name: of the family.
        parameters: `(parameters,)`.
        residuals: `(m,)`, accuracies less the family's.
        end: its value at the last epoch.
        variance: of the final accuracy around it: of the noise, and of `end` by linear error propagation.
    """

    name: str
    parameters: Floats
    residuals: Floats
    end: float
    variance: float

    @property
    def aicc(self) -> float:
        """Akaike's criterion for small samples. Where it has no finite value, one penalty more for the missing epochs."""
        m, k = len(self.residuals), len(self.parameters) + 1  # the noise is a parameter
        fit = m * np.log(max(float(np.mean(self.residuals**2)), _FINEST**2))
        return float(fit + 2 * k + 2 * k * (k + 1) / max(m - k - 1, 0.5))


def fit_family(name: str, accuracy: Floats, max_epochs: int) -> Fit | None:
    """Fit a family to one curve by least squares.

    Args:
        name: of `FAMILIES`.
        accuracy: `(m,)`, finite.
        max_epochs: T.

    Returns:
        None where there are no more epochs than parameters, or the fit failed, or breaks the prior.
    """
    family = FAMILIES[name]
    m, k = len(accuracy), len(family.start)
    if m <= k:
        return None
    x = np.arange(1.0, m + 1)

    def residuals(parameters: Floats) -> Floats:
        difference = accuracy - family.curve(x, *parameters)
        return np.where(np.isfinite(difference), difference, _UNFIT)

    with np.errstate(all="ignore"):
        starts = [family.start] if family.second is None else [family.start, family.second]
        found = [leastsq(residuals, start, full_output=True, maxfev=_EVALUATIONS)[:2] for start in starts]
        parameters, covariance = min(found, key=lambda one: float(np.sum(residuals(one[0]) ** 2)))
        if not _allowed(family, parameters, m, max_epochs):
            return None
        left = residuals(parameters)
        noise = max(float(left @ left) / (m - k), _FINEST**2)
        end = float(family.curve(float(max_epochs), *parameters))
        return Fit(name, parameters, left, end, noise * (1 + _leverage(family, parameters, covariance, max_epochs)))


def _leverage(family: Family, parameters: Floats, covariance: Floats | None, max_epochs: int) -> float:
    """Variance of the family's end in units of the noise's, from the inverse of J^T J; a flat direction makes it infinite."""
    if covariance is None:
        return np.inf
    steps = 1e-6 * np.maximum(np.abs(parameters), 1e-3)
    up, down = (family.curve(float(max_epochs), *(parameters[:, None] + s * np.diag(steps))) for s in (1, -1))
    gradient = (up - down) / (2 * steps)
    leverage = float(gradient @ covariance @ gradient)
    return leverage if leverage >= 0 else np.inf  # also where it is NaN


def _allowed(family: Family, parameters: Floats, m: int, max_epochs: int) -> Any:
    """The prior: whether curves are finite, end in [0, 100] and do not fall. `(k, ...)` parameters give `(...)`."""
    x = np.array([*range(1, m + 1), 2, max_epochs], dtype=np.float64)
    with np.errstate(all="ignore"):
        values = family.curve(x, *np.asarray(parameters)[..., None])
        early, end = values[..., -2], values[..., -1]
        return np.isfinite(values).all(axis=-1) & (end >= 0) & (end <= _HIGHEST) & (early <= end + _FALL)


class Parametric(Predictor):
    """A weighted combination of families of growth curves, fitted to one training's epochs so far.

    Args:
        rng: for the Markov chains; the least squares fit is deterministic.
        families: names of `FAMILIES`.
        sampler: "fit", least squares and error propagation, or "emcee", the paper's Markov chains.
        walkers: Markov chains, at least; twice the number of parameters if that is more.
        steps: of each chain.
        burn_in: of these, steps that are dropped.

    Presets: `eleven`, all families; `paper`, these sampled by the code's 100 chains of 2,500 steps, 6 to 8 seconds per curve.

    Raises:
        ValueError: an unknown family, fewer than two families, an unknown sampler, or no step after `burn_in`.
        ImportError: `sampler="emcee"` without the package emcee.
    """

    delta: ClassVar[float] = 0.05  # as published
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "eleven": {"families": ELEVEN},
        "paper": {"families": ELEVEN, "sampler": "emcee", "walkers": 100, "steps": 2500, "burn_in": 500},
    }
    min_epochs: ClassVar[int] = 4

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        families: Sequence[str] = FOUR,
        sampler: Literal["fit", "emcee"] = "fit",
        walkers: int = 50,
        steps: int = 800,
        burn_in: int = 500,
    ) -> None:
        super().__init__(rng)
        if unknown := [name for name in families if name not in FAMILIES]:
            raise ValueError(f"unknown families {unknown}; there are: {', '.join(FAMILIES)}")
        if len(set(families)) < 2 or len(set(families)) < len(families):
            raise ValueError(f"families must be two or more different ones, not {families!r}")
        if sampler not in ("fit", "emcee"):
            raise ValueError(f"sampler must be 'fit' or 'emcee', not {sampler!r}")
        if walkers < 1 or not 0 <= burn_in < steps:
            raise ValueError(
                f"walkers must be at least 1 and burn_in below steps, not walkers={walkers!r}, burn_in={burn_in!r},"
                f" steps={steps!r}"
            )
        if sampler == "emcee":
            _emcee()  # what is missing is said before the first training
        self.families = tuple(families)
        self.sampler = sampler
        self.walkers = walkers
        self.steps = steps
        self.burn_in = burn_in
        self._seed = int(
            rng.integers(2**32)
        )  # the same for every curve: a prediction does not depend on those before it

    def fit(self, curves: Curves, checks: Sequence[int], meta: Curves | None = None) -> None:
        """Nothing is learned from other curves, and there is no score to calibrate: see `Predictor.fit`."""
        super().fit(curves, (), meta)

    def predict(self, observed: Curves) -> Prediction:
        """A normal distribution; not ok with fewer than `min_epochs` epochs, a NaN, or fewer than two families left."""
        mean, std = np.full((2, len(observed)), np.nan)
        for row, accuracy in enumerate(observed.accuracy):
            fits = self.fit_families(accuracy, observed.max_epochs)
            if len(fits) >= 2:
                combine = mixture if self.sampler == "fit" else self._sampled
                mean[row], std[row] = combine(fits, accuracy, observed.max_epochs)
        return Prediction.of_normal(mean, std)

    def fit_families(self, accuracy: Floats, max_epochs: int) -> list[Fit]:
        """The least squares fits of the families that are left for one curve `(m,)`."""
        if not np.isfinite(accuracy).all():
            return []
        fits = (fit_family(name, accuracy, max_epochs) for name in self.families)
        return [fit for fit in fits if fit is not None]

    def _sampled(self, fits: Sequence[Fit], accuracy: Floats, max_epochs: int) -> tuple[float, float]:
        """Mean and standard deviation of the final accuracy over Markov chains that start at the fits."""
        posterior = Posterior([fit.name for fit in fits], accuracy, max_epochs)
        start = posterior.start(fits)
        walkers = max(self.walkers, 2 * len(start) + 2)
        rng = np.random.default_rng(self._seed)
        first = start + 1e-6 * rng.standard_normal((walkers, len(start)))
        sampler = _emcee().EnsembleSampler(walkers, len(start), posterior.log_density, vectorize=True)
        sampler.random_state = np.random.RandomState(self._seed).get_state()
        sampler.run_mcmc(first, self.steps, skip_initial_state_check=True)
        samples = sampler.get_chain(discard=self.burn_in, thin=min(10, self.steps - self.burn_in), flat=True)
        ends, noise = posterior.ends(samples)
        return float(ends.mean()), float(np.sqrt(ends.var() + np.mean(noise**2)))


def mixture(fits: Sequence[Fit], accuracy: Floats, max_epochs: int) -> tuple[float, float]:
    """Mean and standard deviation of the final accuracy, from fits with Akaike weights.

    A fit that leaves the end undetermined keeps its weight and brings the largest spread that [0, 1] has: to leave it out would
    make the prediction certain where it should not be.
    """
    criterion = np.array([fit.aicc for fit in fits])
    weights = np.exp(-0.5 * (criterion - criterion.min()))
    weights /= weights.sum()
    ends = np.clip([fit.end for fit in fits], 0, 1)
    spread = np.minimum([fit.variance for fit in fits], _LARGEST)
    mean = float(weights @ ends)
    variance = float(weights @ (spread + (ends - mean) ** 2))
    return mean, float(np.sqrt(variance))


class Posterior:
    """Density of all parameters given one curve: those of the families, then the noise, then the weights.

    Args:
        names: of the families.
        accuracy: `(m,)`.
        max_epochs: T.
    """

    def __init__(self, names: Sequence[str], accuracy: Floats, max_epochs: int) -> None:
        self.families = [FAMILIES[name] for name in names]
        self.accuracy = accuracy
        self.max_epochs = max_epochs
        self._bounds = np.cumsum([0, *(len(family.start) for family in self.families)])

    def start(self, fits: Sequence[Fit]) -> Floats:
        """The fits, with equal weights and the noise that they leave, `(dimension,)`."""
        residuals = np.mean([fit.residuals for fit in fits], axis=0)
        noise = max(float(np.sqrt(np.mean(residuals**2))), 10 * _FINEST)
        weights = np.full(len(fits), _FIRST_WEIGHT)
        return np.concatenate([*(fit.parameters for fit in fits), [noise], weights])

    def log_density(self, samples: Floats) -> Floats:
        """Logarithm of the posterior density up to a constant, `(n,)` for `(n, dimension)`; -inf outside of the prior."""
        m = len(self.accuracy)
        theta, noise, weights = self._parts(samples)
        allowed = (noise > 0) & (noise < 1) & (weights >= 0).all(axis=1) & (weights <= _MOST_WEIGHT).all(axis=1)
        for family, parameters in zip(self.families, theta, strict=True):
            allowed &= _allowed(family, parameters, m, self.max_epochs)
        with np.errstate(all="ignore"):
            residuals = self.accuracy - self._combined(np.arange(1.0, m + 1), theta, weights)
            density = -m * np.log(noise) - 0.5 * np.sum(residuals**2, axis=1) / noise**2
        return np.where(allowed & np.isfinite(density), density, -np.inf)

    def ends(self, samples: Floats) -> tuple[Floats, Floats]:
        """Final accuracies without noise, clipped to [0, 1], and the noise, both `(n,)`."""
        theta, noise, weights = self._parts(samples)
        return np.clip(self._combined(np.array([float(self.max_epochs)]), theta, weights)[:, 0], 0, 1), noise

    def _parts(self, samples: Floats) -> tuple[list[Floats], Floats, Floats]:
        """Parameters of each family `(k, n)`, noise `(n,)` and weights `(n, families)`."""
        theta = [samples[:, a:b].T for a, b in zip(self._bounds[:-1], self._bounds[1:], strict=True)]
        return theta, samples[:, self._bounds[-1]], samples[:, self._bounds[-1] + 1 :]

    def _combined(self, x: Floats, theta: Sequence[Floats], weights: Floats) -> Floats:
        """The weighted combination, `(n, len(x))`."""
        share = weights / weights.sum(axis=1, keepdims=True)
        values = [f.curve(x, *p[..., None]) for f, p in zip(self.families, theta, strict=True)]
        return np.asarray(sum(w[:, None] * v for w, v in zip(share.T, values, strict=True)), dtype=np.float64)


def _emcee() -> Any:
    try:
        import emcee
    except ImportError as error:
        raise ImportError("sampler='emcee' needs the package emcee: pip install 'nasharness[emcee]'") from error
    return emcee
