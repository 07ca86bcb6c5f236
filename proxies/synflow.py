"""synflow: how much signal flows through the network if nothing is negative.

Tanaka, Kunin, Yamins and Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic flow",
NeurIPS 2020, equation 2 and Algorithm 1. https://arxiv.org/abs/2006.05467
As a score of architectures: Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, equation 1. Reference
code: SamsungLabs/zero-cost-nas, `foresight/pruners/measures/synflow.py`.

    R = sum of the outputs for an image of ones, with every parameter replaced by its absolute value
    score = sum over weights w of | w dR/dw |

Input: one image of ones; no data. Layers: convolutions and linear layers, weights only. Sign: higher is better.

Where this file differs from the reference code:
    * Batch normalisation is left out everywhere. The code leaves it in the two reduction blocks of NAS-Bench-201 by mistake.
    * float64, as there: scores reach 1e60. What overflows nonetheless ranks last.
    * A disconnected network has the score 0, as there.
"""

from __future__ import annotations

from torch import Tensor, nn

from .passes import Pass, PassProxy, Watch


class SynFlow(PassProxy):
    """Sum of the absolute products of weights and the gradients of the synaptic flow.

    Args:
        rng: not used.
    """

    n_images = 0

    def watch(self, network: nn.Module, images: Tensor) -> Watch:
        result = yield Pass("flow")
        return sum(float((w * g).abs().sum()) for w, g in zip(result.weights, result.gradients, strict=True))
