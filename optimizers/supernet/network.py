"""What every supernet is: all architectures of a space in one network that share their weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...benchmarks.spaces.base import Architecture
from .mix import Mix, path
from .norm import set_mode
from .topology import Topology


class Supernet(nn.Module):
    """All architectures of a cell space as one image classifier.

    Attributes:
        topology: its tables of edges and operations.
        cell_tables: for each cell, in the order of the pass, the number of its table.
        settings: what the stand-alone networks of the same size are built with.
        partial: only 1 / partial of the channels go through the operations, the others bypass them (PC-DARTS).
        skip_dropout: probability with which values of skip connections are dropped in training mode (P-DARTS).
        generator: of the dropout, on the CPU.
        merge: compute operations of equal kind that read the same node as one wider convolution. The result is the same but
            for rounding; False is the plain form, operation by operation.
    """

    topology: Topology
    cell_tables: tuple[int, ...]
    settings: Mapping[str, Any]

    def __init__(self, *, partial: int = 1) -> None:
        super().__init__()
        self.partial = partial
        self.merge = True
        self.skip_dropout = 0.0
        self.generator: torch.Generator | None = None

    @abstractmethod
    def forward_cells(self, images: Tensor, mixes: Sequence[Mix]) -> Tensor:
        """Logits `(n, num_classes)` of images `(n, channels, height, width)`; one mix per cell."""

    @abstractmethod
    def extract(self, arch: Architecture) -> nn.Module:
        """The stand-alone network of an architecture with a copy of the supernet's weights and statistics.

        In evaluation mode it computes bit for bit what the supernet computes for the path in mode "fixed".

        Raises:
            ValueError: a supernet with partial channels, whose operations have other shapes.
        """

    def forward(self, images: Tensor, mixes: Sequence[Mix]) -> Tensor:
        """`forward_cells` with one mix per table."""
        return self.forward_cells(images, [mixes[t] for t in self.cell_tables])

    def paths(self, arch: Architecture) -> list[Mix]:
        """The mixes, one per table, of a single architecture."""
        return [path(row) for row in self.topology.choices(arch)]

    def drop(self, x: Tensor) -> Tensor:
        """A skip connection's output, with `skip_dropout` in training mode."""
        if not self.skip_dropout or not self.training:
            return x
        keep = 1.0 - self.skip_dropout
        mask = torch.empty(x.shape).bernoulli_(keep, generator=self.generator).to(x)
        return x * mask / keep

    def use_batch_statistics(self) -> None:
        set_mode(self, "batch")


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave `groups` equal groups of channels."""
    n, channels, height, width = x.shape
    shuffled = x.view(n, groups, channels // groups, height, width).transpose(1, 2)
    return shuffled.reshape(n, channels, height, width)
