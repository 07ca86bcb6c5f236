"""jacob_cov: how differently a network's output depends on its images.

Mellor, Turner, Storkey and Crowley, "Neural Architecture Search without Training", first version, 2020.
https://arxiv.org/abs/2006.04647v1
As a score among others: Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021. Reference code:
BayesWatch/nas-without-training at v1.0; SamsungLabs/zero-cost-nas, `foresight/pruners/measures/jacob_cov.py`.

    J_i = gradient of the sum of image i's logits with respect to image i, as one row
    C   = correlation matrix of the rows, with eigenvalues s_i
    score = - sum over i of log(s_i + k) + 1 / (s_i + k),  k = 1e-5

Input: 64 training images without labels (zero-cost-nas and NASLib; `@v1` reads 256, as the paper). Layers: none in
particular. Sign: higher is better; the best value, of uncorrelated rows, is about minus the number of images.

Where this file differs from the reference code:
    * A symmetric eigenvalue solver in float64, and negative eigenvalues are 0: a correlation matrix has none. The code uses the
      solver for general matrices, whose rounding errors below -k make the score NaN.
    * As there, a row that is constant has no correlation with others, so the network has no score (-inf). That is so for
      a network whose output does not depend on the image. What is constant up to rounding counts as constant.
As there, batch normalisation uses the batch, so a row has a part from the other images' logits. In a network that ends in batch
normalisation, global average pooling and a linear classifier (DARTS) the sum of all logits does not depend on what was
normalised, so most of the Jacobian is 0 but for rounding errors, and so is what the score says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .base import UNSCORABLE
from .passes import Pass, PassProxy, Watch

_K = 1e-5
_ROUNDING = 1e-6
"""A row that deviates from its mean by less, relative to its norm, is constant: float32 has an epsilon of 1.2e-7."""


class JacobCov(PassProxy):
    """Sum over the eigenvalues of the correlation matrix of the Jacobian's rows.

    Args:
        rng: not used.
        batch_size: images; the score grows with it, so scores of different sizes do not compare.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"v1": {"batch_size": 256}}

    def __init__(self, rng: torch.Generator | None = None, *, batch_size: int = 64) -> None:
        super().__init__(rng)
        self.n_images = batch_size

    def watch(self, network: nn.Module, images: Tensor) -> Watch:
        result = yield Pass("jacobian")
        assert result.jacobian is not None
        matrix = correlations(result.jacobian)
        if not matrix.isfinite().all():
            return UNSCORABLE
        s = torch.linalg.eigvalsh(matrix).clamp_(min=0)
        return -float((torch.log(s + _K) + 1 / (s + _K)).sum())


def correlations(rows: Tensor) -> Tensor:
    """Pearson correlations of the rows of `(n, features)`, float64 `(n, n)`; NaN for a row that is constant."""
    rows = rows.double()
    centred = rows - rows.mean(1, keepdim=True)
    norms = torch.linalg.vector_norm(centred, dim=1)
    norms[norms <= _ROUNDING * torch.linalg.vector_norm(rows, dim=1)] = torch.nan
    centred /= norms[:, None]
    return (centred @ centred.T).clamp_(-1, 1)
