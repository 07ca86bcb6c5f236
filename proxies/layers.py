"""What proxies share about networks: their weighted layers, their ReLUs, initialisations, and putting them back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

BatchNorm = nn.modules.batchnorm._BatchNorm


def weighted_layers(network: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """Every convolution and fully connected layer, in the order of `network.modules()`: the layers that most proxies sum over."""
    return [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def relus(network: nn.Module) -> list[nn.Module]:
    """Every ReLU of any kind: modules without children whose class name contains "ReLU" (so no block named "ReLUConvBN")."""
    return [m for m in network.modules() if "ReLU" in type(m).__name__ and next(m.children(), None) is None]


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """Every batch normalisation."""
    return [m for m in network.modules() if isinstance(m, BatchNorm)]


@contextmanager
def restored(network: nn.Module) -> Iterator[None]:
    """Put parameters, buffers, gradients, requires_grad and train/eval modes back at the end, whatever happened."""
    modes = [(m, m.training) for m in network.modules()]
    # `network.double()` and its like replace the buffers themselves, and the data of parameters.
    tables: list[dict[str, Any]] = [d for m, _ in modes for d in (m._parameters, m._buffers)]
    places = [(d, name, t) for d in tables for name, t in d.items()]
    saved = [
        (t, t.data, t.data.clone(), t.requires_grad, t.grad)
        for t in {id(t): t for _, _, t in places if t is not None}.values()
    ]
    try:
        yield
    finally:
        for d, name, t in places:
            d[name] = t
        with torch.no_grad():
            for t, storage, values, wanted, grad in saved:
                t.data = storage
                t.data.copy_(values)
                t.requires_grad_(wanted)
                t.grad = grad
        for m, training in modes:
            m.training = training


Initialise = Callable[[nn.Module, torch.Generator], None]


def _normal(network: nn.Module, rng: torch.Generator, deviation: Callable[[torch.Tensor], float]) -> None:
    """Normal weights of convolutions and linear layers; biases 0, batch normalisation the identity."""
    with torch.no_grad():
        for m in network.modules():
            if isinstance(m, nn.Conv2d | nn.Linear):
                # Drawn in the order of the indices, whatever order the weights have in memory, and on the CPU.
                drawn = torch.empty(m.weight.shape, dtype=torch.float32)
                m.weight.copy_(drawn.normal_(0.0, deviation(m.weight), generator=rng))
                if m.bias is not None:
                    m.bias.zero_()
            elif isinstance(m, BatchNorm) and m.affine:
                m.weight.fill_(1.0)
                m.bias.zero_()


def normal_init(network: nn.Module, rng: torch.Generator) -> None:
    """Standard normal weights, biases 0 (Zen-NAS, SWAP)."""
    _normal(network, rng, lambda weight: 1.0)


def _fans(weight: torch.Tensor) -> tuple[int, int]:
    """Inputs and outputs of one unit, as in torch.nn.init."""
    receptive = weight[0, 0].numel()
    return weight.shape[1] * receptive, weight.shape[0] * receptive


def kaiming_fan_in(network: nn.Module, rng: torch.Generator) -> None:
    """Kaiming normal weights, fan-in mode, gain of ReLU, biases 0 (He et al., ICCV 2015)."""
    _normal(network, rng, lambda weight: math.sqrt(2.0 / _fans(weight)[0]))


def kaiming_fan_out(network: nn.Module, rng: torch.Generator) -> None:
    """Kaiming normal weights, fan-out mode, gain of ReLU, biases 0."""
    _normal(network, rng, lambda weight: math.sqrt(2.0 / _fans(weight)[1]))


def as_it_is(network: nn.Module, rng: torch.Generator) -> None:
    """Leave the weights as the network's constructor drew them."""
    del network, rng


INITIALISATIONS: Mapping[str, Initialise] = {
    "default": as_it_is,
    "normal": normal_init,
    "kaiming_fan_in": kaiming_fan_in,
    "kaiming_fan_out": kaiming_fan_out,
}


@contextmanager
def hooked(modules: Iterable[nn.Module], hook: Callable[[nn.Module, Any, Any], Any]) -> Iterator[None]:
    """Forward hooks `hook(module, inputs, output)` on these modules, taken off at the end."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def gaussian(rng: torch.Generator, like: torch.Tensor, n: int, size: int | None = None) -> torch.Tensor:
    """`n` images of standard normal noise, of the shape of the images `like` (of which there may be none).

    Args:
        rng: a generator of the CPU.
        like: `(any, channels, height, width)`; the noise is on its device.
        n: how many.
        size: height and width, if they are not those of `like`.
    """
    sides = like.shape[2:] if size is None else (size, size)
    noise = torch.randn(n, like.shape[1], *sides, generator=rng)
    return noise.to(like.device).contiguous(memory_format=torch.channels_last)
