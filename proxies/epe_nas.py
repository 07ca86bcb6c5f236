"""EPE-NAS: how differently a network's output depends on images of one class.

Lopes, Alirezazadeh and Alexandre, "EPE-NAS: Efficient Performance Estimation Without Training for Neural Architecture
Search", ICANN 2021. https://arxiv.org/abs/2102.08099
Reference code: VascoLopes/EPE-NAS, `search.py`; automl/NASLib, `naslib/predictors/pruners/measures/epe_nas.py`.

    J_i = gradient of the sum of image i's logits with respect to image i, as one row
    M_c = correlation matrix of the rows of the images of class c
    s_c = sum over its entries m of log(|m| + k),  k = 1e-5
    score = sum over classes c of |s_c|                                      up to 100 logits
    score = sum over pairs of classes (c, d) of |s_c - s_d|, by classes      more; s_c divided by the images of class c

Input: 64 labelled training images (NASLib; `@paper` reads 256). Layers: none in particular. Sign: higher is better.

Where this file differs from the reference code:
    * The pass is shared with jacob_cov, and M_c is taken out of the correlation matrix of all rows.
    * The number of logits decides on the form, as in NASLib. The authors' script always has the first form.
    * As there, in the second form a class with one image does not count; NASLib's set of 120 classes has hardly any with
      more in a batch of 64. Where no class counts there is no score (-inf).
    * As there, a Jacobian row that is constant gives no score (-inf).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .base import UNSCORABLE
from .jacob_cov import correlations
from .passes import Pass, PassProxy, Watch

_K = 1e-5


class EPENAS(PassProxy):
    """Sum of the logarithms of correlations of the Jacobian's rows within classes.

    Args:
        rng: not used.
        batch_size: images; the score grows with it, so scores of different sizes do not compare.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"batch_size": 256}}
    uses_labels = True

    def __init__(self, rng: torch.Generator | None = None, *, batch_size: int = 64) -> None:
        super().__init__(rng)
        self.n_images = batch_size

    def watch(self, network: nn.Module, images: Tensor) -> Watch:
        result = yield Pass("jacobian")
        assert result.jacobian is not None
        logs = torch.log(correlations(result.jacobian).abs() + _K)
        per_class = []
        many = result.outputs.shape[1] > 100
        for label in torch.unique(result.labels):
            members = torch.nonzero(result.labels == label)[:, 0]
            total = logs[members][:, members].sum()
            if not many:
                per_class.append(total)
            elif len(members) > 1:
                per_class.append(total / len(members))
        if not per_class:
            return UNSCORABLE
        sums = torch.stack(per_class)
        if many:
            return float((sums[:, None] - sums[None, :]).abs().sum() / len(sums))
        return float(sums.abs().sum())
