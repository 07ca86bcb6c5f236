"""random_score: a number out of the hat, to compare proxies with.

    score ~ uniform on [0, 1)

Input: none. Layers: none. Sign: either.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Proxy


class RandomScore(Proxy):
    """A uniform random number.

    Args:
        rng: draws one number per network.
    """

    n_images = 0

    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        del network, images, labels
        return float(torch.rand((), generator=self.rng, dtype=torch.float64))
