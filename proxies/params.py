"""params: the number of parameters.

No paper; the baseline of Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, and of NAS-Bench-Suite-Zero
(Krishnakumar et al., NeurIPS 2022 datasets and benchmarks).

    score = number of parameters

Input: none. Layers: every parameter of the network, biases and normalisation included. Sign: higher is better.

Where this file differs from others:
    * Parameters that take no part in the output count, as in the official numbers of NAS-Bench-201, and so do frozen ones;
      see live_params for the others.
"""

from __future__ import annotations

from torch import Tensor, nn

from .base import Proxy


class Params(Proxy):
    """Number of parameters.

    Args:
        rng: not used.
    """

    deterministic = True
    n_images = 0

    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        del images, labels
        return float(sum(p.numel() for p in network.parameters()))
