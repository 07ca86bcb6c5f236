"""SWAP: how many different patterns the units of a network make over a few images.

Peng, Song, Fayek, Ciesielski and Chang, "SWAP-NAS: Sample-Wise Activation Patterns for Ultra-fast NAS", ICLR 2024.
https://arxiv.org/abs/2403.04161
Reference code: pym1024/SWAP, `src/metrics/swap.py` and `correlation.py`.

    pattern of a unit = for which of the S images it is active, S bits
    score = number of different patterns, averaged over initialisations with weights ~ N(0, 1)
    regularised: score * exp(- (P - mu)^2 / sigma), P the number of parameters in thousands

Input: 16 real training images. Layers: every ReLU on feature maps. Sign: higher is better.

Where this file differs from the reference code:
    * One initialisation; the code's 32 are the preset `paper`. The code scores DARTS networks of one cell and three channels,
      here the network is scored as it is.
    * There are 2^S patterns, so with 16 images no score is above 65,536, and large networks come near that. Take more images
      to tell them apart.
    * Patterns are numbers of S bits, which are marked in a table or sorted, instead of rows that are sorted: S is at most 63.
    * Every kind of ReLU counts, not only nn.ReLU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .base import Proxy, ProxyError
from .layers import hooked, normal_init, relus, restored

_TABLE = 20  # up to so many images, the patterns have a table of their own


class SWAP(Proxy):
    """Number of different sample-wise activation patterns.

    Args:
        rng: weights.
        batch_size: images, at most 63.
        repeats: initialisations; the score is their mean.
        mu, sigma: for the regularised score, in thousands of parameters and in their square: a network of mu thousand
            parameters keeps its score. Parameters of an auxiliary head do not count. None for no regularisation.

    Presets: `paper` has the 32 initialisations of the published code.

    Raises:
        ValueError: a number out of range, or only one of mu and sigma.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"repeats": 32}}

    def __init__(
        self,
        rng: torch.Generator | None = None,
        *,
        batch_size: int = 16,
        repeats: int = 1,
        mu: float | None = None,
        sigma: float | None = None,
    ) -> None:
        super().__init__(rng)
        if not 1 <= batch_size <= 63:
            raise ValueError(f"batch_size has to be between 1 and 63, not {batch_size}")
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, not {repeats}")
        if (mu is None) != (sigma is None) or (sigma is not None and sigma <= 0):
            raise ValueError(f"the regularised score needs mu and a positive sigma, not {mu} and {sigma}")
        self.n_images = batch_size
        self.repeats = repeats
        self.mu = mu
        self.sigma = sigma

    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        del labels
        layers = relus(network)
        if not layers:
            raise ProxyError(f"{type(network).__name__} has no ReLU module")
        images = images[: self.n_images]
        total = 0
        with restored(network), torch.no_grad():
            network.train()
            for _ in range(self.repeats):
                normal_init(network, self.rng)
                total += count_patterns(network, layers, images)
        score = total / self.repeats
        if self.mu is None or self.sigma is None:
            return score
        size = sum(p.numel() for name, p in network.named_parameters() if "auxiliary" not in name) / 1e3
        return score * math.exp(-((size - self.mu) ** 2) / self.sigma)


def count_patterns(network: nn.Module, layers: list[nn.Module], images: Tensor) -> int:
    """Number of different patterns of the units of these layers, over at most 63 images.

    Raises:
        ProxyError: none of the layers is called with feature maps.
    """
    n = len(images)
    table = torch.zeros(2**n if n <= _TABLE else 0, dtype=torch.bool, device=images.device)
    found: list[Tensor] = []
    # Sums of these are exact, as float32 below 2^24.
    powers = 2.0 ** torch.arange(n, dtype=torch.float32 if n <= _TABLE else torch.float64, device=images.device)

    def look(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.dim() != 4:
            return
        active = (output > 0).flatten(1)
        if n <= _TABLE:
            table[(powers @ active.float()).long()] = True
            found.append(table[:0])
            return
        low, high = min(n, 32), max(n - 32, 0)  # float64 is exact below 2^53, so two halves
        codes = (powers[:low] @ active[:low].double()).long()
        if high:
            codes |= (powers[:high] @ active[low:].double()).long() << 32
        found.append(torch.unique(codes))

    with hooked(layers, look):
        network(images)
    if not found:
        raise ProxyError(f"no ReLU of {type(network).__name__} is called with feature maps")
    return int(torch.count_nonzero(table)) if n <= _TABLE else len(torch.unique(torch.cat(found)))
