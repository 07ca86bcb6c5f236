"""What proxies share about networks: their weighted layers, their ReLUs, initialisations, and putting them back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

BatchNorm = nn.modules.batchnorm._BatchNorm


def weighted_layers(network: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """Every convolution and fully connected layer, in the order of `network.modules()`: the layers that most proxies sum over."""
    return [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def relus(network: nn.Module) -> list[nn.Module]:
    """Every module whose class name contains "ReLU", as in the published code."""
    return [m for m in network.modules() if "ReLU" in type(m).__name__]


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """Every batch normalisation."""
    return [m for m in network.modules() if isinstance(m, BatchNorm)]


@contextmanager
def restored(network: nn.Module) -> Iterator[None]:
    """Put parameters, buffers, gradients, requires_grad and train/eval modes back at the end, whatever happened."""
    modes = [(m, m.training) for m in network.modules()]
    # `network.double()` and its like replace the buffers themselves, and the data of parameters.
    places = [(d, name, t) for m, _ in modes for d in (m._parameters, m._buffers) for name, t in d.items()]
    saved = [(t, t.data, t.data.clone(), t.requires_grad, t.grad) for t in {id(t): t for _, _, t in places if t is not None}.values()]
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


def _each(network: nn.Module, fill: Callable[[torch.Tensor], object]) -> None:
    """Fill the weights of convolutions and linear layers; biases 0, batch normalisation the identity."""
    with torch.no_grad():
        for m in network.modules():
            if isinstance(m, nn.Conv2d | nn.Linear):
                fill(m.weight)
                if m.bias is not None:
                    m.bias.zero_()
            elif isinstance(m, BatchNorm) and m.affine:
                m.weight.fill_(1.0)
                m.bias.zero_()


def normal_init(network: nn.Module, rng: torch.Generator) -> None:
    """Standard normal weights, biases 0 (Zen-NAS, SWAP)."""
    _each(network, lambda w: w.normal_(generator=rng))


def _kaiming(network: nn.Module, rng: torch.Generator, mode: str) -> None:
    def fill(weight: torch.Tensor) -> None:
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
        weight.normal_(0.0, math.sqrt(2.0 / (fan_in if mode == "fan_in" else fan_out)), generator=rng)

    _each(network, fill)


def kaiming_fan_in(network: nn.Module, rng: torch.Generator) -> None:
    """Kaiming normal weights, fan-in mode, gain of ReLU, biases 0 (He et al., ICCV 2015)."""
    _kaiming(network, rng, "fan_in")


def kaiming_fan_out(network: nn.Module, rng: torch.Generator) -> None:
    """Kaiming normal weights, fan-out mode, gain of ReLU, biases 0."""
    _kaiming(network, rng, "fan_out")


def as_it_is(network: nn.Module, rng: torch.Generator) -> None:
    """Leave the weights as the network's constructor drew them."""
    del network, rng


INITIALISATIONS: Mapping[str, Initialise] = {
    "default": as_it_is,
    "normal": normal_init,
    "kaiming_fan_in": kaiming_fan_in,
    "kaiming_fan_out": kaiming_fan_out,
}
