"""mean_of_curve: the higher a training has been all along, the better it ends.

A baseline: the area under the learning curve so far, also the "running average" of the median rule of Golovin et al., "Google
Vizier: A Service for Black-Box Optimization", KDD 2017. The sum over the epochs of a validation loss, which ranks in the same
way, is a baseline of Ru et al., "Speedy Performance Estimation for Neural Architecture Search", NeurIPS 2021.
https://arxiv.org/abs/2006.04492

    score = (1/m) sum over t <= m of y_t

Looks at: validation accuracy. Needs: nothing. A training that diverged (NaN) has no mean: nothing is said of it.
"""

from __future__ import annotations

from .base import Curves, Prediction, Predictor


class MeanOfCurve(Predictor):
    """The mean validation accuracy of the observed epochs.

    Args:
        rng: not used.
    """

    def predict(self, observed: Curves) -> Prediction:
        return Prediction.of_score(observed.accuracy.mean(axis=1))
