"""power_law: the error falls as a power of the epochs, and the architecture says how (DPL).

Kadra, Janowski, Wistuba and Grabocka, "Scaling Laws for Hyperparameter Optimization", NeurIPS 2023 (Deep Power Laws).
https://arxiv.org/abs/2302.00441
Reference code: machinelearningnuremberg/DPL.

    error(b) = alpha + silu(beta) * b^(-silu(gamma)),   b = epoch / epochs of the full training,   silu(x) = x / (1 + exp(-x))

An ensemble of networks maps the architecture to alpha, beta and gamma. What they say is the mean of a prior for the running
training: its power law has the final error u_1, the fall u_2 from the first epoch to the last and the exponent u_3, with

    u ~ N(what a member says + bias, S),   error_t = power law of u + r_t + noise of variance lambda s_t^2.

bias and S are the centre and the covariance of what the members get wrong of training curves that they did not see, r_t is how
far training curves are from their own power laws on average (all have the same schedule), and s_t^2 the variance of the rest. The
prediction is the posterior of the final error given the observed epochs, a mixture over the members: exact for u_1 and u_2, a
sum over a grid for u_3.

Looks at: validation accuracy and the architecture. Needs: ten complete curves of the task.

Where this file differs from the paper:
    * DPL chooses which training to go on with, one epoch at a time, and learns from all epochs of all trainings that it
      paused. Here the networks learn from complete curves only, and a running training comes in by the posterior above; in
      the reference code by 20 more epochs of training, in which the newest point is in every batch.
    * In the reference code the members see all trainings and differ by their weights, and the standard deviation is that
      between them. Here each of the five leaves out another fifth of the architectures, which bias, S and lambda come from.
    * r_t, s_t and lambda are not in the paper. Curves under a schedule are not power laws: plain least squares on the first
      epochs misses the end of nearly all of them by the same amount. lambda stands for errors that are not independent from
      epoch to epoch: of 1, 3, 10, ..., 1000 the one under which the ends of the left-out curves are most probable, for each
      check point.
    * bias, S and lambda are estimates under Student's t distribution with four degrees of freedom: the few architectures that
      learn nothing would otherwise decide on them. The end of a training that learns nothing is overestimated at first.
    * Exponents from -0.25 to 4.
    * A batch is 64 curves with all their epochs, not 64 points; a member keeps the weights, of those after every 20 steps,
      with the least error of the trainings that it leaves out. As in the reference code: two hidden layers of 128 leaky ReLUs,
      absolute error, Adam with learning rate 0.001.
    * The mean is clipped to [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..benchmarks.workers import one_torch_thread
from .base import Curves, Prediction, Predictor

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float64]

_EXPONENTS = np.arange(-4, 65) / 16  # -0.25 is close to where silu ends, -0.278
_LAMBDAS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
# Standard deviations that are added to the prior and the noise: perfect networks or curves would make them singular.
_LEAST = np.array([1e-4, 1e-4, 1e-2])
_LEAST_NOISE = 1e-4
_FREEDOM = 4  # of the t distribution
_KEEP = 20  # steps after which weights may be kept


class PowerLaw(Predictor):
    """The power law of a training, as an ensemble of networks expects it of the architecture and the observed epochs correct it.

    Where fewer than ten of the curves are free of NaN, nothing can be said of any training.

    Args:
        rng: seeds the networks and their batches, and chooses what each leaves out.
        members: networks, 2 to 10 (authors' code: 5).
        units: of each of the two hidden layers (authors' code: 128).
        steps, batch_size, learning_rate: of the training by Adam; a batch is of curves; the steps are the most there can be.

    Presets: `quick` is a small ensemble for trying things out, not for results.

    Raises:
        ValueError: a hyper-parameter is out of its range.
    """

    growth = 4.0
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"members": 2, "units": 32, "steps": 200}}
    needs_curves: ClassVar[int] = 10
    uses: ClassVar[frozenset[str]] = frozenset({"accuracy", "arch"})

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        members: int = 5,
        units: int = 128,
        steps: int = 1000,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(rng)
        if not 2 <= members <= self.needs_curves or min(units, steps, batch_size) < 1 or not learning_rate > 0:
            raise ValueError(
                "members must be in 2..10, units, steps and batch_size at least 1 and learning_rate positive, not "
                f"{members}, {units}, {steps}, {batch_size} and {learning_rate}"
            )
        self.members, self.units, self.steps = members, units, steps
        self.batch_size, self.learning_rate = batch_size, learning_rate
        self._weights: list[tuple[Floats, Floats]] = []  # per layer, of all members
        self._error: Floats = np.empty((0, 0))  # of the training curves, less r, (n, epochs)
        self._held_out = np.empty((0, 3))  # u of each, as the member says that left it out
        self._bias: Floats = np.empty(3)
        self._precision: Floats = np.empty((3, 3))
        self._shared: Floats = np.empty(0)  # r, (epochs,)
        self._noise: Floats = np.empty(0)  # s^2, (epochs,)
        self._lambda: dict[int, float] = {}  # by observed epochs

    def learn(self, curves: Curves, checks: Sequence[int], meta: Curves | None) -> None:
        self._weights, self._lambda = [], {}
        usable = np.flatnonzero(np.isfinite(curves.accuracy).all(axis=1))
        if len(usable) < self.needs_curves:
            return  # too many diverged: `predict` says that it knows nothing
        curves = curves.rows(usable)
        error = 1 - curves.accuracy
        fold = _folds(curves.group, self.members, self.rng)
        inputs = curves.one_hot()
        self._weights = _train(self, inputs, error, fold)
        # The power law of each curve, and what none of them explains.
        own, fitted = fit_power_law(error)
        self._shared = np.asarray(np.mean(error - fitted, axis=0), dtype=np.float64)
        self._error = error - self._shared
        rest = np.asarray(((self._error - fitted) ** 2).mean(axis=0), dtype=np.float64)
        # Few curves say little of a single epoch: as if there were ten more with the variance of all epochs.
        self._noise = (len(curves) * rest + 10 * float(rest.mean())) / (len(curves) + 10) + _LEAST_NOISE**2
        self._held_out = shapes(self._parameters(inputs)[fold, np.arange(len(curves))], curves.max_epochs)
        self._bias, spread = centre_and_covariance(own - self._held_out)
        self._precision = np.asarray(np.linalg.inv(spread + np.diag(_LEAST**2)), dtype=np.float64)
        for m in checks:
            self._tune(m)

    def predict(self, observed: Curves) -> Prediction:
        n, m = observed.accuracy.shape
        if not self._weights or not n:
            return Prediction.of_normal(np.full(n, np.nan), np.nan)
        error = np.nan_to_num(1 - observed.accuracy) - self._shared[:m]
        priors = shapes(self._parameters(observed.one_hot()), observed.max_epochs) + self._bias
        noise = self._noise[:m] * self._tune(m)
        found = [posterior(error, prior, self._precision, noise, observed.max_epochs) for prior in priors]
        ends, variances = np.array(found).transpose(1, 0, 2)
        variance = np.mean(variances, axis=0) + np.var(ends, axis=0) + self._noise[-1]
        mean = 1 - np.mean(ends, axis=0) - self._shared[-1]
        return Prediction.of_normal(np.clip(mean, 0, 1), np.sqrt(variance), np.isfinite(observed.accuracy).all(axis=1))

    def _parameters(self, inputs: Floats) -> Floats:
        """What the members say of architectures `(n, inputs)`: alpha, beta and gamma, `(members, n, 3)`."""
        x = np.broadcast_to(inputs, (len(self._weights[0][0]), *inputs.shape))
        for weight, bias in self._weights[:-1]:
            x = x @ weight + bias
            x = np.where(x > 0, x, 0.01 * x)
        weight, bias = self._weights[-1]
        return np.asarray(x @ weight + bias)

    def _tune(self, m: int) -> float:
        """Lambda after m epochs."""
        if m not in self._lambda:
            observed, end = self._error[:, :m], self._error[:, -1]
            prior = self._held_out + self._bias
            surprise = []
            for factor in _LAMBDAS:
                noise = self._noise[:m] * factor
                mean, variance = posterior(observed, prior, self._precision, noise, len(self._noise))
                variance = variance + self._noise[-1]
                z = (end - mean) ** 2 / variance
                surprise.append(float(np.mean((_FREEDOM + 1) * np.log1p(z / _FREEDOM) + np.log(variance))))
            self._lambda[m] = _LAMBDAS[int(np.argmin(surprise))]
        return self._lambda[m]


def power_laws(parameters: Floats, epochs: int) -> Floats:
    """Errors after 1..epochs epochs, `(..., epochs)`, of parameters alpha, beta and gamma, `(..., 3)`."""
    alpha, beta, gamma = (parameters[..., i, None] for i in range(3))
    b = np.arange(1, epochs + 1) / epochs
    return np.asarray(alpha + _silu(beta) * b ** -_silu(gamma))


def shapes(parameters: Floats, epochs: int) -> Floats:
    """Final error, fall from first to last epoch and exponent, `(..., 3)`, of parameters alpha, beta and gamma, `(..., 3)`."""
    alpha, beta, gamma = (parameters[..., i] for i in range(3))
    factor = _silu(beta)
    exponent = np.clip(_silu(gamma), _EXPONENTS[0], _EXPONENTS[-1])
    fall = np.clip(factor * (float(epochs) ** exponent - 1), -1, 1)
    return np.stack((alpha + factor, fall, exponent), axis=-1)


def fit_power_law(error: Floats) -> tuple[Floats, Floats]:
    """Least-squares power laws of complete curves `(n, epochs)`: u, `(n, 3)`, and the fitted curves, `(n, epochs)`."""
    h = _basis(error.shape[1])
    mean_h, mean_y = h.mean(axis=1), error.mean(axis=1)
    centred = h - mean_h[:, None]
    variance = np.maximum((centred**2).sum(axis=1), 1e-300)
    covariance = error @ centred.T  # (n, exponents)
    best = np.argmax(covariance**2 / variance, axis=1)  # what a straight line in h explains
    fall = covariance[np.arange(len(error)), best] / variance[best]
    end = mean_y - fall * mean_h[best]
    return np.stack((end, fall, _EXPONENTS[best]), axis=1), end[:, None] + fall[:, None] * h[best]


def centre_and_covariance(x: Floats) -> tuple[Floats, Floats]:
    """Maximum-likelihood centre `(d,)` and scatter `(d, d)` of a t distribution with four degrees of freedom, of `(n, d)`."""
    n, d = x.shape
    weight = np.ones(n)
    for _ in range(50):
        centre = weight @ x / weight.sum()
        off = x - centre
        scatter = (weight[:, None] * off).T @ off / n
        distance = np.einsum("ni,ij,nj->n", off, np.linalg.inv(scatter + 1e-8 * np.eye(d)), off)
        weight = (_FREEDOM + d) / (_FREEDOM + distance)
    return centre, scatter


def posterior(error: Floats, prior: Floats, precision: Floats, noise: Floats, epochs: int) -> tuple[Floats, Floats]:
    """Mean and variance of the final error, both `(n,)`, given the observed epochs.

    Args:
        error: `(n, m)`, observed.
        prior: `(n, 3)`, mean of u.
        precision: `(3, 3)`, inverse of its covariance.
        noise: `(m,)`, variances of the observations.
        epochs: of the full training.
    """
    h = _basis(epochs)[:, : error.shape[1]]
    design = np.stack((np.ones_like(h), h), axis=2)  # (exponents, m, 2): linear in final error and fall
    weighted = design / noise[:, None]
    inverse = np.linalg.inv(design.mT @ weighted + precision[:2, :2])
    off = _EXPONENTS - prior[:, 2:]  # (n, exponents)
    pull = prior[:, :2] @ precision[:2, :2]
    right = np.einsum("nm,jmk->njk", error, weighted) + pull[:, None] - off[..., None] * precision[2, :2]
    solution = np.einsum("jkl,njl->njk", inverse, right)
    cost = off**2 * precision[2, 2] - 2 * off * (prior[:, :2] @ precision[:2, 2])[:, None] - (right * solution).sum(2)
    log_weight = (np.linalg.slogdet(inverse)[1] - cost) / 2
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    end = solution[..., 0]
    mean = (weight * end).sum(axis=1)
    return mean, (weight * (inverse[:, 0, 0] + (end - mean[:, None]) ** 2)).sum(axis=1)


def _basis(epochs: int) -> Floats:
    """Power laws by exponent, `(exponents, epochs)`, that fall from 1 at the first epoch to 0 at the last."""
    log_b = np.log(np.arange(1, epochs + 1) / epochs)
    if epochs == 1:
        return np.zeros((len(_EXPONENTS), 1))
    g = np.where(_EXPONENTS == 0, 1e-9, _EXPONENTS)[:, None]  # at 0 the logarithm is the limit
    h = np.expm1(-g * log_b)
    return np.asarray(h / h[:, :1])


def _silu(x: Floats) -> Floats:
    """The product of x and its sigmoid: a gated linear unit whose gate is its own input, as in the reference code."""
    from scipy.special import expit

    return np.asarray(x * expit(x))


def _folds(group: npt.NDArray[np.int64], members: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """The member that leaves each training out, `(n,)`: the same for all of a group, where groups are enough."""
    _, number = np.unique(group, return_inverse=True)
    number = number.reshape(-1)
    if number.max() + 1 < members:
        number = np.arange(len(group))
    return np.asarray(rng.permutation(number.max() + 1)[number] % members, dtype=np.int64)


def _train(
    settings: PowerLaw, inputs: Floats, error: Floats, fold: npt.NDArray[np.int64]
) -> list[tuple[Floats, Floats]]:
    """Weights and biases of the three layers, of all members, which are trained side by side."""
    import torch
    from torch import nn
    from torch.nn import functional

    generator = torch.Generator().manual_seed(int(settings.rng.integers(1 << 62)))
    members, epochs = settings.members, error.shape[1]
    x, y = torch.tensor(inputs), torch.tensor(error)
    log_b = torch.log(torch.arange(1, epochs + 1, dtype=torch.float64) / epochs)
    seen = [torch.tensor(np.flatnonzero(fold != k)) for k in range(members)]
    left_out = [torch.tensor(np.flatnonzero(fold == k)) for k in range(members)]
    layers: list[tuple[nn.Parameter, nn.Parameter]] = []
    for n_in, n_out in ((x.shape[1], settings.units), (settings.units, settings.units), (settings.units, 3)):
        draws = torch.rand((members, n_in + 1, n_out), generator=generator, dtype=torch.float64) * 2 - 1
        draws *= n_in**-0.5
        layers.append((nn.Parameter(draws[:, :-1].clone()), nn.Parameter(draws[:, -1:].clone())))
    parameters = [p for layer in layers for p in layer]

    def differences(z: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
        """Absolute, `(members, n, epochs)`, of the members for inputs `(members, n, inputs)`."""
        for weight, bias in layers[:-1]:
            z = functional.leaky_relu(torch.baddbmm(bias, z, weight))
        z = torch.baddbmm(layers[-1][1], z, layers[-1][0])[..., None]
        alpha, beta, gamma = z[:, :, 0], functional.silu(z[:, :, 1]), functional.silu(z[:, :, 2])
        return (alpha + beta * torch.exp(-gamma * log_b) - error).abs()

    with one_torch_thread():
        adam = torch.optim.Adam(parameters, settings.learning_rate, fused=True)
        size = min(settings.batch_size, min(map(len, seen)))
        waiting = [rows[:0] for rows in seen]
        least, kept = [math.inf] * members, [p.detach().clone() for p in parameters]
        for step in range(1, settings.steps + 1):
            for k, rows in enumerate(seen):  # each member goes through its trainings in an order of its own
                if len(waiting[k]) < size:
                    waiting[k] = rows[torch.randperm(len(rows), generator=generator)]
            batch = torch.stack([rows[:size] for rows in waiting])
            waiting = [rows[size:] for rows in waiting]
            # The mean over one member's points; members share no weights, so the sum trains each by itself.
            loss = differences(x[batch], y[batch]).mean(dim=(1, 2)).sum()
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            if step % _KEEP == 0 or step == settings.steps:
                with torch.no_grad():
                    off = differences(x.expand(members, *x.shape), y.expand(members, *y.shape)).mean(dim=2)
                for k, rows in enumerate(left_out):
                    if (now := float(off[k, rows].mean())) < least[k]:
                        least[k] = now
                        for old, new in zip(kept, parameters, strict=True):
                            old[k] = new.detach()[k]
    weights = [p.numpy() for p in kept]
    return list(zip(weights[::2], weights[1::2], strict=True))
