"""The network that five channel numbers of the NATS-Bench size space describe.

Dong, Liu, Musial and Gabrys, TPAMI 2021, section 3. https://arxiv.org/abs/2009.00437

stem (3x3 convolution) - cell - residual block, stride 2 - cell - residual block, stride 2 - cell - batch normalisation, ReLU,
global average pooling, linear classifier. The cell is always the NAS-Bench-201 cell
`|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|`.

The parameters, their order and their names are the official ones, so a state dict can be exchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..spaces.base import Architecture
from ..spaces.nats_size import NATSSizeSpace
from .nasbench201 import ReLUConvBN, ResidualBlock

_SPACE = NATSSizeSpace()


class Projection(nn.Module):
    """What a skip connection becomes where the width changes: 1x1 convolution without bias, batch normalisation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.bn(self.conv(x))
        return result


class Cell(nn.Module):
    """The fixed cell, from `inputs` to `outputs` channels; `layers` are its edges 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                ReLUConvBN(inputs, outputs, 3),
                ReLUConvBN(inputs, outputs, 3),
                ReLUConvBN(outputs, outputs, 3),
                nn.Identity() if inputs == outputs else Projection(inputs, outputs),
                ReLUConvBN(outputs, outputs, 3),
                ReLUConvBN(outputs, outputs, 3),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        to_1, to_2, one_to_2, skip, one_to_3, two_to_3 = self.layers
        one = to_1(x)
        two = to_2(x) + one_to_2(one)
        result: Tensor = skip(x) + one_to_3(one) + two_to_3(two)
        return result


class NATSSizeNetwork(nn.Module):
    """Five channel numbers as an image classifier.

    Args:
        arch: five choices, as in `benchmarks/spaces/nats_size.py`.
        num_classes: outputs of the classifier.
        input_channels: channels of the images.

    Shapes: images `(n, input_channels, height, width)` to logits `(n, num_classes)`. An odd side is rounded up when it
    is halved.
    """

    def __init__(self, arch: Architecture, *, num_classes: int = 10, input_channels: int = 3) -> None:
        super().__init__()
        self.arch = _SPACE.check(arch)
        widths = _SPACE.widths(self.arch)
        self.stem = nn.Sequential(
            nn.Conv2d(input_channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0])
        )
        blocks: list[nn.Module] = []
        for block, (inputs, outputs) in enumerate(zip((widths[0], *widths[:-1]), widths, strict=True)):
            blocks.append(ResidualBlock(inputs, outputs) if block % 2 else Cell(inputs, outputs))
        self.cells = nn.ModuleList(blocks)
        self.lastact = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU())
        self.classifier = nn.Linear(widths[-1], num_classes)

    def features(self, images: Tensor) -> Tensor:
        """The pooled representation `(n, last width)` that the classifier reads."""
        x = self.stem(images)
        for cell in self.cells:
            x = cell(x)
        return torch.mean(self.lastact(x), dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits
