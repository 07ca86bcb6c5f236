"""ZiCo: how large gradients are, compared with how much they vary between batches.

Li, Yang, Bhardwaj and Marculescu, "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients", ICLR 2023.
https://arxiv.org/abs/2301.11300
Reference code: SLDGroup/ZiCo, `ZeroShotProxy/compute_zico.py`.

    score = sum over layers l of log( sum over weights w of layer l of  mean |g_w| / sd g_w )

g: gradient of the cross-entropy of one batch; mean and standard deviation (of the population, signed) over the batches.
Weights with sd 0 are left out, and so are layers without any other weights. Input: 2 batches of 64 labelled training images.
Layers: convolutions and linear layers, weights only. Sign: higher is better.

Where this file differs from the reference code:
    * The default starts from the weights that the network has, and its first batch is the one of grad_norm, snip, plain and
      fisher. `@paper` is the published setting: batches of 128, and Kaiming normal weights (fan-in), which the code leaves to
      whoever builds the network.
    * Each batch has its own gradient, as in the paper. Copies of the code are in circulation that do not clear the
      gradients between batches, so that the second one is the sum of both.
    * A layer that does not take part in the output is left out. The code fails on it.
    * A network without any gradient has the score 0, as there. With two batches no network has less, since then every
      mean |g| / sd g is at least 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .base import ProxyError
from .layers import INITIALISATIONS, restored
from .passes import Pass, PassProxy, Watch


class ZiCo(PassProxy):
    """Sum over layers of the logarithm of the inverse coefficients of variation of gradients.

    Args:
        rng: draws the weights, where `init` asks for that.
        batch_size: images in a batch; fewer, and equally many in each, where there are not enough.
        batches: at least 2.
        init: one of `layers.INITIALISATIONS`; "default" takes the network as it is.

    Raises:
        ValueError: fewer than two batches, or an unknown `init`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"batch_size": 128, "init": "kaiming_fan_in"}}
    uses_labels = True

    def __init__(
        self,
        rng: torch.Generator | None = None,
        *,
        batch_size: int = 64,
        batches: int = 2,
        init: str = "default",
    ) -> None:
        super().__init__(rng)
        if batches < 2:
            raise ValueError(f"batches has to be at least 2, not {batches}")
        if init not in INITIALISATIONS:
            raise ValueError(f"init has to be one of {', '.join(INITIALISATIONS)}, not {init!r}")
        self.batch_size = batch_size
        self.batches = batches
        self.init = init
        self.n_images = batch_size * batches
        self.alone = init != "default"

    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        with restored(network):
            INITIALISATIONS[self.init](network, self.rng)
            return super().score(network, images, labels)

    def watch(self, network: nn.Module, images: Tensor) -> Watch:
        size = min(self.batch_size, len(images) // self.batches)
        if size == 0:
            raise ProxyError(f"ZiCo compares {self.batches} batches, so it needs as many images, not {len(images)}")
        gradients = []
        for i in range(self.batches):
            result = yield Pass("loss", i * size, (i + 1) * size)
            gradients.append(result.gradients)
        score = 0.0
        for layer in zip(*gradients, strict=True):
            g = torch.stack(layer).flatten(1).double()
            g = g[:, (g != g[0]).any(0)]  # where sd is not 0
            if g.numel():
                score += math.log(float((g.abs().mean(0) / g.std(0, correction=0)).sum()))
        return score
