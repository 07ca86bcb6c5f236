"""affine_curves: a training continues as an earlier one did, stretched and shifted to fit what was seen of it.

Chandrashekaran and Lane, "Speeding up Hyper-parameter Optimization by Extrapolation of Learning Curves using Previous Builds",
ECML PKDD 2017. https://doi.org/10.1007/978-3-319-71249-9_29
Reference code: akshayc11/Spearmint, branch `elc`, `spearmint/pylrpredictor/gradient_descent.py` and
`prevonlyterminationcriterion.py`.

    (a, b) = argmin (1/2m) sum_t w_t (c_t - a p_t - b)^2 + (lambda_3/2) exp(-lambda_4 m) (1 - a)^2
    c_T predicted by one previous curve p:   a p_T + b
    w_t = 1, or 10^(t/m) with t = 0..m-1, which trusts the latest epochs most

c: the running curve, of which m epochs are known. The second term keeps the scale near 1 while little is known. Pairs (a, b)
with a p_T + b < max_t c_t are discarded, the 100 that fit best (smallest |c - a p - b|) are kept, and of these the predictions
in [0, 1] give mean and standard deviation of a normal distribution.

Looks at: validation accuracy. Needs: complete trainings of the task, at least 4 (the code's example; its default is 1).

Where this file differs from the reference code:
    * The minimum is computed, by a system of two equations: without the barrier, which the code does not switch on, the
      objective is quadratic. The code takes 1,000 steps of gradient descent from each of 100 random starts per previous curve.
      So each previous curve contributes one prediction, not 100, and the spread is that between previous curves only.
    * A prediction needs at least two previous curves that are kept; with one there would be no spread.
    * lambda_1 is 0 as in the code, and its term left out.
    * The rule's second condition, a standard deviation below 0.005, which the code applies where it is set, is left out.
    * Curves with a NaN are no previous curves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .base import Curves, CurvesError, Prediction, Predictor

Floats = npt.NDArray[np.float64]

_ROWS = 2_000_000  # numbers in the largest array of one step: running curves are taken in parts


class AffineCurves(Predictor):
    """The ends of previous curves after the affine map that fits their beginnings to the running curve.

    Args:
        rng: not used.
        tie: lambda_3, weight of the term that keeps the scale near 1; 0 for none.
        tie_decay: lambda_4, how fast that weight falls per epoch.
        recency: weigh the latest epoch up to ten times as much as the first.
        keep: previous curves that predict, those that fit best.

    Presets: `recency`, the code's example.

    Raises:
        ValueError: a negative `tie` or `tie_decay`, or `keep` below 2.
    """

    delta: ClassVar[float] = 0.05  # as published
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"recency": {"recency": True}}
    needs_curves: ClassVar[int] = 4

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        tie: float = 1.0,
        tie_decay: float = 1.0,
        recency: bool = False,
        keep: int = 100,
    ) -> None:
        super().__init__(rng)
        if tie < 0 or tie_decay < 0:
            raise ValueError(f"tie and tie_decay must not be negative, not {tie!r} and {tie_decay!r}")
        if keep < 2:
            raise ValueError(f"keep must be at least 2, not {keep!r}: the spread is that between previous curves")
        self.tie = tie
        self.tie_decay = tie_decay
        self.recency = recency
        self.keep = keep
        self._previous: Floats | None = None

    def learn(self, curves: Curves, checks: Sequence[int], meta: Curves | None) -> None:
        """Remember the curves."""
        self._previous = curves.accuracy[np.isfinite(curves.accuracy).all(axis=1)]

    def predict(self, observed: Curves) -> Prediction:
        """Mean and spread of what the previous curves predict; not ok where fewer than two of them can be used.

        Raises:
            CurvesError: nothing was learned yet, or the previous curves have another length.
        """
        if self._previous is None:
            raise CurvesError("AffineCurves predicts after it was fitted on complete curves")
        if self._previous.shape[1] != observed.max_epochs:
            raise CurvesError(
                f"the previous curves have {self._previous.shape[1]} epochs, these trainings {observed.max_epochs}"
            )
        mean, std = np.full((2, len(observed)), np.nan)
        step = max(1, _ROWS // max(1, self._previous.shape[0] * observed.epochs))
        for start in range(0, len(observed), step):
            part = slice(start, start + step)
            mean[part], std[part] = self._predict(observed.accuracy[part])
        return Prediction.of_normal(mean, std)

    def fit_affine(self, running: Floats, previous: Floats) -> tuple[Floats, Floats]:
        """Scale and shift that map every previous curve to every running curve.

        Args:
            running: `(n, m)`.
            previous: `(p, m)`.

        Returns:
            Scale a and shift b, both `(n, p)`.
        """
        m = running.shape[1]
        weights = 10.0 ** (np.arange(m) / m) if self.recency else np.ones(m)
        share = weights / weights.sum()
        p_mean, c_mean = previous @ share, running @ share
        p = previous - p_mean[:, None]
        c = running - c_mean[:, None]
        # b is free, so that it drops out of the equations for curves without their means.
        covariance = (c * weights) @ p.T / m
        variance = (p**2) @ weights / m
        tie = self.tie * np.exp(-self.tie_decay * m)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = (covariance + tie) / (variance + tie)
        # A previous curve that is constant so far says nothing of the scale; only the tie does, however small.
        scale = np.where(variance > 1e-18, scale, 1.0)
        return scale, c_mean[:, None] - scale * p_mean

    def _predict(self, running: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation for each running curve, NaN where there are fewer than two predictions."""
        assert self._previous is not None
        n, m = running.shape
        previous = self._previous[:, :m]
        scale, shift = self.fit_affine(running, previous)
        residual = running[:, None, :] - scale[:, :, None] * previous - shift[:, :, None]
        loss = np.sum(residual**2, axis=2)
        end = scale * self._previous[:, -1] + shift
        with np.errstate(invalid="ignore"):
            loss = np.where(end < running.max(axis=1)[:, None], np.inf, loss)
            loss = np.where(np.isnan(loss), np.inf, loss)
            order = np.argsort(loss, axis=1, kind="stable")[:, : self.keep]
            rows = np.arange(n)[:, None]
            ends = end[rows, order]
            used = np.isfinite(loss[rows, order]) & (ends >= 0) & (ends <= 1)
        count = used.sum(axis=1)
        enough = count >= 2
        total = np.maximum(count, 1)
        mean = np.where(used, ends, 0.0).sum(axis=1) / total
        std = np.sqrt(np.where(used, (ends - mean[:, None]) ** 2, 0.0).sum(axis=1) / total)
        return np.where(enough, mean, np.nan), np.where(enough, std, np.nan)
