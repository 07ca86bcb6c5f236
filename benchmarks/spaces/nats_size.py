"""The size space of NATS-Bench: one fixed cell, five channel numbers.

Dong, Liu, Musial and Gabrys, "NATS-Bench: Benchmarking NAS Algorithms for Architecture Topology and Size", TPAMI 2021,
section 3. https://arxiv.org/abs/2009.00437

The five numbers are the output channels of the five blocks: cell, residual block, cell, residual block, cell. The stem has as
many as the first cell.
"""

from __future__ import annotations

from typing import Final as Constant

from .base import Architecture, InvalidArchitecture, SearchSpace

WIDTHS: Constant = (8, 16, 24, 32, 40, 48, 56, 64)
_TEXTS = tuple(map(str, WIDTHS))


class NATSSizeSpace(SearchSpace):
    """All 8**5 = 32,768 choices of five channel numbers."""

    name = "nats_size"
    cardinalities = (8, 8, 8, 8, 8)

    def widths(self, arch: Architecture) -> tuple[int, ...]:
        """The five channel numbers."""
        return tuple(WIDTHS[choice] for choice in self.check(arch))

    def to_string(self, arch: Architecture) -> str:
        """The official architecture string, such as `8:16:24:32:64`."""
        return ":".join(map(str, self.widths(arch)))

    def from_string(self, text: str) -> Architecture:
        parts = text.strip().split(":")
        if len(parts) != 5:
            raise InvalidArchitecture(f"{text!r} has {len(parts)} numbers joined by ':'; {self.name} has 5")
        for part in parts:
            if part not in _TEXTS:
                raise InvalidArchitecture(f"{part!r} in {text!r} is none of the widths {', '.join(_TEXTS)}")
        return tuple(_TEXTS.index(part) for part in parts)

    def index(self, arch: Architecture) -> int:
        """Position of the architecture in the official files (0..32767), which is its rank."""
        return self.rank(self.check(arch))

    def from_index(self, index: int) -> Architecture:
        """The architecture at a position of the official files."""
        if not 0 <= index < self.size:
            raise InvalidArchitecture(f"index {index} is not in 0..{self.size - 1}")
        return self.unrank(int(index))


def count_cost(
    arch: Architecture, num_classes: int = 10, image_size: int = 32, *, input_channels: int = 3
) -> tuple[int, int]:
    """Parameters and FLOPs of the network of `arch`, from formulas: what `NATSSizeNetwork` with these settings counts.

    Args:
        arch: an architecture of NATSSizeSpace.
        num_classes: outputs of the classifier.
        image_size: side of the square image.
        input_channels: channels of the images.
    """
    if image_size < 1:
        raise ValueError(f"an image of side {image_size} has no pixels")
    widths, side = NATSSizeSpace().widths(arch), image_size
    last = widths[0]
    params = 9 * input_channels * last + 2 * last
    flops = 9 * input_channels * last * side**2
    for block, width in enumerate(widths):
        if block % 2:  # a residual block: two 3 x 3 convolutions and a 1 x 1 on the shortcut
            side = (side + 1) // 2
            weights, norms = 9 * last * width + 9 * width**2 + last * width, 2
        else:  # a cell: five 3 x 3 convolutions, two of them of its input, and a shortcut that adapts the width if it must
            weights, norms = 9 * (2 * last * width + 3 * width**2), 5
            if last != width:
                weights, norms = weights + last * width, norms + 1
        params += weights + 2 * width * norms
        flops += weights * side**2
        last = width
    return params + 2 * last + (last + 1) * num_classes, flops + (last + 1) * num_classes
