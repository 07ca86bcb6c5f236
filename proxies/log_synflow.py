"""log-synflow: synflow with the gradients' logarithm, so that it does not explode with depth.

Cavagnero, Robbiano, Caputo and Averta, "FreeREA: Training-Free Evolution-based Architecture Search", WACV 2023, equation 3.
https://arxiv.org/abs/2207.05135
Reference code: NiccoloCavagnero/FreeREA, `metrics/synflow.py`.

    R = sum of the outputs for an image of ones, with every parameter replaced by its absolute value
    score = sum over weights w of | w log(1 + dR/dw) |

Input: one image of ones; no data. Layers: convolutions and linear layers, weights only. Sign: higher is better.

Where this file differs from the reference code:
    * The scores that the authors published (`cached_metrics`) are not those of the published function: there disconnected
      cells have ordinary scores, where log(1 + 0) is 0. This file follows the function.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .passes import Pass, PassProxy, Watch


class LogSynFlow(PassProxy):
    """Sum of the absolute products of weights and the logarithm of the gradients of the synaptic flow.

    Args:
        rng: not used.
    """

    n_images = 0

    def watch(self, network: nn.Module, images: Tensor) -> Watch:
        result = yield Pass("flow")
        return sum(
            float((w * torch.log1p(g)).abs().sum()) for w, g in zip(result.weights, result.gradients, strict=True)
        )
