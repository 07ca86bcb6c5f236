"""The network that two DARTS cells describe, in its CIFAR form.

Liu, Simonyan and Yang, ICLR 2019, sections 2.1 and 3.2. https://arxiv.org/abs/1806.09055

stem (3x3 convolution) - cells - global average pooling, linear classifier. The cells after one and two thirds of the depth
are reduction cells, which halve the resolution and double the channels; all others are normal cells. The auxiliary head, a
second classifier that helps training, reads the output of the second reduction cell.

Where this file differs from the official model:
    * Any number of input channels, and images whose sides can be halved at every reduction cell. The auxiliary head averages
      over positions where the images are larger than the official 32 x 32, for which it has exactly one.
    * `forward` returns the logits alone; those of the auxiliary head come from `forward_with_auxiliary`.
    * Drop-path draws from a generator that is passed in.
The parameters, their order and their names are the official ones, so a state dict can be exchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..spaces.base import Architecture
from ..spaces.darts import CONCAT, DARTSSpace, Genotype
from .nasbench201 import ReLUConvBN

_SPACE = DARTSSpace()


class FactorizedReduce(nn.Module):
    """Halve the resolution: two 1x1 convolutions with stride 2, the second one pixel down and right, concatenated."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv_1 = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        result: Tensor = self.bn(torch.cat((self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])), dim=1))
        return result


def _separable(channels: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    """ReLU, depthwise convolution, 1x1 convolution, batch normalisation."""
    padding = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(
            channels,
            channels,
            kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=channels,
            bias=False,
        ),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    ]


class SepConv(nn.Module):
    """Two depthwise separable convolutions; the first has the stride."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.op = nn.Sequential(*_separable(channels, kernel, stride), *_separable(channels, kernel, 1))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.op(x)
        return result


class DilConv(nn.Module):
    """One depthwise separable convolution with dilation 2."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.op = nn.Sequential(*_separable(channels, kernel, stride, dilation=2))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.op(x)
        return result


def _operation(name: str, channels: int, stride: int) -> nn.Module:
    match name.rsplit("_", 1):
        case ["skip", "connect"]:
            return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
        case ["max_pool", "3x3"]:
            return nn.MaxPool2d(3, stride=stride, padding=1)
        case ["avg_pool", "3x3"]:
            return nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False)
        case ["sep_conv", size]:
            return SepConv(channels, int(size[0]), stride)
        case ["dil_conv", size]:
            return DilConv(channels, int(size[0]), stride)
    raise AssertionError(name)


class Cell(nn.Module):
    """One cell: the outputs of the two cells before, `(n, before, ...)` and `(n, last, ...)`, to its own.

    Args:
        pairs: eight (operation, input), two per node 2..5. The modules are made in this order.
        concat: the nodes that make the output, `len(concat) * channels` channels.
        before: channels of the output of the last cell but one.
        last: channels of the output of the last cell.
        channels: channels of every node.
        reduction: operations on the two inputs have stride 2.
        after_reduction: the last cell was a reduction cell, so the output of the one before has twice the resolution.
    """

    def __init__(
        self,
        pairs: tuple[tuple[str, int], ...],
        concat: tuple[int, ...],
        *,
        before: int,
        last: int,
        channels: int,
        reduction: bool,
        after_reduction: bool,
    ) -> None:
        super().__init__()
        self.preprocess0 = FactorizedReduce(before, channels) if after_reduction else ReLUConvBN(before, channels, 1)
        self.preprocess1 = ReLUConvBN(last, channels, 1)
        self.sources = tuple(source for _, source in pairs)
        self.concat = concat
        self._ops = nn.ModuleList(
            _operation(name, channels, 2 if reduction and source < 2 else 1) for name, source in pairs
        )

    def forward(
        self, before: Tensor, last: Tensor, drop_path: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        states = [self.preprocess0(before), self.preprocess1(last)]
        terms: list[Tensor] = []
        for source, op in zip(self.sources, self._ops, strict=True):
            term = op(states[source])
            if drop_path and not isinstance(op, nn.Identity):
                kept = torch.empty(len(term), 1, 1, 1, dtype=term.dtype, device=term.device)
                term = term * (kept.bernoulli_(1 - drop_path, generator=generator) / (1 - drop_path))
            terms.append(term)
            if len(terms) == 2:
                states.append(terms[0] + terms[1])
                terms = []
        return torch.cat([states[node] for node in self.concat], dim=1)


class AuxiliaryHead(nn.Module):
    """A classifier of feature maps of 8 x 8 or more: `(n, inputs, height, width)` to `(n, num_classes)`."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=3, padding=0, count_include_pad=False),
            nn.Conv2d(inputs, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < 8:
            raise ValueError(
                f"the auxiliary head reads feature maps of 8 x 8 or more, not {x.shape[2]} x {x.shape[3]}:"
                " use larger images, or a network without it (auxiliary=False)"
            )
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits


class DARTSNetwork(nn.Module):
    """Two DARTS cells as an image classifier.

    Args:
        arch: an architecture of `benchmarks/spaces/darts.py`, or a `Genotype`, whose order of inputs and concat lists are
            then followed (both decide the order of parameters and channels; the concat lists also their number).
        num_classes: outputs of the classifier.
        channels: channels of the first cells (NAS-Bench-301: 32; the official CIFAR-10 networks: 36).
        layers: number of cells (NAS-Bench-301: 8; the official CIFAR-10 networks: 20).
        auxiliary: have the auxiliary head.
        input_channels: channels of the images.
        stem_multiplier: the stem has this times `channels` outputs.

    Shapes: images `(n, input_channels, height, width)` to logits `(n, num_classes)`. Height and width must be divisible by
    the product of the strides, 4 (2 for a single layer).
    """

    def __init__(
        self,
        arch: Architecture | Genotype,
        *,
        num_classes: int = 10,
        channels: int = 32,
        layers: int = 8,
        auxiliary: bool = True,
        input_channels: int = 3,
        stem_multiplier: int = 3,
    ) -> None:
        super().__init__()
        if layers < 1 or channels < 1:
            raise ValueError(f"a network needs at least one layer and one channel, not {layers} and {channels}")
        if isinstance(arch, Genotype):
            self.arch = _SPACE.from_genotype(arch)
            self.genotype = arch
        else:
            self.arch = _SPACE.check(arch)
            self.genotype = _SPACE.genotype(self.arch)
        normal, normal_concat, reduce, reduce_concat = self.genotype
        for concat in (normal_concat, reduce_concat):
            if not concat or len(set(concat)) != len(concat) or not set(concat) <= set(CONCAT):
                raise ValueError(f"a cell concatenates different nodes of {list(CONCAT)}, not {list(concat)}")
        self.reductions = {layers // 3, 2 * layers // 3}
        width = stem_multiplier * channels
        self.stem = nn.Sequential(nn.Conv2d(input_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        before = last = auxiliary_inputs = width
        self.cells = nn.ModuleList()
        for layer in range(layers):
            reduction = layer in self.reductions
            channels *= 1 + reduction
            pairs, concat = (reduce, reduce_concat) if reduction else (normal, normal_concat)
            self.cells.append(
                Cell(
                    tuple(pairs),
                    tuple(concat),
                    before=before,
                    last=last,
                    channels=channels,
                    reduction=reduction,
                    after_reduction=layer - 1 in self.reductions,
                )
            )
            before, last = last, len(concat) * channels
            if layer == max(self.reductions):
                auxiliary_inputs = last
        self.auxiliary_head = AuxiliaryHead(auxiliary_inputs, num_classes) if auxiliary else None
        self.classifier = nn.Linear(last, num_classes)

    def _pass(
        self, images: Tensor, drop_path: float = 0.0, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """The pooled representation, and the output of the last reduction cell."""
        if any(side % 2 ** len(self.reductions) for side in images.shape[2:]):
            raise ValueError(
                f"images of {images.shape[2]} x {images.shape[3]} cannot be halved {len(self.reductions)} time(s):"
                f" pad or scale them to sides divisible by {2 ** len(self.reductions)}"
            )
        before = last = middle = self.stem(images)
        for layer, cell in enumerate(self.cells):
            before, last = last, cell(before, last, drop_path, generator)
            if layer == max(self.reductions):
                middle = last
        return torch.mean(last, dim=(2, 3)), middle

    def features(self, images: Tensor) -> Tensor:
        """The pooled representation `(n, len(concat) * channels of the last cell)` that the classifier reads."""
        return self._pass(images)[0]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits

    def forward_with_auxiliary(
        self, images: Tensor, *, drop_path: float = 0.0, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits and the auxiliary head's logits, both `(n, num_classes)`: the pass of a training step.

        Args:
            images: `(n, input_channels, height, width)`, sides of at least 32.
            drop_path: probability with which each operation (but the identity) of each image is dropped, in training
                mode only; the others are scaled up to keep the expectation.
            generator: where the draws of drop-path come from, on the device of the images.

        Raises:
            ValueError: the network has no auxiliary head, `drop_path` is not in [0, 1), or it has no generator.
        """
        if self.auxiliary_head is None:
            raise ValueError("the network has no auxiliary head: build it with auxiliary=True")
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path {drop_path} is not in [0, 1)")
        if drop_path and generator is None:
            raise ValueError("drop_path needs a generator: pass a torch.Generator")
        pooled, middle = self._pass(images, drop_path if self.training else 0.0, generator)
        return self.classifier(pooled), self.auxiliary_head(middle)
