"""last_value: a training ends as high as it stands.

The baseline without which no learning-curve method is evaluated; nothing to cite. "Early stopping" of NAS papers, ranking by the
accuracy after a few epochs, is the same, for example in Zoph, Vasudevan, Shlens and Le, "Learning Transferable Architectures for
Scalable Image Recognition", CVPR 2018.

    score = y_m

Looks at: validation accuracy. Needs: nothing. As a stopping rule it compares with the incumbent's accuracy at the same epoch.
"""

from __future__ import annotations

from .base import Curves, Prediction, Predictor


class LastValue(Predictor):
    """The validation accuracy of the last observed epoch.

    Args:
        rng: not used.
    """

    def predict(self, observed: Curves) -> Prediction:
        return Prediction.of_score(observed.accuracy[:, -1])
