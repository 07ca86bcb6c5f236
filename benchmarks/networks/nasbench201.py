"""The network that a NAS-Bench-201 cell describes.

Dong and Yang, ICLR 2020, section 2.1 and figure 1. https://arxiv.org/abs/2001.00326

stem (3x3 convolution) - N cells - residual block, stride 2 - N cells - residual block, stride 2 - N cells - batch
normalisation, ReLU, global average pooling, linear classifier. The channels double at each residual block.

Where this file differs from the official model:
    * Any number of input channels, base channels, cells and classes; the official setting is the default.
    * An edge without an operation is not computed at all (officially it multiplies by zero).
The parameters, their order and their names are the official ones, so a state dict can be exchanged.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..spaces.base import Architecture
from ..spaces.nasbench201 import CONV1, CONV3, EDGES, NONE, POOL, SKIP, NASBench201Space

_SPACE = NASBench201Space()


class ReLUConvBN(nn.Module):
    """ReLU, convolution without bias, batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.op(x)
        return result


class ResidualBlock(nn.Module):
    """The basic residual block that halves the resolution between stages."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_a = ReLUConvBN(inputs, outputs, 3, stride=2)
        self.conv_b = ReLUConvBN(outputs, outputs, 3)
        self.downsample = nn.Sequential(
            nn.AvgPool2d(2, stride=2, padding=0, ceil_mode=True), nn.Conv2d(inputs, outputs, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.downsample(x) + self.conv_b(self.conv_a(x))
        return result


def _operation(op: int, channels: int) -> nn.Module:
    if op in (NONE, SKIP):
        return nn.Identity()
    if op == POOL:
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return ReLUConvBN(channels, channels, {CONV1: 1, CONV3: 3}[op])


class Cell(nn.Module):
    """Four nodes; node j is the sum over i < j of `operation(i, j)` applied to node i."""

    def __init__(self, arch: Architecture, channels: int) -> None:
        super().__init__()
        self.arch = arch
        self.layers = nn.ModuleList(_operation(op, channels) for op in arch)

    def forward(self, x: Tensor) -> Tensor:
        nodes: list[Tensor | None] = [x, None, None, None]
        for op, (target, source), layer in zip(self.arch, EDGES, self.layers, strict=True):
            if op == NONE:
                continue
            source_value = nodes[source]
            value = layer(torch.zeros_like(x) if source_value is None else source_value)
            so_far = nodes[target]
            nodes[target] = value if so_far is None else so_far + value
        output = nodes[3]
        return torch.zeros_like(x) if output is None else output


class Skeleton(nn.Module):
    """The network around the cells: stem, three stages with residual blocks between them, classifier.

    Args:
        cell: makes a cell of so many channels.
        num_classes, channels, cells, input_channels: see `NASBench201Network`.
    """

    def __init__(
        self, cell: Callable[[int], nn.Module], *, num_classes: int, channels: int, cells: int, input_channels: int
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(input_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        stages: list[nn.Module] = []
        for stage in range(3):
            width = channels * 2**stage
            if stage:
                stages.append(ResidualBlock(width // 2, width))
            stages.extend(cell(width) for _ in range(cells))
        self.cells = nn.ModuleList(stages)
        self.lastact = nn.Sequential(nn.BatchNorm2d(channels * 4), nn.ReLU())
        self.classifier = nn.Linear(channels * 4, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """The pooled representation `(n, 4 * channels)` that the classifier reads."""
        x = self.stem(images)
        for cell in self.cells:
            x = cell(x)
        return torch.mean(self.lastact(x), dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


class NASBench201Network(Skeleton):
    """A NAS-Bench-201 cell as an image classifier.

    Args:
        arch: six operations, as in `benchmarks/spaces/nasbench201.py`.
        num_classes: outputs of the classifier.
        channels: channels of the first stage (official: 16).
        cells: cells per stage, the paper's N (official: 5).
        input_channels: channels of the images.
        prune: leave out operations whose input is always zero or whose output is never used. Off by default, as in the
            official networks, whose parameter and FLOP counts include them.

    Shapes: images `(n, input_channels, height, width)` to logits `(n, num_classes)`. An odd side is rounded up when it
    is halved.
    """

    def __init__(
        self,
        arch: Architecture,
        *,
        num_classes: int = 10,
        channels: int = 16,
        cells: int = 5,
        input_channels: int = 3,
        prune: bool = False,
    ) -> None:
        arch = _SPACE.check(arch)
        if prune:
            arch = _SPACE.prune(arch)
        super().__init__(
            lambda width: Cell(arch, width),
            num_classes=num_classes,
            channels=channels,
            cells=cells,
            input_channels=input_channels,
        )
        self.arch = arch
