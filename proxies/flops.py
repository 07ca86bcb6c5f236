"""flops: multiply-accumulates of one forward pass.

No paper; the baseline of Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, and of NAS-Bench-Suite-Zero
(Krishnakumar et al., NeurIPS 2022 datasets and benchmarks).

    convolution: positions * channels out * (channels in / groups * kernel + 1 if it has a bias)
    linear layer: out * (in + 1 if it has a bias)
    score = sum over all calls of such layers

Input: one image of zeros of the shape of the images. Layers: convolutions and linear layers. Sign: higher is better.

Where this file differs from others:
    * NAS-Bench-201's convention: normalisation, pooling, activations and additions are free, one multiplication with one
      addition counts 1. NASLib also counts pooling and normalisation, so its numbers are a little higher.
    * A layer that is called twice counts twice, one that is never called not at all; one whose result is never used counts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .base import Proxy
from .layers import hooked, restored, weighted_layers


class FLOPs(Proxy):
    """Multiply-accumulates of convolutions and linear layers, of one image.

    Args:
        rng: not used.
    """

    deterministic = True
    n_images = 0

    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        del labels
        return float(multiply_accumulates(network, images))


def multiply_accumulates(network: nn.Module, images: Tensor) -> int:
    """Multiply-accumulates of one image of the shape `images.shape[1:]`; the network is left as it was."""
    total = 0

    def count(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.Linear)
        each = module.weight[0].numel() + (module.bias is not None)
        total += output.numel() * each

    with restored(network), hooked(weighted_layers(network), count), torch.no_grad():
        network.eval()  # batch normalisation of one image with one position has no variance
        network(images.new_zeros(1, *images.shape[1:]))
    return total
