"""Batch normalisation of a supernet: whose statistics are used, and how those of one path are estimated.

A running average taken while paths change belongs to no path. So a supernet keeps none: it normalises by the batch, in
training and when it is evaluated ("batch"), unless the statistics of one path were estimated for it ("recalibrated"), which
Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020, section 3.1, found necessary
for ranking. https://arxiv.org/abs/1904.00420
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Mode = Literal["batch", "estimate", "fixed"]


class PathNorm(nn.BatchNorm2d):
    """Batch normalisation in three modes, whatever `training` says.

    Attributes:
        mode: "batch" normalises by the batch and keeps nothing; "estimate" also averages its statistics, each batch with
            equal weight; "fixed" normalises by the average.
    """

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        super().__init__(channels, affine=affine)
        self.mode: Mode = "batch"
        self.seen = 0

    def forward(self, input: Tensor) -> Tensor:
        if self.mode == "batch":
            return functional.batch_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)
        if self.mode == "estimate":
            self.seen += 1
        momentum = 1.0 / max(self.seen, 1)
        return functional.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.mode == "estimate",
            momentum,
            self.eps,
        )


def replace_norms(module: nn.Module) -> None:
    """Put a PathNorm in the place of every BatchNorm2d inside `module`."""
    for name, child in list(module.named_children()):
        if type(child) is nn.BatchNorm2d:
            setattr(module, name, PathNorm(child.num_features, affine=child.affine))
        else:
            replace_norms(child)


def set_mode(network: nn.Module, mode: Mode) -> None:
    """Switch every PathNorm; "estimate" starts from nothing."""
    for module in network.modules():
        if isinstance(module, PathNorm):
            module.mode = mode
            if mode == "estimate":
                module.seen = 0
                module.reset_running_stats()  # a path before may have left values that are not finite


@contextmanager
def estimated(network: nn.Module) -> Iterator[None]:
    """Inside, passes average statistics (one weight per pass); from then on they are fixed, until `set_mode`."""
    set_mode(network, "estimate")
    try:
        with torch.no_grad():
            yield
    finally:
        set_mode(network, "fixed")
