"""From the difference of two scores to the probability of being better.

Platt, "Probabilistic outputs for support vector machines and comparisons to regularized likelihood methods", Advances in Large
Margin Classifiers, 1999: a logistic function of the score, fitted by maximum likelihood with targets that are a little inside
(0, 1), so that scores which separate the training pairs perfectly do not give a step.

The pairs are those that a stopping rule meets: any training against one of the best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

Floats = npt.NDArray[np.float64]

# Share of the training curves that play the incumbent: in a search of 200 trainings nine decisions of ten are made against
# one of the best 5 % (the best of i trainings is expected at the place 1 / (i + 1) from above).
_INCUMBENTS = 0.05
_LEAST = 3
_MOST = 200  # training curves that are paired, so that the number of pairs stays below some 10,000


@dataclass(frozen=True)
class Calibration:
    """`p = 1 / (1 + exp(-(slope * difference + offset)))`; an infinite slope is the step 0, 1/2, 1."""

    slope: float = np.inf
    offset: float = 0.0

    def probability(self, difference: npt.ArrayLike) -> Floats:
        """Probability of ending better, from the score of the training less the score of the incumbent."""
        d = np.asarray(difference, dtype=np.float64)
        if np.isinf(self.slope):
            return np.where(np.isnan(d), np.nan, (np.sign(d) + 1) / 2)
        return np.asarray(expit(self.slope * d + self.offset), dtype=np.float64)


STEP = Calibration()


def fit_calibration(score: Floats, final: Floats) -> Calibration:
    """Fit the logistic function on pairs of trainings.

    Args:
        score: `(n,)`, at one number of epochs; what is not finite is left out.
        final: `(n,)`, final accuracies.

    Returns:
        The step function where there are fewer than four usable trainings, or nothing to learn from.
    """
    known = np.isfinite(score) & np.isfinite(final)
    s, y = score[known][:_MOST], final[known][:_MOST]
    if len(s) < 4 or np.ptp(s) == 0 or np.ptp(y) == 0:
        return STEP
    best = np.argsort(-y, kind="stable")[: max(_LEAST, round(_INCUMBENTS * len(y)))]
    pairs = np.arange(len(y))[:, None] != best[None, :]
    x = (s[:, None] - s[best][None, :])[pairs]
    better, equal = (y[:, None] > y[best][None, :])[pairs], (y[:, None] == y[best][None, :])[pairs]
    scale = float(np.sqrt(np.mean(x**2)))
    if scale == 0:
        return STEP
    positive = better.sum()
    negative = len(x) - positive - equal.sum()
    # Platt's targets.
    target = np.where(better, (positive + 1) / (positive + 2), 1 / (negative + 2))
    target = np.where(equal, 0.5, target)
    design = np.stack((x / scale, np.ones(len(x))), axis=1)
    weights = np.zeros(2)
    for _ in range(50):  # Newton's method on a concave likelihood; the small ridge keeps it from wandering off
        p = expit(design @ weights)
        gradient = design.T @ (target - p) - 1e-3 * weights
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-3 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights = weights + np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-8:
            break
    if (
        weights[0] <= 0
    ):  # a score that ranks the wrong way round says nothing: the share of better trainings is all there is
        return Calibration(0.0, float(np.log((positive + 1) / (negative + 1))))
    return Calibration(float(weights[0]) / scale, float(weights[1]))
