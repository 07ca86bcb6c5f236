"""The network that a NAS-Bench-101 cell describes.

Ying et al., ICML 2019, sections 2.1 and 2.3, figure 1, and the supplement's table 1. https://arxiv.org/abs/1902.09635

stem (3x3 convolution, batch normalisation, ReLU) - 3 stacks of 3 modules, each of them the cell - global average pooling,
linear classifier. Before every stack but the first the sides are halved by maximum pooling, and its first module doubles the
channels. Nothing goes around a module.

Where this file differs from the official model: any number of input channels, base channels, stacks, modules and classes.
The official setting is the default. Layers, their initialisation and batch normalisation's constants are the official ones;
the names of the parameters are this file's own.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from ..spaces.base import Architecture
from ..spaces.nasbench101 import (
    CONV1,
    CONV3,
    POOL,
    Graph,
    NASBench101Space,
    module_widths,
    prune,
    vertex_channels,
    wiring,
)

_SPACE = NASBench101Space()


class ConvBNReLU(nn.Sequential):
    """Convolution of stride 1 without bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.003),
            nn.ReLU(),
        )


def _operation(label: int, channels: int) -> nn.Module:
    if label == POOL:
        return nn.MaxPool2d(3, stride=1, padding=1)
    return ConvBNReLU(channels, channels, {CONV3: 3, CONV1: 1}[label])


class Cell(nn.Module):
    """One module: an operation on every interior vertex of a pruned cell.

    A vertex gets the sum of its sources. The input enters through a projection (1x1 convolution) to the vertex's channels;
    of another source that has a channel more than the vertex, the last is dropped. The output concatenates its sources and
    adds its own projection of the input, if it has one.
    """

    def __init__(self, graph: Graph, inputs: int, outputs: int) -> None:
        super().__init__()
        self.sources = wiring(graph.vertices, graph.edges)[0]
        self.channels = vertex_channels(graph, inputs, outputs)
        self.operations = nn.ModuleList(map(_operation, graph.labels, self.channels[1:-1]))
        self.projections = nn.ModuleDict(
            {
                str(vertex): ConvBNReLU(inputs, self.channels[vertex], 1)
                for vertex, sources in enumerate(self.sources)
                if 0 in sources
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for vertex, operation in enumerate(self.operations, start=1):
            terms = [values[source][:, : self.channels[vertex]] for source in self.sources[vertex] if source > 0]
            values.append(operation(self._sum(terms, vertex, x)))
        concatenated = [values[source] for source in self.sources[-1] if source > 0]
        return self._sum([torch.cat(concatenated, dim=1)] if concatenated else [], len(values), x)

    def _sum(self, terms: list[Tensor], vertex: int, x: Tensor) -> Tensor:
        if str(vertex) in self.projections:
            terms = [*terms, self.projections[str(vertex)](x)]
        return functools.reduce(torch.add, terms)


class NASBench101Network(nn.Module):
    """A NAS-Bench-101 cell as an image classifier.

    Args:
        arch_or_graph: an architecture of `benchmarks/spaces/nasbench101.py`, or a cell of any size; it is pruned.
        num_classes: outputs of the classifier.
        channels: channels of the first stack (official: 128); every further stack has twice as many.
        stacks: stacks (official: 3).
        modules: modules per stack (official: 3).
        input_channels: channels of the images.

    Shapes: images `(n, input_channels, height, width)` to logits `(n, num_classes)`. An odd side is rounded up when it
    is halved.

    Raises:
        ValueError: the cell has no path from its input to its output, or more vertices that feed the output than channels.
    """

    def __init__(
        self,
        arch_or_graph: Architecture | Graph,
        *,
        num_classes: int = 10,
        channels: int = 128,
        stacks: int = 3,
        modules: int = 3,
        input_channels: int = 3,
    ) -> None:
        super().__init__()
        graph = prune(arch_or_graph) if isinstance(arch_or_graph, Graph) else _SPACE.graph(arch_or_graph)
        if graph is None:
            raise ValueError(f"{arch_or_graph} has no path from its input to its output")
        self.graph = graph
        widths = module_widths(channels, stacks, modules)
        self.stem = ConvBNReLU(input_channels, channels, 3)
        layers: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(widths):
            if i and i % modules == 0:
                layers.append(nn.MaxPool2d(2, stride=2, ceil_mode=True))
            layers.append(Cell(graph, inputs, outputs))
        self.cells = nn.ModuleList(layers)
        self.classifier = nn.Linear(widths[-1][1], num_classes)
        self.apply(_initialise)

    def features(self, images: Tensor) -> Tensor:
        """The pooled representation `(n, channels * 2**(stacks - 1))` that the classifier reads."""
        x = self.stem(images)
        for cell in self.cells:
            x = cell(x)
        return torch.mean(x, dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


def _initialise(layer: nn.Module) -> None:
    """Initialise as TensorFlow 1 does: variance scaling by fan-in for convolutions, Glorot for the linear layer."""
    if isinstance(layer, nn.Conv2d):
        fan_in = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
        # A normal distribution cut at two standard deviations keeps 0.8796 of its own, so that 1/fan_in is the variance.
        deviation = math.sqrt(1 / fan_in) / 0.87962566103423978
        nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    elif isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
