"""best_so_far: a training ends as high as it has been.

A baseline; nothing to cite. Rules that compare trainings by their best value so far are common, for example the median rule of
Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017.

    score = max over t <= m of y_t

Looks at: validation accuracy. Needs: nothing. A training that diverged (NaN) has no best value: nothing is said of it.
"""

from __future__ import annotations

from .base import Curves, Prediction, Predictor


class BestSoFar(Predictor):
    """The highest validation accuracy of the observed epochs.

    Args:
        rng: not used.
    """

    def predict(self, observed: Curves) -> Prediction:
        return Prediction.of_score(observed.accuracy.max(axis=1))
