"""lc_net: a Bayesian neural network whose last layer is a family of learning curves.

Klein, Falkner, Springenberg and Hutter, "Learning Curve Prediction with Bayesian Neural Networks", ICLR 2017,
https://openreview.net/forum?id=S11KBYclx. Code: automl/pybnn (`LCNet`).

    mean(x, t) = sigmoid(h_inf(x)) + tanh(sum over k of softmax(h_w(x))_k phi_k(t; theta_k(x))),     t = epoch / T
    y(x, t)    ~ N(mean(x, t), exp(h_s(x))^2)

h and theta are the outputs of a network of three layers of 50 tanh units on the one-hot architecture x; the basis functions phi
(vapor pressure, logarithm, Hill3) are 0 at t = 1, where the mean is therefore the first term. The weights are drawn from their
posterior, given all epochs of the training curves, by stochastic gradient Hamiltonian Monte Carlo (Chen, Fox and Guestrin, ICML
2014) with the step sizes adapted during burn-in (Springenberg, Klein, Falkner and Hutter, NeurIPS 2016). A training that has
begun is conditioned on by

    E[y_T | y_1..m]   = mean_T + c^T (C + s^2 I)^-1 (y_1..m - mean_1..m)
    Var[y_T | y_1..m] = v - c^T (C + s^2 I)^-1 c + s^2

mean, C, c and v: mean and covariances of mean(x, 1..m) and mean(x, T) over the drawn weights; s^2: mean of exp(h_s(x))^2.

Looks at: validation accuracy, architecture. Needs: 10 complete curves, torch for `fit` and `predict`.

Where this file differs from the paper:
    * The paper samples anew with the running curve among the data. Here the weights given the complete curves are kept and the
      curve is conditioned on as if mean(x, .) were jointly normal over them, which it is to first order around their mean.
      Weighting the drawn weights by the likelihood of the curve would be exact in the limit, but leaves one of 100 after a few
      epochs.
    * Three basis functions as in the code, not the paper's five; their ranges are ours.
    * Several chains side by side, each batch some epochs of some curves; weights have the prior N(0, 1 / inputs), biases
      N(0, 1), and the logarithm of the noise is centred at -4.
    * Only complete curves of the task are learned from: other datasets' and the parts of trainings that were stopped are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .base import Curves, CurvesError, Floats, Prediction, Predictor

if TYPE_CHECKING:
    from torch import Generator, Tensor

_WIDTH = 50
_BASES = 3
_OUTPUTS = 2 + _BASES + 8  # end, noise, weights of the bases, their parameters
_LOG_NOISE = -4.0
_LEAST = 1e-8  # variance of the noise at least, which conditioning divides by
_MOST = 0.5  # standard deviation of anything within [0, 1] at most: beyond it the sampler has not settled
_VALUES = 2_000_000  # means per pass of `predict`, so that it needs some 100 MB


def curve_layer(outputs: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The learning-curve layer.

    Args:
        outputs: `(..., n, 13)`, of the network.
        t: `(m,)`, epochs as a share of the full training.

    Returns:
        Means `(..., n, m)`, and the logarithm of the noise's standard deviation `(..., n, 1)`.
    """
    import torch

    end, log_noise = torch.sigmoid(outputs[..., :1]), _LOG_NOISE + outputs[..., 1:2]
    weights = torch.softmax(outputs[..., 2 : 2 + _BASES], dim=-1)
    u = ((torch.tanh(outputs[..., 2 + _BASES :]) + 1) / 2).unsqueeze(-1).unbind(-2)  # each in (0, 1)
    log_t = t.log()

    def vapor(at: Tensor, log_at: Tensor) -> Tensor:
        return torch.exp(-2 * u[0] - 0.1 * u[1] / at + 0.5 * u[2] * log_at)

    log_scale = torch.exp(-math.log(100) * u[4])
    logarithm = u[3] * (torch.log1p(t / log_scale) / torch.log1p(1 / log_scale) - 1)
    power, middle = 0.1 + 3 * u[6], -math.log(100) * u[7]  # the Hill function is half of its height at exp(middle)
    hill = u[5] * (torch.sigmoid(power * (log_t - middle)) - torch.sigmoid(-power * middle))
    rise = vapor(t, log_t) - vapor(torch.ones_like(t), torch.zeros_like(t))
    total = weights[..., 0:1] * rise + weights[..., 1:2] * logarithm + weights[..., 2:3] * hill
    return end + torch.tanh(total), log_noise


def network(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Outputs `(chains, n, 13)` for architectures `(n, inputs)` or `(chains, n, inputs)`."""
    h = x
    for i in range(3):
        h = (h @ weights[f"{i}.weight"] + weights[f"{i}.bias"]).tanh()
    return h @ weights["3.weight"] + weights["3.bias"]


def condition(means: Floats, noise: Floats, observed: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of y_T given the observed epochs; the formula is at the head of this file.

    Args:
        means: `(samples, n, m + 1)`, of the observed epochs and of the last one.
        noise: `(n,)`, variances s^2.
        observed: `(n, m)`.
    """
    centre = means.mean(axis=0)
    away = (means - centre).transpose(1, 2, 0) / math.sqrt(len(means) - 1)  # (n, m + 1, samples)
    covariance = away @ away.transpose(0, 2, 1)
    m = observed.shape[1]
    s2 = np.maximum(noise, _LEAST)
    seen = covariance[:, :m, :m] + s2[:, None, None] * np.eye(m)
    c = covariance[:, :m, m:]
    gain = np.linalg.solve(seen, c)
    mean = centre[:, m] + (gain[:, :, 0] * (observed - centre[:, :m])).sum(axis=1)
    variance = covariance[:, m, m] - (gain * c).sum(axis=(1, 2)) + s2
    return mean, np.sqrt(np.maximum(variance, _LEAST))


class Sampler:
    """Stochastic gradient Hamiltonian Monte Carlo of many independent parameters, with step sizes of their own.

    Args:
        theta: where to start; changed in place by `step`.
        total: terms in the potential: `step` is given the gradient of its mean over them.
        rate: step size.
        decay: share of the momentum that is lost in a step.
        generator: of the noise.
    """

    def __init__(self, theta: Tensor, total: int, rate: float, decay: float, generator: Generator) -> None:
        import torch

        self.theta, self.total, self.rate, self.decay, self.generator = theta, total, rate, decay, generator
        self._momentum = torch.zeros_like(theta)
        self._window, self._mean, self._square = torch.ones_like(theta), torch.zeros_like(theta), torch.ones_like(theta)

    def step(self, gradient: Tensor, *, adapt: bool) -> None:
        """Move. `adapt` belongs to burn-in: a sampler that goes on adapting does not draw from its target."""
        import torch

        with torch.no_grad():
            if adapt:  # running means over a window that grows where the gradient is mostly noise
                share = 1 / (self._window + 1)
                self._mean += share * (gradient - self._mean)
                self._square += share * (gradient**2 - self._square)
                self._window += 1 - self._window * self._mean**2 / self._square.clamp_min(1e-16)
            mass = self._square.clamp_min(1e-16).rsqrt()
            spread = (2 * self.rate**2 * self.decay * mass / self.total).sqrt()
            noise = torch.randn(gradient.shape, generator=self.generator)
            self._momentum += -(self.rate**2) * mass * gradient - self.decay * self._momentum + spread * noise
            self.theta += self._momentum


def _initial(
    generator: Generator, chains: int, n_inputs: int, active: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Weights drawn from their prior, and the prior's precisions. `active`: inputs that are not 0."""
    import torch

    weights: dict[str, Tensor] = {}
    precision: dict[str, float] = {}
    for i, (n_in, n_out) in enumerate(((n_inputs, _WIDTH), (_WIDTH, _WIDTH), (_WIDTH, _WIDTH), (_WIDTH, _OUTPUTS))):
        fan_in = active if i == 0 else n_in
        weights[f"{i}.weight"] = torch.randn((chains, n_in, n_out), generator=generator) / math.sqrt(fan_in)
        weights[f"{i}.bias"] = torch.randn((chains, 1, n_out), generator=generator)
        precision |= {f"{i}.weight": float(fan_in), f"{i}.bias": 1.0}
    return weights, precision


class LCNet(Predictor):
    """Bayesian network of learning curves over architectures.

    Args:
        rng: seeds initial weights, batches and the sampler's noise.
        chains: chains of the sampler, side by side.
        burn_in: steps of each chain before the first weights are kept.
        steps: steps after them.
        keep_every: of which each of these is kept; chains * steps / keep_every weights in all.
        rate: step size; pybnn's 0.01.
        decay: share of the momentum that is lost in a step; pybnn's 0.05.
        batch_curves, batch_epochs: most curves, and epochs of each, in a batch.

    Raises:
        ValueError: a hyper-parameter outside its range, or fewer than two weights would be kept.
    """

    growth = 4.0
    needs_curves: ClassVar[int] = 10
    uses: ClassVar[frozenset[str]] = frozenset({"accuracy", "arch"})

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        chains: int = 10,
        burn_in: int = 3000,
        steps: int = 1000,
        keep_every: int = 50,
        rate: float = 0.01,
        decay: float = 0.05,
        batch_curves: int = 20,
        batch_epochs: int = 20,
    ) -> None:
        super().__init__(rng)
        if min(chains, steps, keep_every, batch_curves, batch_epochs) < 1 or burn_in < 0:
            raise ValueError(
                "chains, steps, keep_every and the parts of a batch must be at least 1, burn_in at least 0"
            )
        if chains * (steps // keep_every) < 2:
            raise ValueError("at least two weights have to be kept: lower keep_every, or raise steps or chains")
        if not (rate > 0 and 0 < decay < 1):
            raise ValueError(f"rate must be above 0 and decay in (0, 1), not {rate!r} and {decay!r}")
        self.chains, self.burn_in, self.steps, self.keep_every = chains, burn_in, steps, keep_every
        self.rate, self.decay = rate, decay
        self.batch_curves, self.batch_epochs = batch_curves, batch_epochs
        self._samples: dict[str, Tensor] | None = None

    def learn(self, curves: Curves, checks: Sequence[int], meta: Curves | None) -> None:
        """Draw the network's weights. Curves with a NaN are left out.

        Raises:
            CurvesError: fewer than two curves are left.
        """
        import torch

        fine = np.asarray(np.isfinite(curves.accuracy).all(axis=1))
        if fine.sum() < 2:
            raise CurvesError("lc_net needs at least two curves without NaN")
        kept = curves.rows(fine)
        generator = torch.Generator().manual_seed(int(self.rng.integers(2**63)))
        x = torch.from_numpy(kept.one_hot().astype(np.float32))
        y = torch.from_numpy(kept.accuracy.astype(np.float32))
        drawn = list(self._sample(x, y, len(kept.cardinalities), generator))
        self._samples = {name: torch.cat([weights[name] for weights in drawn]) for name in drawn[0]}

    def _sample(self, x: Tensor, y: Tensor, active: int, generator: Generator) -> Iterator[dict[str, Tensor]]:
        """Weights `(chains, ...)`, every `keep_every` steps after burn-in."""
        import torch

        (n, epochs), chains = y.shape, self.chains
        t = torch.arange(1, epochs + 1) / epochs
        weights, precision = _initial(generator, chains, x.shape[1], active)
        names = list(weights)
        sizes = [weights[name][0].numel() for name in names]
        prior = torch.cat([torch.full((size,), precision[name]) for name, size in zip(names, sizes, strict=True)])
        # One vector per chain: a step is then a handful of operations, however many arrays the network has.
        theta = torch.cat([weights[name].reshape(chains, -1) for name in names], dim=1).requires_grad_()

        def arrays(of: Tensor) -> dict[str, Tensor]:
            parts = torch.split(of, sizes, dim=1)
            return {name: part.view(weights[name].shape) for name, part in zip(names, parts, strict=True)}

        sampler = Sampler(theta, n * epochs, self.rate, self.decay, generator)
        for step in range(self.burn_in + self.steps):
            rows = torch.randperm(n, generator=generator)[: self.batch_curves]
            when = torch.randperm(epochs, generator=generator)[: self.batch_epochs]
            mean, log_noise = curve_layer(network(arrays(theta), x[rows]), t[when])
            error = (y[rows][:, when] - mean) * torch.exp(-log_noise)
            # Mean over the points, so that the step size does not depend on their number; chains do not mix.
            loss = (0.5 * error**2 + log_noise).mean(dim=(1, 2)).sum()
            (gradient,) = torch.autograd.grad(loss, theta)
            sampler.step(gradient + prior * theta.detach() / (n * epochs), adapt=step < self.burn_in)
            after = step + 1 - self.burn_in
            if after > 0 and after % self.keep_every == 0:
                yield {name: array.clone() for name, array in arrays(theta.detach()).items()}

    def predict(self, observed: Curves) -> Prediction:
        """Normal distributions; of complete curves their end, with certainty.

        Not ok where an observed accuracy is NaN, where the drawn networks are useless (not finite, or a standard deviation above
        1/2, which no accuracy has), and before `fit`.
        """
        n, m = observed.accuracy.shape
        if observed.complete:
            return Prediction.of_normal(observed.final, 0.0)
        mean, std = np.full(n, np.nan), np.full(n, np.nan)
        known = np.flatnonzero(np.isfinite(observed.accuracy).all(axis=1))
        if self._samples is not None:
            size = max(1, _VALUES // (len(self._samples["0.bias"]) * (m + 1)))
            for rows in np.split(known, range(size, len(known), size)):
                means, noise = self._curves(observed.rows(rows), [*range(1, m + 1), observed.max_epochs])
                if np.isfinite(means).all() and np.isfinite(noise).all():
                    mean[rows], std[rows] = condition(means, noise, observed.accuracy[rows])
        std[std > _MOST] = np.nan
        return Prediction.of_normal(mean, std)

    def _curves(self, trainings: Curves, epochs: Sequence[int]) -> tuple[Floats, Floats]:
        """Means `(samples, n, epochs)` under every drawn network, and the variance of the noise `(n,)`."""
        import torch

        assert self._samples is not None
        with torch.no_grad():
            x = torch.from_numpy(trainings.one_hot().astype(np.float32))
            t = torch.tensor(epochs, dtype=torch.float32) / trainings.max_epochs
            means, log_noise = curve_layer(network(self._samples, x), t)
            noise = torch.exp(2 * log_noise[..., 0].double()).mean(dim=0)
        return means.double().numpy(), noise.numpy()
