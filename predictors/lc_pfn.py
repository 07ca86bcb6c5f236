"""lc_pfn: a transformer, trained once on synthetic curves, that continues any curve in one forward pass.

Adriaensen, Rakotoarison, Müller and Hutter, "Efficient Bayesian Learning Curve Extrapolation using Prior-Data Fitted Networks",
NeurIPS 2023, https://arxiv.org/abs/2310.20447. Code: automl/lcpfn.

    q(y_T | y_1..y_m) = sum over bins b of softmax(f(y_1..y_m))_b p_b(y_T)
    f minimises the mean of -ln q(y_T | y_1..y_m) over curves of the prior, so that q approaches the posterior predictive

p_b is uniform between two borders, which are quantiles of the prior; the first and the last bin are half-normal distributions
with half of their mass within the bin's width. p_better is the mass above the incumbent's value. The prior and the training:
`lc_pfn_training.py`; what came out: `data/README.md`.

Looks at: validation accuracy. Needs: nothing of the task, one epoch. Weights: `data/lc_pfn.safetensors`. No torch.

Where this file differs from the paper:
    * A small network: 4 layers of width 64 with 200 bins; the paper's largest has 12 layers of width 512 and 1,000 bins.
    * Only the end T is predicted, not every later epoch, and an epoch sees itself and those before it (a causal mask), so that
      one pass over a curve in training gives the prediction from each of its beginnings.
    * Besides (t, y) the network is given ln t, the length of an epoch in steps of the prior, the last difference of y, and sines
      and cosines of y, as a small network resolves small differences of y badly.
    * Any length: epoch t of T is step 100 t / T of the prior, and training shows the same curves on coarser grids, too. Of
      more than 100 epochs the last one within each step is looked at, and the last observed one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from .base import Curves, Floats, Prediction, Predictor

STEPS = 100
"""Length of the prior's curves."""
HEADS = 4

_WEIGHTS = Path(__file__).parent / "data" / "lc_pfn.safetensors"
_HALF = float(ndtri(0.75))  # a half-normal distribution has half of its mass below this many standard deviations
_FREQUENCIES = 2.0 ** np.arange(7)  # of the sines of y: the last has a period of 1/32
_ROWS = 256  # curves per forward pass, so that the attention of 100 epochs stays below 50 MB

Arrays = Mapping[str, npt.NDArray[np.float32]]


class Bars:
    """Distributions on given bins: uniform inside a bin, half-normal in the first and the last.

    Args:
        borders: `(bins + 1,)`, ascending. The outermost two only set the width of the tails.
    """

    def __init__(self, borders: Floats) -> None:
        self.borders = borders
        self.widths = np.diff(borders)
        self._edges = borders[[1, -2]]  # where the tails begin
        self._scales = self.widths[[0, -1]] / _HALF

    def locate(self, y: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
        """The bin of each value, and the density within it."""
        last = len(self.widths) - 1
        which = np.clip(np.searchsorted(self.borders, y, side="right") - 1, 0, last)
        density = 1 / self.widths[which]
        for k, edge, scale in zip((0, last), self._edges, self._scales, strict=True):
            tail = np.sqrt(2 / np.pi) / scale * np.exp(-0.5 * ((y - edge) / scale) ** 2)
            density = np.where(which == k, tail, density)
        return which.astype(np.int64), np.maximum(density, 1e-30)

    def log_density(self, masses: Floats, y: Floats) -> Floats:
        """Of one value per distribution: `(n, bins)` and `(n,)` to `(n,)`, in nats."""
        which, density = self.locate(y)
        return np.asarray(np.log(np.maximum(masses[np.arange(len(y)), which], 1e-30) * density))

    def moments(self, masses: Floats) -> tuple[Floats, Floats]:
        """Means and standard deviations of distributions `(n, bins)`."""
        low, high = self.borders[:-1], self.borders[1:]
        first = (low + high) / 2
        second = (low**2 + low * high + high**2) / 3
        for k, sign, edge, scale in zip((0, -1), (-1, 1), self._edges, self._scales, strict=True):
            reach = sign * scale * np.sqrt(2 / np.pi)
            first[k], second[k] = edge + reach, edge**2 + 2 * edge * reach + scale**2
        mean = masses @ first
        return mean, np.sqrt(np.maximum(masses @ second - mean**2, 0))

    def above(self, masses: Floats, y: npt.ArrayLike) -> Floats:
        """Mass above a value, or above one value per distribution, `(n,)`; exact."""
        at = np.asarray(y, dtype=np.float64)[..., None]
        share = np.clip((self.borders[1:] - at) / self.widths, 0, 1)
        (low, high), (below, beyond) = self._edges, self._scales
        share[..., 0] = np.clip(1 - 2 * ndtr((at[..., 0] - low) / below), 0, 1)
        share[..., -1] = np.clip(2 * ndtr((high - at[..., 0]) / beyond), 0, 1)
        return np.asarray((masses * share).sum(axis=1))


@dataclass(frozen=True, eq=False)
class BarPrediction(Prediction):
    """A prediction that knows its whole distribution.

    Attributes:
        masses: float64 `(n, bins)`, probability of each bin.
    """

    masses: Floats


def features(accuracy: Floats, t: Floats) -> Floats:
    """What the network sees of curves `(n, m)` at the steps `t` `(m,)` of the prior: `(n, m, features)`."""
    n, m = accuracy.shape
    y = accuracy[:, :, None]
    step = np.diff(accuracy, axis=1, prepend=accuracy[:, :1])[:, :, None]
    time = np.stack((t / STEPS, np.log(t) / np.log(STEPS), np.log(t / np.arange(1, m + 1)) / np.log(STEPS)), axis=1)
    angles = np.pi * y * _FREQUENCIES
    return np.concatenate((np.broadcast_to(time, (n, m, 3)), y, 10 * step, np.sin(angles), np.cos(angles)), axis=2)


def thinned(epochs: int, max_epochs: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Which of the first `epochs` epochs are looked at, from 0, and where on the prior's scale they lie.

    All of them up to 100 epochs in the full training; of more the last one within each hundredth, and the last observed one.
    """
    t = np.arange(1, epochs + 1) * (STEPS / max_epochs)
    block = np.ceil(t - 1e-9)
    kept = np.flatnonzero(np.append(block[1:] != block[:-1], True))
    return kept, np.maximum(t[kept], 1.0)


def layers_of(weights: Mapping[str, Any]) -> int:
    """Number of layers."""
    return sum(name.endswith(".qkv.bias") for name in weights)


def forward(weights: Arrays, x: npt.NDArray[np.float32]) -> Floats:
    """The network: masses of the bins `(n, bins)` from features `(n, m, features)`.

    Layers are x + attention(norm(x)), x + mlp(norm(x)), with a norm at the end; `i.qkv` holds queries, keys and values. Every
    epoch attends to itself and those before it. Only the last epoch's output is asked for: the last layer has one query.
    """

    def norm(name: str, h: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        centred = h - h.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(1e-5))
        return np.asarray(centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"])

    def dense(name: str, h: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(h @ weights[f"{name}.weight"] + weights[f"{name}.bias"])

    h = dense("embed", x)
    n, m, width = h.shape
    size = width // HEADS
    later = np.where(np.arange(m)[None, :] > np.arange(m)[:, None], np.float32(-np.inf), np.float32(0))
    layers = layers_of(weights)
    for i in range(layers):
        parts = dense(f"{i}.qkv", norm(f"{i}.norm1", h)).reshape(n, m, 3, HEADS, size).transpose(2, 0, 3, 1, 4)
        queries, keys, values = parts
        if i == layers - 1:
            queries, later, h = queries[:, :, -1:], later[-1:], h[:, -1:]
        weight = queries @ keys.transpose(0, 1, 3, 2) * np.float32(size**-0.5) + later
        weight = np.exp(weight - weight.max(axis=-1, keepdims=True))
        weight /= weight.sum(axis=-1, keepdims=True)
        h = h + dense(f"{i}.mix", (weight @ values).transpose(0, 2, 1, 3).reshape(n, -1, width))
        h = h + dense(f"{i}.down", np.maximum(dense(f"{i}.up", norm(f"{i}.norm2", h)), 0))
    logits = dense("bins", norm("norm", h))[:, 0].astype(np.float64)
    masses = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(masses / masses.sum(axis=1, keepdims=True))


@functools.lru_cache(maxsize=4)
def load_weights(path: Path) -> Arrays:
    """The arrays of a file of weights as float32; kept, as every predictor shares them."""
    from safetensors.numpy import load_file

    return {name: array.astype(np.float32) for name, array in load_file(path).items()}


class LCPFN(Predictor):
    """Posterior predictive distribution of the final accuracy under a prior of curves that rise in the end.

    The curves' first epochs are all it knows: nothing is learned from the task.

    Args:
        rng: not used.
        weights: file of other weights, as `lc_pfn_training` writes them; None for the package's.
    """

    def __init__(self, rng: np.random.Generator, *, weights: str | None = None) -> None:
        super().__init__(rng)
        self._path = _WEIGHTS if weights is None else Path(weights).resolve()

    @functools.cached_property
    def bars(self) -> Bars:
        """The bins of the predictions' masses."""
        return Bars(load_weights(self._path)["borders"].astype(np.float64))

    def predict(self, observed: Curves) -> Prediction:
        """A `BarPrediction`; of complete curves their end, with certainty. Not ok where an observed accuracy is NaN."""
        if observed.complete:
            return Prediction.of_normal(observed.final, 0.0)
        weights = load_weights(self._path)
        kept, t = thinned(observed.epochs, observed.max_epochs)
        accuracy = observed.accuracy[:, kept]
        ok = np.asarray(np.isfinite(observed.accuracy).all(axis=1))
        masses = np.full((len(observed), len(self.bars.widths)), np.nan)
        known = np.flatnonzero(ok)
        for start in range(0, len(known), _ROWS):
            rows = known[start : start + _ROWS]
            masses[rows] = forward(weights, features(accuracy[rows], t).astype(np.float32))
        mean, std = self.bars.moments(masses)
        return BarPrediction(mean, std, mean, ok, masses)

    def compare(self, prediction: Prediction, best_value: float, best: Prediction, epochs: int) -> Floats:
        """The mass above the incumbent's value, where the distribution is known."""
        if not isinstance(prediction, BarPrediction):
            return super().compare(prediction, best_value, best, epochs)
        return np.where(prediction.ok, self.bars.above(prediction.masses, best_value), np.nan)
