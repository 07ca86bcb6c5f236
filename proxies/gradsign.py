"""GradSign: how far the gradients of single images agree in sign.

Zhang and Jia, "GradSign: Model Performance Inference with Theoretical Insights", ICLR 2022.
https://arxiv.org/abs/2110.08616
Reference code: cmu-catalyst/GradSign, `zero-cost-nas-code/foresight/pruners/measures/grad_conflict.py`.

    score = sum over weights w of | sum over images i of sign(dL_i/dw) |

L_i: cross-entropy of image i. Input: 128 labelled training images. Layers: convolutions and linear layers, weights only.
Sign: higher is better.

As in the reference code, each image goes through the network alone, in train mode: batch normalisation uses the statistics of
the one image. So a network that normalises a single value per channel has no score, and in one that ends in batch
normalisation and global average pooling (DARTS) the pooled values, and with them most gradients, are 0 but for rounding.

Where this file differs from the reference code:
    * Signs are added up image by image; the code keeps the gradients of all images.
    * A gradient that is NaN leaves the network without a score (-inf); the code leaves out the weight.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .base import Proxy, ProxyError, finite
from .layers import restored, weighted_layers


class GradSign(Proxy):
    """Sum over weights of the surplus of images whose gradients have one sign.

    Args:
        rng: not used.
        batch_size: images; each takes a pass of its own.
    """

    uses_labels = True

    def __init__(self, rng: torch.Generator | None = None, *, batch_size: int = 128) -> None:
        super().__init__(rng)
        self.n_images = batch_size

    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        weights = [layer.weight for layer in weighted_layers(network)]
        surplus = [torch.zeros_like(weight) for weight in weights]
        with restored(network), torch.enable_grad():
            network.train()
            for image, label in zip(torch.split(images, 1), torch.split(labels, 1), strict=True):
                try:
                    loss = functional.cross_entropy(network(image), label)
                except ValueError as error:
                    raise ProxyError(
                        f"GradSign passes each image alone, which {type(network).__name__} refuses: {error}"
                    ) from error
                if loss.requires_grad:
                    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
                    for total, gradient in zip(surplus, gradients, strict=True):
                        if gradient is not None:
                            total += gradient.sign()
        return finite(sum(float(total.abs().sum(dtype=torch.float64)) for total in surplus))
