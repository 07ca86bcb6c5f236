"""Parameters and FLOPs of a network, counted as NAS-Bench-201 counts them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def count_parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def count_flops(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one forward pass of one image of `input_shape` (channels, height, width).

    NAS-Bench-201's convention: convolutions count multiply-accumulates, linear layers `in * out + out`; normalisation,
    pooling, activations and additions are free.
    """
    total = 0

    def conv(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        per_position = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
        total += output[0].numel() * per_position + (output[0].numel() if module.bias is not None else 0)

    def linear(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Linear)
        total += output[0].numel() * (module.in_features + (module.bias is not None))

    hooks = [m.register_forward_hook(conv) for m in network.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_hook(linear) for m in network.modules() if isinstance(m, nn.Linear)]
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *input_shape))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return total
