"""All DARTS cells in one network.

Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, sections 2.1 to 2.3 and appendix A.1.
https://arxiv.org/abs/1806.09055

The network around the cells is that of the stand-alone network, and each of a cell's 14 edges holds all operations, by the
names that they have there. A node is the sum of all its edges.

The merged form of a soft pass computes what the outgoing edges of a node have in common once: the ReLU, and the pooling with
its normalisation. The factor of an operation becomes the scale of its last batch normalisation, which costs nothing. (Equal
convolutions side by side in one grouped convolution were slower on the CPU at all but the smallest sizes.)

Where this file differs from the published supernet (quark0/darts):
    * Batch statistics everywhere, also in the stem (`norm.py`). The paper does so, its code averages in evaluation.
    * `none` is not computed.
    * Pooling can go without its batch normalisation (`pool_norm=False`), as in the network that is trained in the end.
    * Partial channels: see PC-DARTS (Xu et al., ICLR 2020, section 3.2), whose code is the same but shuffles every edge; the
      shuffle of their sum is the same.
    * Dropout is applied to identities, not to the factorised reductions that skip with stride 2, as in the code of P-DARTS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...benchmarks.networks.darts import DARTSNetwork, DilConv, FactorizedReduce, SepConv, _operation
from ...benchmarks.networks.nasbench201 import ReLUConvBN
from ...benchmarks.spaces.base import Architecture, SearchSpace
from ...benchmarks.spaces.darts import CONCAT, NODES, DARTSSpace
from .mix import Mix
from .network import Supernet, channel_shuffle
from .norm import PathNorm, replace_norms
from .topology import Table, topology

_SETTINGS = ("num_classes", "channels", "layers", "input_channels", "stem_multiplier")
_POOLING = ("max_pool_3x3", "avg_pool_3x3")


class SearchCell(nn.Module):
    """Two inputs, four nodes, 14 edges, all operations on each.

    Args:
        table: edges and operations.
        before: channels of the output of the last cell but one.
        last: channels of the output of the last cell.
        channels: of every node.
        reduction: operations on the two inputs have stride 2.
        after_reduction: the last cell was a reduction cell, so the output of the one before has twice the resolution.
        affine: the batch normalisations have a scale and a shift.
        pool_norm: pooling is followed by a batch normalisation without scale and shift.
        owner: the supernet.
    """

    def __init__(
        self,
        table: Table,
        *,
        before: int,
        last: int,
        channels: int,
        reduction: bool,
        after_reduction: bool,
        affine: bool,
        pool_norm: bool,
        owner: Supernet,
    ) -> None:
        super().__init__()
        self._owner = (owner,)  # in a tuple, so that it is no submodule of its own part
        self.table = table
        self.none = table.none
        self.skip = table.skip
        self.reduction = reduction
        self.width = width = channels // owner.partial
        self.preprocess0 = FactorizedReduce(before, channels) if after_reduction else ReLUConvBN(before, channels, 1)
        self.preprocess1 = ReLUConvBN(last, channels, 1)
        self.edges = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: _with_norm(_operation(name, width, self.stride(source)), width, pool_norm)
                    for name in table.operations
                    if name != "none"
                }
            )
            for _, source in table.edges
        )
        replace_norms(self)
        if not affine:
            for module in self.modules():
                if isinstance(module, PathNorm):
                    module.affine = False
                    module.register_parameter("weight", None)
                    module.register_parameter("bias", None)

    def stride(self, source: int) -> int:
        """Of the operations on a node."""
        return 2 if self.reduction and source < 2 else 1

    def operation(self, edge: int, op: int) -> nn.Module:
        return cast(nn.ModuleDict, self.edges[edge])[self.table.operations[op]]

    def forward(self, before: Tensor, last: Tensor, mix: Mix) -> Tensor:
        owner = self._owner[0]
        nodes = _Nodes(self.preprocess0(before), self.preprocess1(last), owner.partial, reduction=self.reduction)
        merge = owner.merge and not mix.is_path and not mix.carry
        if merge and cast(PathNorm, self.preprocess1.op[2]).mode == "batch":
            self._merged(nodes, mix)
        else:
            self._plain(nodes, mix)
        return nodes.output()

    # ------------------------------------------------------------------------------------------- operation by operation

    def _plain(self, nodes: _Nodes, mix: Mix) -> None:
        """Edge by edge, the edges of a node in the order of their sources, as in the stand-alone network."""
        for e, (target, source) in enumerate(self.table.edges):
            total: Tensor | None = None
            for op in mix.active[e]:
                if op == self.none:
                    continue
                value = self.operation(e, op)(nodes.mixed(source))
                if op == self.skip and self.stride(source) == 1:
                    value = self._owner[0].drop(value)
                factor = mix.scalar(e, op)
                value = value if factor is None else value * factor
                total = value if total is None else total + value
            if mix.carry:
                carried = mix.carried(e)
                total = nodes.zeros() + carried if total is None else total + carried
            if total is not None:
                nodes.add(target, total)
            nodes.bypass(target, source, None if mix.edges is None else mix.edges[e])

    # ---------------------------------------------------------------------------------------------------- merged by node

    def _merged(self, nodes: _Nodes, mix: Mix) -> None:
        """Node by node: the outgoing edges of a node share what they can."""
        table = self.table
        for source in range(NODES[-1]):
            out = [e for e, (_, s) in enumerate(table.edges) if s == source]
            x = nodes.mixed(source)
            strided = self.stride(source) == 2
            rectified = torch.relu(x)
            pooled: dict[int, Tensor] = {}
            for e in out:
                target = table.edges[e][0]
                for op in mix.active[e]:
                    name = table.operations[op]
                    if name in _POOLING:
                        if op not in pooled:
                            pooled[op] = self.operation(e, op)(x)  # without a scale the same for all edges
                        nodes.add(target, pooled[op], mix.scalar(e, op))
                    elif name == "skip_connect" and not strided:
                        nodes.add(target, self._owner[0].drop(x), mix.scalar(e, op))
                    elif name != "none":
                        nodes.add(target, self._convolved(rectified, self.operation(e, op), mix.scalar(e, op)))
                nodes.bypass(target, source, None if mix.edges is None else mix.edges[e])

    def _convolved(self, rectified: Tensor, operation: nn.Module, factor: Tensor | None) -> Tensor:
        """A convolution, or a factorised reduction, of what was rectified already, multiplied by a factor."""
        if isinstance(operation, FactorizedReduce):
            halves = (operation.conv_1(rectified), operation.conv_2(rectified[:, :, 1:, 1:]))
            value = torch.cat(halves, dim=1)
            norm: nn.Module = operation.bn
        else:
            *parts, norm = list(cast(SepConv | DilConv, operation).op)[1:]
            value = rectified
            for part in parts:
                value = part(value)
        assert isinstance(norm, PathNorm)
        scale: Tensor | None = norm.weight
        shift: Tensor | None = norm.bias
        if factor is not None:
            # Batch normalisation reads a scale as consecutive numbers: an expanded one would be read past its end.
            scale = factor.repeat(self.width) if scale is None else scale * factor
            shift = None if shift is None else shift * factor
        return functional.batch_norm(value, None, None, scale, shift, True, 0.0, norm.eps)


class _Nodes:
    """The six nodes of a cell while their incoming edges are added up.

    With partial channels a node is the sum of what its operations made of the first channels, and of the other channels as
    they are, or the larger ones of each 2 x 2 where the edge has stride 2; the two are then shuffled, so that the next
    operations see both (PC-DARTS, section 3.2).
    """

    def __init__(self, before: Tensor, last: Tensor, partial: int, *, reduction: bool) -> None:
        self.partial, self.reduction = partial, reduction
        n = 2 + len(NODES)
        self._whole: list[Tensor | None] = [before, last, *[None] * (n - 2)]  # finished nodes
        self._sums: list[Tensor | None] = [None] * n
        self._past: list[Tensor | None] = [None] * n
        self._passing: dict[int, Tensor] = {}
        self._width = last.shape[1] // partial
        stride = 1 + reduction
        self._like, self._shape = last, (len(last), self._width, last.shape[2] // stride, last.shape[3] // stride)

    def zeros(self) -> Tensor:
        """What a node is to which no operation adds."""
        return self._like.new_zeros(self._shape)

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
        if source not in self._passing:
            rest = self._finish(source)[:, self._width :]
            self._passing[source] = functional.max_pool2d(rest, 2) if self.reduction and source < 2 else rest
        value = self._passing[source]
        value = value if factor is None else value * factor
        so_far = self._past[target]
        self._past[target] = value if so_far is None else so_far + value

    def output(self) -> Tensor:
        return torch.cat([self._finish(node) for node in CONCAT], dim=1)

    def _finish(self, node: int) -> Tensor:
        found = self._whole[node]
        if found is None:
            found = self._sums[node]
            if found is None:
                found = self.zeros()
            past = self._past[node]
            if past is not None:
                found = channel_shuffle(torch.cat((found, past), dim=1), self.partial)
            self._whole[node] = found
        return found


def _with_norm(operation: nn.Module, channels: int, pool_norm: bool) -> nn.Module:
    """Pooling is followed by a batch normalisation without scale and shift, if wanted."""
    if pool_norm and isinstance(operation, nn.MaxPool2d | nn.AvgPool2d):
        return nn.Sequential(operation, PathNorm(channels, affine=False))
    return operation


class DARTSSupernet(Supernet):
    """All pairs of DARTS cells as one image classifier.

    Args:
        space: darts.
        settings: num_classes, channels, layers, input_channels and stem_multiplier of the stand-alone networks; others are
            ignored. There is no auxiliary head.
        affine: the batch normalisations of the cells have a scale and a shift (published: no).
        partial: see `Supernet`.
        pool_norm: pooling is followed by a batch normalisation without scale and shift (published: yes). The stand-alone
            network has none there, so an architecture with pooling can only be extracted without.

    Raises:
        ValueError: `partial` does not divide the channels, or there is no layer or channel.
    """

    def __init__(
        self,
        space: SearchSpace,
        settings: Mapping[str, Any],
        *,
        affine: bool = False,
        partial: int = 1,
        pool_norm: bool = True,
    ) -> None:
        super().__init__(partial=partial)
        self.topology = topology(space)
        self.settings = {name: settings[name] for name in _SETTINGS if name in settings} | {"auxiliary": False}
        self.pool_norm = pool_norm
        # The network of any architecture gives the shapes, and the parts outside of the cells.
        network = DARTSNetwork((0,) * len(DARTSSpace.cardinalities), **self.settings)
        channels = settings["channels"]
        if partial < 1 or channels % partial:
            raise ValueError(f"partial={partial} does not divide the {channels} channels")
        self.reductions = network.reductions
        self.cell_tables = tuple(int(layer in self.reductions) for layer in range(settings["layers"]))
        self.stem = network.stem
        replace_norms(self.stem)
        before = last = cast(nn.Conv2d, network.stem[0]).out_channels
        self.cells = nn.ModuleList()
        for layer, table in enumerate(self.cell_tables):
            channels *= 1 + table
            self.cells.append(
                SearchCell(
                    self.topology.tables[table],
                    before=before,
                    last=last,
                    channels=channels,
                    reduction=bool(table),
                    after_reduction=layer - 1 in self.reductions,
                    affine=affine,
                    pool_norm=pool_norm,
                    owner=self,
                )
            )
            before, last = last, len(CONCAT) * channels
        self.classifier = network.classifier

    def forward_cells(self, images: Tensor, mixes: Sequence[Mix]) -> Tensor:
        factor = 2 ** len(self.reductions)
        if any(side % factor for side in images.shape[2:]):
            raise ValueError(
                f"images of {images.shape[2]} x {images.shape[3]} cannot be halved {len(self.reductions)} time(s):"
                f" pad or scale them to sides divisible by {factor}"
            )
        before = last = self.stem(images)
        for cell, mix in zip(self.cells, mixes, strict=True):
            before, last = last, cell(before, last, mix)
        logits: Tensor = self.classifier(torch.mean(last, dim=(2, 3)))
        return logits

    def extract(self, arch: Architecture) -> nn.Module:
        """See `Supernet`; also a ValueError for pooling where it is followed by a normalisation."""
        if self.partial > 1:
            raise ValueError(
                f"the operations of a supernet with 1 / {self.partial} of the channels are narrower than a stand-alone"
                " network's: there are no weights to take over"
            )
        network = DARTSNetwork(arch, **self.settings)
        genotype = network.genotype
        if self.pool_norm and (found := [name for name, _ in genotype.normal + genotype.reduce if name in _POOLING]):
            raise ValueError(
                f"{found[0]} is followed by a batch normalisation in this supernet, but not in a stand-alone network: build"
                " the supernet with pool_norm=False, or extract an architecture without pooling"
            )
        edges = self.topology.tables[0].edges
        own = self.state_dict()
        state = network.state_dict()
        for name in state:
            theirs = name
            if (match := re.fullmatch(r"cells\.(\d+)\._ops\.(\d+)\.(.*)", name)) is not None:
                cell, place, rest = int(match[1]), int(match[2]), match[3]
                operation, source = (genotype.reduce if self.cell_tables[cell] else genotype.normal)[place]
                theirs = f"cells.{cell}.edges.{edges.index((NODES[place // 2], source))}.{operation}.{rest}"
            if theirs in own:  # normalisations without a scale have none to give
                state[name] = own[theirs].clone()
        network.load_state_dict(state)
        network.to(next(self.parameters()).device)
        return network.train(self.training)
