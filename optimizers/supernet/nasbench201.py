"""All NAS-Bench-201 cells in one network.

Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020, section 2 and
appendix. https://arxiv.org/abs/2001.00326

The skeleton is that of the stand-alone network, and every edge holds all operations under the names that they have there.

The merged form of a soft pass computes, for every node, what its outgoing edges have in common once: the ReLU, the pooling,
and operations of equal kind as one convolution with as many times the output channels. The factor of an operation becomes
the scale of its batch normalisation, which costs nothing. All that a node sends to its targets is then added up in one
differentiable step, `_Spread`, which goes once over each term and keeps no products for the backward pass.

Where this file differs from the published supernet (AutoDL-Projects):
    * Batch statistics everywhere, also in the stem and in the residual blocks (`norm.py`).
    * `none` is not computed.
    * Partial channels: see PC-DARTS (Xu et al., ICLR 2020, section 3.2); in one cell space of stride 1 nothing is pooled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...benchmarks.networks.nasbench201 import NASBench201Network, ReLUConvBN, Skeleton
from ...benchmarks.spaces.base import Architecture, SearchSpace
from ...benchmarks.spaces.nasbench201 import CONV1, CONV3, EDGES, NONE, POOL, SKIP
from .mix import Mix
from .network import Supernet, channel_shuffle
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
        self._known: dict[tuple[tuple[int, ...], int], tuple[list[nn.Conv2d], list[PathNorm]]] = {}

    def operation(self, edge: int, op: int) -> ReLUConvBN:
        return cast(ReLUConvBN, cast(nn.ModuleDict, self.edges[edge])[str(op)])

    def forward(self, x: Tensor, mix: Mix) -> Tensor:
        nodes = _Nodes(x, self._owner[0].partial)
        merge = self._owner[0].merge and mix.weights is not None and not mix.is_path and not mix.carry
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
        owner = self._owner[0]
        dropping = bool(owner.skip_dropout) and owner.training
        for source, out in _OUT.items():
            x = nodes.mixed(source)
            edges = {op: tuple(e for e in out if op in mix.active[e]) for op in (SKIP, CONV1, CONV3, POOL)}
            wide: list[tuple[tuple[int, ...], Tensor]] = []
            if edges[CONV1] or edges[CONV3]:
                rectified = torch.relu(x)
                wide = [(edges[op], self._wide(rectified, edges[op], op, mix)) for op in (CONV3, CONV1) if edges[op]]
            pooled = _shared_pool(x) if edges[POOL] else None
            nodes.spread(x, pooled, wide, () if dropping else edges[SKIP], edges[POOL], mix)
            if dropping:
                for e in edges[SKIP]:  # every edge drops values of its own
                    nodes.add(EDGES[e][0], owner.drop(x), mix.scalar(e, SKIP))
            for e in out:
                nodes.bypass(EDGES[e][0], source, None if mix.edges is None else mix.edges[e])

    def _wide(self, rectified: Tensor, edges: tuple[int, ...], op: int, mix: Mix) -> Tensor:
        """The convolutions of one kind on some edges out of one node, `(n, len(edges) * width, ...)`, with their factors."""
        convolutions, norms = self._parts(edges, op)
        weight = torch.cat([c.weight for c in convolutions]) if len(edges) > 1 else convolutions[0].weight
        value = functional.conv2d(rectified, weight, padding=_KERNELS[op] // 2)
        factors = mix.column(edges, op)
        scale = None if factors is None else factors[:, None].expand(-1, self.width).reshape(-1).contiguous()
        shift = None
        if norms[0].affine:
            gamma, beta = torch.cat([n.weight for n in norms]), torch.cat([n.bias for n in norms])
            scale, shift = (gamma, beta) if scale is None else (gamma * scale, beta * scale)
        return functional.batch_norm(value, None, None, scale, shift, True, 0.0, norms[0].eps)

    def _parts(self, edges: tuple[int, ...], op: int) -> tuple[list[nn.Conv2d], list[PathNorm]]:
        """The convolutions and normalisations of one kind on some edges; looking modules up anew in each pass takes long."""
        if (edges, op) not in self._known:
            operations = [self.operation(e, op).op for e in edges]
            self._known[edges, op] = (
                [cast(nn.Conv2d, o[1]) for o in operations],
                [cast(PathNorm, o[2]) for o in operations],
            )
        return self._known[edges, op]


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
        return x if self.partial == 1 else x[:, : self._width].contiguous(memory_format=torch.channels_last)

    def add(self, target: int, value: Tensor, factor: Tensor | None = None) -> None:
        so_far = self._sums[target]
        if factor is None:
            self._sums[target] = value if so_far is None else so_far + value
        else:
            self._sums[target] = value * factor if so_far is None else torch.addcmul(so_far, value, factor)

    def spread(
        self,
        x: Tensor,
        pooled: Tensor | None,
        wide: Sequence[tuple[tuple[int, ...], Tensor]],
        skips: tuple[int, ...],
        pools: tuple[int, ...],
        mix: Mix,
    ) -> None:
        """Add everything that one node sends to its targets.

        Args:
            x: the node.
            pooled: its average over 3 x 3 pixels, where an edge needs it.
            wide: edges, and a tensor that holds for each of them as many channels, with the factors already in it.
            skips, pools: edges that add x or `pooled`, with the factors of the mix.
            mix: of the pass.
        """
        edges = sorted({e for found, _ in wide for e in found} | {*skips, *pools})
        if not edges:
            return
        sums = [self._sums[EDGES[e][0]] for e in edges]
        plan = tuple(
            _Target(
                has_sum=so_far is not None,
                parts=tuple((i, found.index(e)) for i, (found, _) in enumerate(wide) if e in found),
                skip=skips.index(e) if e in skips else None,
                pool=pools.index(e) if e in pools else None,
            )
            for e, so_far in zip(edges, sums, strict=True)
        )
        totals = _Spread.apply(  # type: ignore[no-untyped-call]
            plan,
            x,
            pooled,
            mix.column(skips, SKIP) if skips else None,
            mix.column(pools, POOL) if pools else None,
            len(wide),
            *(value for _, value in wide),
            *(so_far for so_far in sums if so_far is not None),
        )
        for e, total in zip(edges, totals, strict=True):
            self._sums[EDGES[e][0]] = total

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


class _Target(NamedTuple):
    """What is added to one target of a node.

    Attributes:
        has_sum: something was added to it before.
        parts: (number of the wide tensor, which of its parts).
        skip, pool: number of the factor; None for no such term.
    """

    has_sum: bool
    parts: tuple[tuple[int, int], ...]
    skip: int | None
    pool: int | None


class _Spread(torch.autograd.Function):
    """The weighted sums of everything that one node sends to its targets, in place where a sum exists.

    For a target t with earlier sum s, parts y of wide tensors, and factors f and h:

        total_t = s_t + sum of y_t + f_t x + h_t pooled
        d/ds_t = g_t;    d/dy = the g_t side by side;    d/dx = sum of f_t g_t;    d/df_t = <g_t, x>

    As products under autograd every term would make, and most would keep, a tensor of its own. The backward pass consists of
    differentiable operations, so that second derivatives are right, too.
    """

    @staticmethod
    def forward(
        ctx: Any,
        plan: tuple[_Target, ...],
        x: Tensor,
        pooled: Tensor | None,
        skip: Tensor | None,
        pool: Tensor | None,
        wides: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        wide, sums = tensors[:wides], iter(tensors[wides:])
        width = x.shape[1]
        skips = () if skip is None else skip.unbind()
        pools = () if pool is None else pool.unbind()
        totals, changed = [], []
        for target in plan:
            plain = [wide[i].narrow(1, part * width, width) for i, part in target.parts]
            if target.has_sum:
                total = next(sums)
                changed.append(total)
            elif len(plain) > 1:
                total = plain.pop() + plain.pop()
            else:
                total = plain.pop().clone(memory_format=torch.channels_last) if plain else torch.zeros_like(x)
            for value in plain:
                total.add_(value)
            if target.skip is not None:
                total.addcmul_(x, skips[target.skip])
            if target.pool is not None:
                total.addcmul_(cast(Tensor, pooled), pools[target.pool])
            totals.append(total)
        ctx.mark_dirty(*changed)
        # The products with x and the pooled x are needed by the factors' gradients alone.
        ctx.save_for_backward(
            x if ctx.needs_input_grad[3] else None, pooled if ctx.needs_input_grad[4] else None, skip, pool
        )
        ctx.plan, ctx.wides = plan, wides
        return tuple(totals)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        plan: tuple[_Target, ...] = ctx.plan
        x, pooled, skip, pool = ctx.saved_tensors
        gradients = tuple(g.contiguous(memory_format=torch.channels_last) for g in gradients)
        skips = [(g, t.skip) for g, t in zip(gradients, plan, strict=True) if t.skip is not None]
        pools = [(g, t.pool) for g, t in zip(gradients, plan, strict=True) if t.pool is not None]
        parts: list[list[tuple[int, int]]] = [[] for _ in range(ctx.wides)]  # of each wide tensor (part, target)
        for t, target in enumerate(plan):
            for i, part in target.parts:
                parts[i].append((part, t))
        side_by_side: dict[tuple[int, ...], Tensor] = {}
        for found in parts:
            order = tuple(t for _, t in sorted(found))
            if order not in side_by_side:
                side_by_side[order] = (
                    torch.cat([gradients[t] for t in order], dim=1) if len(order) > 1 else gradients[order[0]]
                )
        return (
            None,
            _weighted(skips, skip) if ctx.needs_input_grad[1] else None,
            _weighted(pools, pool) if ctx.needs_input_grad[2] else None,
            _products(skips, x) if ctx.needs_input_grad[3] else None,
            _products(pools, pooled) if ctx.needs_input_grad[4] else None,
            None,
            *(side_by_side[tuple(t for _, t in sorted(found))] for found in parts),
            *(g for g, target in zip(gradients, plan, strict=True) if target.has_sum),
        )


def _weighted(terms: Sequence[tuple[Tensor, int]], factors: Tensor | None) -> Tensor | None:
    """The sum of tensors times their factors."""
    if factors is None:
        return None
    total: Tensor | None = None
    for value, k in terms:
        total = value * factors[k] if total is None else total.addcmul_(value, factors[k])
    return total


def _products(terms: Sequence[tuple[Tensor, int]], x: Tensor) -> Tensor:
    """The inner products with x, in the order of the factors; one number per term is all that is written."""
    flat = _flat(x)
    found = {k: torch.dot(_flat(value), flat) for value, k in terms}
    return torch.stack([found[k] for k in range(len(found))])


def _flat(x: Tensor) -> Tensor:
    """All values in the order of the memory, in single precision at least, for sums over a whole batch."""
    x = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(-1)
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _convolution(channels: int, kernel: int, affine: bool) -> ReLUConvBN:
    made = ReLUConvBN(channels, channels, kernel)
    made.op[2] = PathNorm(channels, affine=affine)
    return made


def _pool(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _Box(torch.autograd.Function):
    """The sum over 3 x 3 pixels. Its matrix is symmetric, so that the backward pass is the same sum of the gradient."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return functional.conv2d(x, _ones(channels, x.dtype, x.device), padding=1, groups=channels)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return cast(Tensor, _Box.apply(gradient))  # type: ignore[no-untyped-call]


def _shared_pool(x: Tensor) -> Tensor:
    """`_pool` as a sum and a division by the number of pixels, which is several times faster in channels_last memory."""
    return cast(Tensor, _Box.apply(x)) * _shares(*x.shape[1:], x.dtype, x.device)  # type: ignore[no-untyped-call]


@lru_cache(maxsize=64)
def _ones(channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones(channels, 1, 3, 3, dtype=dtype, device=device)


@lru_cache(maxsize=64)
def _shares(channels: int, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One over the number of pixels of the image in the 3 x 3 around each, `(1, channels, height, width)`."""
    inside = functional.avg_pool2d(torch.ones(1, 1, height, width, dtype=torch.float64), 3, 1, 1) * 9.0
    shares = (1.0 / inside).expand(1, channels, height, width)
    return shares.to(device, dtype).contiguous(memory_format=torch.channels_last)


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
