"""plain: the signed version of SNIP.

Abdelfattah, Mehrotra, Dudziak and Lane, "Zero-Cost Proxies for Lightweight NAS", ICLR 2021 (in its code only).
https://arxiv.org/abs/2101.08134
Reference code: SamsungLabs/zero-cost-nas, `foresight/pruners/measures/plain.py`. The quantity is that of Mozer and
Smolensky, "Skeletonization", NIPS 1989.

    score = sum over weights w of w dL/dw

L: cross-entropy. Input: 64 labelled training images. Layers: convolutions and linear layers, weights only. Sign: as
published; on NAS-Bench-201 good networks have a low score, so the rank correlation is about zero or negative.

Where this file differs from the reference code:
    * The pass is shared with grad_norm, snip, fisher and zico.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .passes import Pass, PassProxy, Watch


class Plain(PassProxy):
    """Sum of the products of weights and their gradients.

    Args:
        rng: not used.
        batch_size: images.
    """

    uses_labels = True

    def __init__(self, rng: torch.Generator | None = None, *, batch_size: int = 64) -> None:
        super().__init__(rng)
        self.n_images = batch_size

    def watch(self, network: nn.Module, images: Tensor) -> Watch:
        result = yield Pass("loss")
        return sum(float((w * g).sum()) for w, g in zip(result.weights, result.gradients, strict=True))
