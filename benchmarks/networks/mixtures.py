"""A NAS-Bench-201 network whose edges still have several operations each: the supernet that TE-NAS prunes.

Chen, Gong and Wang, "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired Perspective", ICLR
2021, section 3.3. https://arxiv.org/abs/2102.11535

An edge with k operations left is their sum with weight 1 / k each: the published supernet weights them by the softmax of
architecture parameters that are all equal, and it does not train them. Around the cells stands the NAS-Bench-201 network, in
the published size for CIFAR: 3 channels in the first stage, one cell per stage.

Operations that were removed stay as modules that no pass goes through, as in the published code. So the modules, their order
and their number of weights do not depend on what was removed, and two mixtures whose weights were drawn from the same
generator state have the same weights wherever they have the same operations: what differs between them is the removal alone.

Where this file differs from the published supernet:
    * `none` may be among the choices; an edge that has nothing else is not computed.
    * Any number of input channels and classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..spaces.base import InvalidArchitecture
from ..spaces.nasbench201 import EDGES, NONE, NASBench201Space
from .nasbench201 import Skeleton, _operation

_SPACE = NASBench201Space()

Choices = tuple[tuple[int, ...], ...]


def check_choices(choices: Sequence[Sequence[int]]) -> Choices:
    """The choices of each edge in ascending order, as plain ints.

    Raises:
        InvalidArchitecture: not six edges, an edge without a choice, or a choice that is no operation or is there twice.
    """
    if len(choices) != len(EDGES):
        raise InvalidArchitecture(f"a mixture of {_SPACE.name} has choices for {len(EDGES)} edges, not {len(choices)}")
    plain = tuple(tuple(sorted(int(choice) for choice in edge)) for edge in choices)
    for e, (edge, n) in enumerate(zip(plain, _SPACE.cardinalities, strict=True)):
        if not edge or len(set(edge)) < len(edge) or edge[0] < 0 or edge[-1] >= n:
            raise InvalidArchitecture(f"edge {e} has the choices {edge}; it needs one or more of 0..{n - 1}, each once")
    return plain


class MixedCell(nn.Module):
    """Four nodes; node j is the sum over i < j of the mean of the operations left on edge (i, j), applied to node i.

    Args:
        choices: the operations of each edge.
        channels: channels of every node.
        prune: leave out the modules of operations that were removed.
    """

    def __init__(self, choices: Choices, channels: int, *, prune: bool) -> None:
        super().__init__()
        self.choices = choices
        self.layers = nn.ModuleList(
            nn.ModuleDict({str(op): _operation(op, channels) for op in (left if prune else range(n))})
            for left, n in zip(choices, _SPACE.cardinalities, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        nodes: list[Tensor | None] = [x, None, None, None]
        for left, (target, source), operations in zip(self.choices, EDGES, self.layers, strict=True):
            assert isinstance(operations, nn.ModuleDict)
            for op in left:
                if op == NONE:
                    continue
                given = nodes[source]
                value = operations[str(op)](torch.zeros_like(x) if given is None else given) / len(left)
                so_far = nodes[target]
                nodes[target] = value if so_far is None else so_far + value
        output = nodes[3]
        return torch.zeros_like(x) if output is None else output


class NASBench201Mixture(Skeleton):
    """Choices for every edge of a NAS-Bench-201 cell as an image classifier.

    Args:
        choices: for each of the six edges the operations that are left, in any order.
        num_classes: outputs of the classifier.
        channels: channels of the first stage (TE-NAS: 3).
        cells: cells per stage (TE-NAS: 1).
        input_channels: channels of the images.
        prune: leave out the modules of operations that were removed, and with them the equal weights of what is left.

    Shapes: images `(n, input_channels, height, width)` to logits `(n, num_classes)`. An odd side is rounded up when it
    is halved.

    Raises:
        InvalidArchitecture: see `check_choices`.
    """

    def __init__(
        self,
        choices: Sequence[Sequence[int]],
        *,
        num_classes: int = 10,
        channels: int = 3,
        cells: int = 1,
        input_channels: int = 3,
        prune: bool = False,
    ) -> None:
        kept = check_choices(choices)
        super().__init__(
            lambda width: MixedCell(kept, width, prune=prune),
            num_classes=num_classes,
            channels=channels,
            cells=cells,
            input_channels=input_channels,
        )
        self.choices = kept


def build_mixture(choices: Sequence[Sequence[int]], **settings: Any) -> NASBench201Mixture:
    """`NASBench201Mixture` of settings that may be of a user.

    Raises:
        InvalidArchitecture: see `check_choices`.
        ValueError: a setting that it does not have.
    """
    known = list(inspect.signature(NASBench201Mixture).parameters)[1:]
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"mixtures have no setting {', '.join(map(repr, unknown))}; they have {', '.join(known)}")
    return NASBench201Mixture(choices, **settings)
