"""fisher: how much the loss would change if single channels were removed.

Theis, Korshunova, Tejani and Huszar, "Faster gaze prediction with dense networks and Fisher pruning", 2018.
https://arxiv.org/abs/1801.05787
As a score of architectures: Turner et al., "BlockSwap: Fisher-guided Block Substitution for Network Compression on a
Budget", ICLR 2020, https://arxiv.org/abs/1906.04113; Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021.
Reference code: SamsungLabs/zero-cost-nas, `foresight/pruners/measures/fisher.py`.

    t_nc  = sum over positions of a dL/da            a: output of a layer for image n, channel c
    D_c   = 1/2 mean over n of t_nc^2
    score = sum over layers and channels of D_c times the weights of the channel

L: cross-entropy. Input: 64 labelled training images. Layers: the outputs of convolutions and linear layers. Sign: higher is
better.

Where this file differs from the reference code:
    * The code hooks an identity after each layer; here the gradient of the layer's output is hooked, so the pass of
      grad_norm, snip, plain and zico serves here, too.
    * As there, D_c is spread over the channel's weights, so a channel counts as often as it has weights: `@channel` counts it
      once, as the papers do.
    * A layer that is called twice: its channel would be removed from both outputs, so t is the sum over both. The code fails.
    * An operation that writes into a layer's output, like an in-place ReLU, changes a before its gradient is known. Then the
      pass is made again, with copies of the outputs. The code fails or uses the changed values.
    * A disconnected network has the information of its classifier's outputs, which are the biases, as there.
    * Linear layers on sequences, `(n, length, channels)`: the channels are the last axis, the positions the length.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .passes import Pass, PassProxy, Result, Watch


class Fisher(PassProxy):
    """Sum of the Fisher information of the layers' channels.

    Args:
        rng: not used.
        batch_size: images.
        per_parameter: multiply a channel's information by its weights.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"channel": {"per_parameter": False}}
    uses_labels = True

    def __init__(self, rng: torch.Generator | None = None, *, batch_size: int = 64, per_parameter: bool = True) -> None:
        super().__init__(rng)
        self.n_images = batch_size
        self.per_parameter = per_parameter

    def watch(self, network: nn.Module, images: Tensor) -> Watch:
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        effects = yield from _effects(layers, copies=False)
        if effects is None:
            effects = yield from _effects(layers, copies=True)
            assert effects is not None
        score = 0.0
        for layer, t in effects.items():
            weights = layer.weight[0].numel() if self.per_parameter else 1
            score += weights * float(t.double().square().mean(0).sum()) / 2
        return score


def _effects(
    layers: list[nn.Conv2d | nn.Linear], *, copies: bool
) -> Generator[Pass, Result, dict[nn.Conv2d | nn.Linear, Tensor] | None]:
    """The t of each layer that takes part, `(n, channels)`; None if an output was overwritten of which there is no copy."""
    effects: dict[nn.Conv2d | nn.Linear, Tensor] = {}
    overwritten = False

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        value = output.detach().clone() if copies else output.detach()
        version = value._version  # counts what is written into the output as well

        def add(gradient: Tensor) -> None:
            nonlocal overwritten
            handle.remove()
            if value._version != version:
                overwritten = True
                return
            product = value * gradient
            if isinstance(layer, nn.Linear):
                product = product.movedim(-1, 1)
            t = product.sum(tuple(range(2, product.dim()))) if product.dim() > 2 else product
            effects[layer] = effects[layer] + t if layer in effects else t

        if output.requires_grad:
            handle = output.register_hook(add)  # type: ignore[no-untyped-call]

    yield Pass("loss", hooks=[(layer, look) for layer in layers])
    return None if overwritten else effects
