"""l2_norm: the norms of the initial weights.

Abdelfattah, Mehrotra, Dudziak and Lane, "Zero-Cost Proxies for Lightweight NAS", ICLR 2021. https://arxiv.org/abs/2101.08134
Reference code: SamsungLabs/zero-cost-nas, `foresight/pruners/measures/l2_norm.py`.

    score = sum over layers l of || W_l ||_2

Input: none. Layers: convolutions and linear layers, weights only. Sign: higher is better. The score is nearly a function of
the number of layers and their widths, and of the initialisation.

Where this file differs from the reference code:
    * Nothing. That code's NAS-Bench-201 network contains all five operations of every edge, of which it uses one; the
      networks of this package contain the chosen ones only, and so the score says something about the cell.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Proxy, finite
from .layers import weighted_layers


class L2Norm(Proxy):
    """Sum of the Euclidean norms of the weights.

    Args:
        rng: not used.
    """

    n_images = 0

    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        del images, labels
        with torch.no_grad():
            return finite(sum(float(torch.linalg.vector_norm(m.weight)) for m in weighted_layers(network)))
