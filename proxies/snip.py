"""SNIP: how much the loss would change if single weights were removed.

Lee, Ajanthan and Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019, equation 4.
https://arxiv.org/abs/1810.02340
As a score of architectures: Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, equation 1. Reference
code: SamsungLabs/zero-cost-nas, `foresight/pruners/measures/snip.py`.

    score = sum over weights w of | w dL/dw |

L: cross-entropy. Input: 64 labelled training images. Layers: convolutions and linear layers, weights only. Sign: higher is
better.

Where this file differs from the reference code:
    * The code multiplies every weight by a mask of ones and takes the gradient of the mask. At one that is w dL/dw, so the
      pass of grad_norm, plain, fisher and zico serves here, too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .passes import Pass, PassProxy, Watch


class SNIP(PassProxy):
    """Sum of the absolute products of weights and their gradients.

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
        return sum(float((w * g).abs().sum()) for w, g in zip(result.weights, result.gradients, strict=True))
