"""grad_norm: the norm of the loss's gradient.

Abdelfattah, Mehrotra, Dudziak and Lane, "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, section 3.2.
https://arxiv.org/abs/2101.08134
Reference code: SamsungLabs/zero-cost-nas, `foresight/pruners/measures/grad_norm.py`.

    score = sum over layers l of || dL/dW_l ||_2

L: cross-entropy. Input: 64 labelled training images. Layers: convolutions and linear layers, weights only. Sign: higher is
better.

Where this file differs from the reference code:
    * The pass is shared with snip, plain, fisher and zico.
    * A layer that does not take part in the output counts 0, as there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .passes import Pass, PassProxy, Watch


class GradNorm(PassProxy):
    """Sum of the Euclidean norms of the weights' gradients.

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
        return sum(float(torch.linalg.vector_norm(g)) for g in result.gradients)
