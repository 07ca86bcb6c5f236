"""All NAS-Bench-201 cells in one network.

Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020, section 2 and
appendix. https://arxiv.org/abs/2001.00326

The skeleton is that of the stand-alone network, and every edge holds all operations under the names that they have there.

The merged form of a soft pass computes, for every node, what its outgoing edges have in common once: the ReLU, the pooling,
and operations of equal kind as one convolution with as many times the output channels. The factor of an operation becomes
the scale of its batch normalisation, which costs nothing. What is left to add up per edge are skip connections and pooling.

Where this file differs from the published supernet (AutoDL-Projects):
    * Batch statistics everywhere, also in the stem and in the residual blocks (`norm.py`).
    * `none` is not computed.
    * Partial channels: see PC-DARTS (Xu et al., ICLR 2020, section 3.2); in one cell space of stride 1 nothing is pooled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...benchmarks.networks.nasbench201 import NASBench201Network, ReLUConvBN, Skeleton
from ...benchmarks.spaces.base import Architecture, SearchSpace
from ...benchmarks.spaces.nasbench201 import CONV1, CONV3, EDGES, NONE, POOL, SKIP
from .mix import Mix
from .network import Supernet
from .norm import PathNorm, replace_norms
from .topology import topology

_OUT = {node: tuple(e for e, (_, source) in enumerate(EDGES) if source == node) for node in range(3)}
_KERNELS = {CONV1: 1, CONV3: 3}


class SearchCell(nn.Module):
    """Four nodes, six edges, all operations on each.

    Args:
        channels: of every node.
        affine: the operations' batch normalisations have a scale and a shift.
        owner: the supernet.
    """

    def __init__(self, channels: int, *, affine: bool, owner: Supernet) -> None:
        super().__init__()
        self._owner = (owner,)  # in a tuple, so that it is no submodule of its own part
        width = channels // owner.partial
        self.width = width
        self.edges = nn.ModuleList(
            nn.ModuleDict({str(op): _convolution(width, kernel, affine) for op, kernel in _KERNELS.items()})
            for _ in EDGES
        )

    def operation(self, edge: int, op: int) -> ReLUConvBN:
        return cast(ReLUConvBN, cast(nn.ModuleDict, self.edges[edge])[str(op)])

    def forward(self, x: Tensor, mix: Mix) -> Tensor:
        nodes = _Nodes(x, self._owner[0].partial)
        merge = self._owner[0].merge and not mix.is_path and not mix.carry
        if merge and cast(PathNorm, self.operation(0, CONV3).op[2]).mode == "batch":
            self._merged(nodes, mix)
        else:
            self._plain(nodes, mix)
        return nodes.output()

    # ------------------------------------------------------------------------------------------- operation by operation

    def _plain(self, nodes: _Nodes, mix: Mix) -> None:
        """Edge by edge in the order of the stand-alone network."""
        for e, (target, source) in enumerate(EDGES):
            total: Tensor | None = None
            for op in mix.active[e]:
                if op == NONE:
                    continue
                value = self._operate(e, op, nodes.mixed(source))
                factor = mix.scalar(e, op)
                value = value if factor is None else value * factor
                total = value if total is None else total + value
            if mix.carry:
                carried = mix.carried(e)
                total = carried.expand_as(nodes.mixed(0)) if total is None else total + carried
            if total is not None:
                nodes.add(target, total)
            nodes.bypass(target, source, None if mix.edges is None else mix.edges[e])

    def _operate(self, edge: int, op: int, x: Tensor) -> Tensor:
        if op == SKIP:
            return self._owner[0].drop(x)
        if op == POOL:
            return _pool(x)
        result: Tensor = self.operation(edge, op)(x)
        return result

    # ---------------------------------------------------------------------------------------------------- merged by node

    def _merged(self, nodes: _Nodes, mix: Mix) -> None:
        """Node by node: the outgoing edges of a node share what they can."""
        drop = self._owner[0].drop
        for source, out in _OUT.items():
            x = nodes.mixed(source)
            rectified: Tensor | None = None
            pooled: Tensor | None = None
            convolved: dict[tuple[int, ...], Tensor] = {}
            for op in (CONV1, CONV3):
                edges = tuple(e for e in out if op in mix.active[e])
                if edges:
                    rectified = torch.relu(x) if rectified is None else rectified
                    value = self._wide(rectified, edges, op, mix)
                    convolved[edges] = value if edges not in convolved else convolved[edges] + value
            for edges, value in convolved.items():
                for e, part in zip(edges, value.chunk(len(edges), dim=1), strict=True):
                    nodes.add(EDGES[e][0], part)
            for e in out:
                target = EDGES[e][0]
                if SKIP in mix.active[e]:
                    nodes.add(target, drop(x), mix.scalar(e, SKIP))
                if POOL in mix.active[e]:
                    pooled = _pool(x) if pooled is None else pooled
                    nodes.add(target, pooled, mix.scalar(e, POOL))
                nodes.bypass(target, source, None if mix.edges is None else mix.edges[e])

    def _wide(self, rectified: Tensor, edges: tuple[int, ...], op: int, mix: Mix) -> Tensor:
        """The convolutions of one kind on some edges out of one node, `(n, len(edges) * width, ...)`, with their factors."""
        operations = [self.operation(e, op).op for e in edges]
        weight = torch.cat([cast(nn.Conv2d, o[1]).weight for o in operations])
        value = functional.conv2d(rectified, weight, padding=_KERNELS[op] // 2)
        norms = [cast(PathNorm, o[2]) for o in operations]
        factors = mix.column(edges, op)
        scale = None if factors is None else factors.repeat_interleave(self.width)
        shift = None
        if norms[0].affine:
            gamma, beta = torch.cat([n.weight for n in norms]), torch.cat([n.bias for n in norms])
            scale, shift = (gamma, beta) if scale is None else (gamma * scale, beta * scale)
        return functional.batch_norm(value, None, None, scale, shift, True, 0.0, norms[0].eps)


class _Nodes:
    """The four nodes of a cell while their incoming edges are added up.

    With partial channels a node is the sum of what its operations made of the first channels, and of the other channels as
    they are; the two are then shuffled, so that the next operations see both (PC-DARTS, section 3.2).
    """

    def __init__(self, x: Tensor, partial: int) -> None:
        self.partial = partial
        self._whole: list[Tensor | None] = [x, None, None, None]  # finished nodes
        self._sums: list[Tensor | None] = [None] * 4
        self._past: list[Tensor | None] = [None] * 4
        self._width = x.shape[1] // partial

    def mixed(self, node: int) -> Tensor:
        """What the operations out of a node read; nothing may be added to the node any more."""
        x = self._finish(node)
        return x if self.partial == 1 else x[:, : self._width]

    def add(self, target: int, value: Tensor, factor: Tensor | None = None) -> None:
        so_far = self._sums[target]
        if factor is None:
            self._sums[target] = value if so_far is None else so_far + value
        else:
            self._sums[target] = value * factor if so_far is None else torch.addcmul(so_far, value, factor)

    def bypass(self, target: int, source: int, factor: Tensor | None) -> None:
        if self.partial == 1:
            return
        value = self._finish(source)[:, self._width :]
        value = value if factor is None else value * factor
        so_far = self._past[target]
        self._past[target] = value if so_far is None else so_far + value

    def output(self) -> Tensor:
        return self._finish(3)

    def _finish(self, node: int) -> Tensor:
        found = self._whole[node]
        if found is None:
            first = self._whole[0]
            assert first is not None
            found = self._sums[node]
            if found is None:
                found = torch.zeros_like(first[:, : self._width])
            past = self._past[node]
            if past is not None:
                found = channel_shuffle(torch.cat((found, past), dim=1), self.partial)
            self._whole[node] = found
        return found


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave `groups` equal groups of channels."""
    n, channels, height, width = x.shape
    shuffled = x.view(n, groups, channels // groups, height, width).transpose(1, 2)
    return shuffled.reshape(n, channels, height, width)


def _convolution(channels: int, kernel: int, affine: bool) -> ReLUConvBN:
    made = ReLUConvBN(channels, channels, kernel)
    made.op[2] = PathNorm(channels, affine=affine)
    return made


def _pool(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class NASBench201Supernet(Supernet):
    """All cells of NAS-Bench-201 as one image classifier.

    Args:
        space: nasbench201.
        settings: num_classes, channels, cells and input_channels of the stand-alone networks; others are ignored.
        affine: the operations' batch normalisations have a scale and a shift (published: no).
        partial: see `Supernet`.

    Raises:
        ValueError: `partial` does not divide the channels.
    """

    def __init__(
        self, space: SearchSpace, settings: Mapping[str, Any], *, affine: bool = False, partial: int = 1
    ) -> None:
        super().__init__(partial=partial)
        if partial < 1 or settings["channels"] % partial:
            raise ValueError(f"partial={partial} does not divide the {settings['channels']} channels")
        self.topology = topology(space)
        self.settings = {name: settings[name] for name in ("num_classes", "channels", "cells", "input_channels")}
        self.skeleton = Skeleton(lambda width: SearchCell(width, affine=affine, owner=self), **self.settings)
        replace_norms(self.skeleton)
        self.cell_tables = (0,) * (3 * settings["cells"])

    def forward_cells(self, images: Tensor, mixes: Sequence[Mix]) -> Tensor:
        x = self.skeleton.stem(images)
        waiting = iter(mixes)
        for part in self.skeleton.cells:
            x = part(x, next(waiting)) if isinstance(part, SearchCell) else part(x)
        logits: Tensor = self.skeleton.classifier(torch.mean(self.skeleton.lastact(x), dim=(2, 3)))
        return logits

    def extract(self, arch: Architecture) -> nn.Module:
        if self.partial > 1:
            raise ValueError(
                f"the operations of a supernet with 1 / {self.partial} of the channels are narrower than a stand-alone"
                " network's: there are no weights to take over"
            )
        network = NASBench201Network(arch, **self.settings)
        own = self.skeleton.state_dict()
        state = network.state_dict()
        for name in state:
            theirs = name
            if (found := re.fullmatch(r"cells\.(\d+)\.layers\.(\d+)\.(.*)", name)) is not None:
                cell, edge, rest = found.groups()
                theirs = f"cells.{cell}.edges.{edge}.{arch[int(edge)]}.{rest}"
            if theirs in own:  # normalisations without a scale have none to give
                state[name] = own[theirs].clone()
        network.load_state_dict(state)
        return network.to(next(self.parameters()).device).train(self.training)
