"""TSE: the faster the training loss falls, the better a training ends ("training speed estimation", first called SoTL).

Ru, Lyle, Schut, Fil, van der Wilk and Gal, "Speedy Performance Estimation for Neural Architecture Search", NeurIPS 2021.
https://arxiv.org/abs/2006.04492

    sum    score = - sum over t <= m of l_t
    last   score = - sum over m - E < t <= m of l_t             "TSE-E"; the paper finds E = 1 best
    ema    score = - sum over t <= m of g^(m - t) l_t           "TSE-EMA"; g = 0.999

l_t: mean loss of the training batches of epoch t, as it arises while training. Lower losses are better, hence the sign.

Looks at: training losses. Needs: nothing to fit. Where losses come close to 0 it says little, and architectures that were trained
with different hyper-parameters it should not compare.

Where this file differs from the paper:
    * Before epoch E the sum of `last` is over all observed epochs.
    * The formula of the moving average is the paper's. Public code has two others, under the same name: one that is mostly the
      last loss and one that is close to the plain sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from .base import Curves, CurvesError, Floats, Prediction, Predictor


class TSE(Predictor):
    """Sum of training losses, with a minus sign.

    Args:
        rng: not used.
        form: "sum", "last" or "ema".
        last: epochs E that `form="last"` adds up.
        decay: factor g per epoch of `form="ema"`, in (0, 1].

    Presets: `last` is TSE-E with E = 1, `ema` is TSE-EMA.

    Raises:
        ValueError: another form, `last` below 1, or `decay` outside (0, 1].
    """

    uses = frozenset({"train_loss"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"last": {"form": "last"}, "ema": {"form": "ema"}}

    def __init__(self, rng: np.random.Generator, *, form: str = "sum", last: int = 1, decay: float = 0.999) -> None:
        super().__init__(rng)
        if form not in ("sum", "last", "ema"):
            raise ValueError(f"form is 'sum', 'last' or 'ema', not {form!r}")
        if last < 1:
            raise ValueError(f"last is a number of epochs from 1, not {last!r}")
        if not 0 < decay <= 1:
            raise ValueError(f"decay is a factor in (0, 1], not {decay!r}")
        self.form, self.last, self.decay = form, last, decay

    def learn(self, curves: Curves, checks: Sequence[int], meta: Curves | None) -> None:
        """Nothing is learned; that losses are missing is said here already."""
        if len(curves):
            _losses(curves)

    def predict(self, observed: Curves) -> Prediction:
        """Score the trainings.

        Raises:
            CurvesError: the curves come without training losses.
        """
        losses = _losses(observed)
        m = losses.shape[1]
        if self.form == "last":
            weights = np.where(np.arange(m) >= m - self.last, 1.0, 0.0)
        elif self.form == "ema":
            weights = self.decay ** np.arange(m - 1, -1, -1.0)
        else:
            weights = np.ones(m)
        used = weights > 0  # 0 * NaN is NaN
        return Prediction.of_score(-(losses[:, used] * weights[used]).sum(axis=1))


def _losses(curves: Curves) -> Floats:
    if curves.train_loss is None:
        raise CurvesError("tse adds up training losses, and these curves come without any")
    return curves.train_loss
