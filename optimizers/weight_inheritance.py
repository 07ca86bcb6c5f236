"""Weight inheritance: evolution in which every child begins with its parent's weights, by moves that keep the function.

Chen, Goodfellow and Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR 2016, section 2, for the moves;
Elsken, Metzen and Hutter, "Simple And Efficient Architecture Search for Convolutional Neural Networks", 2017, and Real et
al., "Large-Scale Evolution of Image Classifiers", ICML 2017, section 3, for searches that inherit.
https://arxiv.org/abs/1511.05641 https://arxiv.org/abs/1711.04528 https://arxiv.org/abs/1703.01041

A population of networks is trained for a few epochs each. Then two are drawn; the better one has a child with one mutated
choice, which takes over its weights, is trained for as many epochs, and takes the place of the worse one. There is no
supernet: every network has its own weights, but a child does not begin anew. The search proposes the architecture with the
highest held-out accuracy so far.

What becomes of the weights (`inherit`), and whether the child computes at first what its parent does:
    * Size space, wider: channels are copied, and what reads a copied channel divides its weight between the copies: the same
      function, up to rounding, with batch normalisation in training and in evaluation. Shares are not quite equal, or the
      copies would stay equal for ever.
    * Size space, a skip connection becomes a 1x1 convolution because the two sides differ now: the same in evaluation.
    * Both hold for one changed width, as a mutation makes it.
    * Size space, narrower: the channels stay that are read with the largest absolute weights; another function.
    * Size space, a 1x1 convolution on a skip connection disappears because the two sides are equal now: another function.
    * Cells, 1x1 to 3x3 convolution: the weight becomes the centre of the kernel: the same function.
    * Cells, none to a convolution: its normalisation has scale and shift 0, to begin with: the same function.
    * Cells, skip to a convolution: the identity, and a normalisation that undoes itself. ReLU comes before the convolution, so
      it is the same (in evaluation) only as far as the node is not negative.
    * Cells, pooling to 3x3 convolution: a mean over the nine pixels; as above, and other at the border.
    * Everything else (3x3 to 1x1, which keeps the centre; pooling to 1x1, which begins anew; to none, skip or pooling): another
      function.

Where this file differs from the papers:
    * The spaces are those of the package: layers are neither added nor removed.
    * Net2Net adds noise to copies; here their shares differ, which keeps the function and breaks the tie as well.
    * Real et al. mutate the learning rate and much else, and keep weights only where shapes agree. Elsken et al. climb from one
      network with all children of a step trained side by side.
    * `@paper` trains each network as long as Elsken et al. do, in tournaments of two as in Real et al.; its population and
      its number of networks are smaller than those of the latter.
    * A later child has a longer line of training behind it, so its accuracy is not that of an architecture trained from
      scratch, and the search prefers what is a small step from what it has.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..benchmarks.networks.nasbench201 import Cell, NASBench201Network, ReLUConvBN
from ..benchmarks.networks.nats_size import Cell as SizeCell
from ..benchmarks.networks.nats_size import NATSSizeNetwork, Projection
from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..benchmarks.spaces.nasbench201 import CONV1, CONV3, NONE, POOL, SKIP
from .base import SupernetTask
from .supernet.images import Batch
from .supernet.recipe import check_whole
from .supernet.training import SupernetOptimizer


class Member(NamedTuple):
    """A trained network of the population."""

    arch: Architecture
    accuracy: float
    state: dict[str, Tensor]


class WeightInheritance(SupernetOptimizer):
    """Evolution with inherited weights; each `ask` trains one network.

    Args:
        population: networks that live at the same time; the first ones are random and begin with random weights.
        sample: how many are drawn for a tournament, whose best is the parent and whose worst dies.
        child_epochs: epochs of each network's training, with a learning rate that falls by a cosine from the beginning of
            each to its end.
        noise: how much the shares of copied channels differ, relative to equal shares.
        task, recipe: see `supernet.training.SupernetOptimizer`. Here `epochs` is the number of networks that are trained;
            what is about architecture parameters and warm-up has no effect.

    Attributes:
        members: the population, oldest first.
        best: the member with the highest held-out accuracy so far, alive or not; its weights are not kept.

    Raises:
        ValueError: a population below 2, a sample that is not in 2..population, child_epochs below 1, or noise that is not in
            [0, 1).
    """

    spaces: ClassVar[tuple[str, ...]] = ("nasbench201", "nats_size")
    own_recipe: ClassVar[Mapping[str, Any]] = {"epochs": 25, "learning_rate": 0.05, "min_learning_rate": 0.0}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"epochs": 1000, "population": 100, "sample": 2, "child_epochs": 17, "batch_size": 128}
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        population: int = 8,
        sample: int = 2,
        child_epochs: int = 2,
        noise: float = 0.1,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        for name, value, least in (
            ("population", population, 2),
            ("sample", sample, 2),
            ("child_epochs", child_epochs, 1),
        ):
            check_whole(name, value, least)
        if sample > population:
            raise ValueError(f"sample={sample} is more than the population of {population}")
        if not 0 <= noise < 1:
            raise ValueError(f"noise must be in [0, 1), not {noise!r}")
        self.population, self.sample, self.child_epochs, self.noise = population, sample, child_epochs, noise
        self.members: list[Member] = []
        self.best: Member | None = None

    # -------------------------------------------------------------------------------------------------------- the search

    def prepare(self) -> None:
        """Read the images, once; there is no supernet to build."""
        if self._begun:
            return
        self.open_images()
        self._begun = True

    def propose(self) -> Architecture:
        assert self.best is not None
        return self.best.arch

    def _train_epoch(self) -> None:
        """Train one more network."""
        start = time.perf_counter()
        self._sums = dict.fromkeys(self._sums, 0.0)
        worst: int | None = None
        if len(self.members) < self.population:
            arch = self.space.sample(self.rng)
            network = self.network(arch)
        else:
            drawn = self.rng.choice(self.population, self.sample, replace=False).tolist()
            ranked = sorted(
                drawn, key=lambda i: (self.members[i].accuracy, i)
            )  # of two equals the younger counts as better
            worst, parent = ranked[0], self.members[ranked[-1]]
            arch = self.space.mutate(parent.arch, self.rng)
            network = self.child(parent, arch)
        held_out = self.images.fixed("architecture")
        before = self.evaluate(network, held_out)
        self.train(network)
        accuracy = self.evaluate(network, held_out)
        if worst is not None:
            del self.members[worst]
        self.members.append(Member(arch, accuracy, {k: v.detach().clone() for k, v in network.state_dict().items()}))
        if self.best is None or accuracy > self.best.accuracy:
            self.best = Member(arch, accuracy, {})
        self.epoch += 1
        n = max(self._sums["n"], 1.0)
        self.log.append(
            {
                "epoch": float(self.epoch),
                "loss": self._sums["loss"] / n,
                "accuracy": self._sums["correct"] / n,
                "inherited": before,
                "held_out": accuracy,
                "seconds": time.perf_counter() - start,
            }
        )

    def network(self, arch: Architecture) -> nn.Module:
        """A network of the recipe's size with weights from the run's generator."""
        settings = self.settings
        if self.space.name == "nats_size":
            sizes = {name: settings[name] for name in ("num_classes", "input_channels")}
            return self.initialised(lambda: NATSSizeNetwork(arch, **sizes))  # type: ignore[no-any-return]
        # Never pruned: what is cut off in the parent may be needed by the child.
        sizes = {name: settings[name] for name in ("num_classes", "channels", "cells", "input_channels")}
        return self.initialised(lambda: NASBench201Network(arch, **sizes))  # type: ignore[no-any-return]

    def child(self, parent: Member, arch: Architecture) -> nn.Module:
        """A network of `arch` with what it inherits."""
        theirs = self.network(parent.arch)
        theirs.load_state_dict(parent.state)
        network = self.network(arch)
        images, labels = self.images.part("weights")
        batch = self.images.prepare(images[:256], labels[:256], augment=False)
        inherit(theirs, network, batch.images, noise=self.noise, generator=self.generator)
        return network

    def train(self, network: nn.Module) -> None:
        """`child_epochs` epochs of SGD."""
        self.weight_optimizer = self.make_weight_optimizer(network.parameters())
        steps, done = self.images.steps() * self.child_epochs, 0
        network.train()
        for epoch in range(self.child_epochs):
            self.images.start_epoch(self.epoch * self.child_epochs + epoch)
            for batch in self.images.batches("weights"):
                self._rate(done / steps)
                self._step(network, batch)
                done += 1

    def _rate(self, progress: float) -> None:
        r = self.recipe
        rate = r.min_learning_rate + 0.5 * (r.learning_rate - r.min_learning_rate) * (1 + math.cos(math.pi * progress))
        for group in self.weight_optimizer.param_groups:
            group["lr"] = rate

    def _step(self, network: nn.Module, batch: Batch) -> None:
        with self.autocast():
            logits = network(batch.images)
            loss = functional.cross_entropy(logits.float(), batch.targets)
        self._sums["loss"] += float(loss.detach()) * len(batch.targets)
        self._sums["correct"] += float((logits.detach().argmax(1) == batch.targets).sum())
        self._sums["n"] += len(batch.targets)
        self.update_weights(loss)

    @torch.no_grad()
    def evaluate(self, network: nn.Module, batches: Sequence[Batch]) -> float:
        """Accuracy with the running averages of batch normalisation, a fraction."""
        network.eval()
        correct = sum(int((network(b.images).argmax(1) == b.targets).sum()) for b in batches)
        return correct / sum(len(b.targets) for b in batches)

    # ------------------------------------------------------------------------------------------------------- checkpoints

    def extra_state(self) -> dict[str, Any]:
        return {
            "members": [
                {"arch": list(m.arch), "accuracy": m.accuracy, "state": {k: v.clone() for k, v in m.state.items()}}
                for m in self.members
            ],
            "best": None if self.best is None else {"arch": list(self.best.arch), "accuracy": self.best.accuracy},
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.members = [
            Member(tuple(m["arch"]), m["accuracy"], {k: v.to(self.recipe.device) for k, v in m["state"].items()})
            for m in state["members"]
        ]
        best = state["best"]
        self.best = None if best is None else Member(tuple(best["arch"]), best["accuracy"], {})


# ----------------------------------------------------------------------------------------------------------- the inheritance


@torch.no_grad()
def inherit(
    parent: nn.Module, child: nn.Module, images: Tensor, *, noise: float = 0.0, generator: torch.Generator | None = None
) -> None:
    """Give a child what it can take over of its parent, so that it computes the same as far as that is possible.

    Args:
        parent, child: two networks of NAS-Bench-201 that are equal but for their operations, or two of the size space.
        images: `(n, channels, height, width)`, from which a normalisation that is to undo itself takes its statistics.
        noise: how much the shares of copied channels differ.
        generator: of these shares and of the copied channels, on the CPU.

    Raises:
        TypeError: networks of other spaces, or of two.
    """
    if isinstance(parent, NATSSizeNetwork) and isinstance(child, NATSSizeNetwork):
        made = _inherit_widths(parent, child, noise, generator or torch.Generator().manual_seed(0))
    elif isinstance(parent, NASBench201Network) and isinstance(child, NASBench201Network):
        made = _inherit_operations(parent, child)
    else:
        raise TypeError(f"no inheritance from {type(parent).__name__} to {type(child).__name__}")
    _undo(child, made, images)


def _inherit_operations(parent: NASBench201Network, child: NASBench201Network) -> list[nn.BatchNorm2d]:
    """Cells: returns the normalisations that are to undo themselves."""
    theirs, own = parent.state_dict(), child.state_dict()
    for name, value in own.items():
        if name in theirs and theirs[name].shape == value.shape:
            value.copy_(theirs[name])
    undone = []
    cells = [
        (a, b) for a, b in zip(parent.cells, child.cells, strict=True) if isinstance(a, Cell) and isinstance(b, Cell)
    ]
    for ours, new in cells:
        for old_op, op, layer, made in zip(ours.arch, new.arch, ours.layers, new.layers, strict=True):
            if old_op == op or not isinstance(made, ReLUConvBN):
                continue
            conv, norm = _parts(made)
            if isinstance(layer, ReLUConvBN):  # its normalisation was copied above
                old, _ = _parts(layer)
                if op == CONV3:
                    conv.weight.zero_()
                    conv.weight[:, :, 1:2, 1:2] = old.weight
                else:
                    conv.weight.copy_(old.weight[:, :, 1:2, 1:2])
            elif old_op == NONE:
                nn.init.zeros_(norm.weight)
                nn.init.zeros_(norm.bias)
            elif old_op == SKIP or (old_op == POOL and op == CONV3):
                eye = torch.eye(conv.weight.shape[0], device=conv.weight.device)
                conv.weight.zero_()
                if old_op == POOL:
                    conv.weight.copy_(eye[:, :, None, None].expand_as(conv.weight) / 9.0)
                else:
                    centre = conv.weight.shape[-1] // 2
                    conv.weight[:, :, centre, centre] = eye
                undone.append(norm)
            else:
                assert (old_op, op) == (POOL, CONV1)  # as it was drawn
    return undone


def _parts(layer: ReLUConvBN) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    conv, norm = layer.op[1], layer.op[2]
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return conv, norm


class Channels(NamedTuple):
    """Where the channels of a wider or narrower tensor come from.

    Attributes:
        source: `(new,)`, the old channel.
        share: `(new,)`, what a weight that reads the old channel is multiplied by.
    """

    source: Tensor
    share: Tensor


def _inherit_widths(
    parent: NATSSizeNetwork, child: NATSSizeNetwork, noise: float, generator: torch.Generator
) -> list[nn.BatchNorm2d]:
    """Size space: returns the normalisations that are to undo themselves."""
    reads = _reads(parent)
    widths = [len(reads[block]) for block in range(5)]
    wanted = [_width(block) for block in child.cells]
    maps = [
        _mapping(reads[block], new, noise, generator) if new != old else None
        for block, (old, new) in enumerate(zip(widths, wanted, strict=True))
    ]
    theirs, undone = dict(parent.state_dict()), []
    for block, made in enumerate(child.cells):
        if not isinstance(made, SizeCell) or not isinstance(made.layers[3], Projection):
            continue
        old_cell = parent.cells[block]
        assert isinstance(old_cell, SizeCell)
        if isinstance(old_cell.layers[3], nn.Identity):  # it becomes an identity that is written as a convolution
            prefix = f"cells.{block}.layers.3"
            like = theirs["classifier.weight"]
            ones, zeros = like.new_ones(widths[block]), like.new_zeros(widths[block])
            theirs[f"{prefix}.conv.weight"] = torch.diag(ones)[:, :, None, None]
            theirs |= {f"{prefix}.bn.weight": ones, f"{prefix}.bn.bias": zeros}
            theirs |= {f"{prefix}.bn.running_mean": zeros, f"{prefix}.bn.running_var": ones}
            undone.append(made.layers[3].bn)
    for name, value in child.state_dict().items():
        if name in theirs:
            outputs, inputs = _spaces(name)
            found = theirs[name]
            if value.ndim and outputs is not None and (m := maps[outputs]) is not None:
                found = found[m.source]
            if inputs is not None and (m := maps[inputs]) is not None:
                found = found[:, m.source] * m.share.view(1, -1, *[1] * (found.ndim - 2))
            value.copy_(found)
    return undone


def _width(block: nn.Module) -> int:
    """Output channels of a block."""
    last = block.layers[5] if isinstance(block, SizeCell) else block.conv_b
    assert isinstance(last, ReLUConvBN)
    return _parts(last)[0].out_channels


def _spaces(name: str) -> tuple[int | None, int | None]:
    """The blocks whose output channels a tensor's first and second dimension count; None for neither (pixels, classes).

    All nodes of a block have the block's channels, and the stem has those of the first.
    """
    kind, *rest = name.split(".")
    if kind == "stem":
        return 0, None
    if kind == "lastact":
        return 4, None
    if kind == "classifier":
        return None, 4 if rest[-1] == "weight" else None
    block, inside = int(rest[0]), ".".join(rest[1:])
    if not inside.endswith(("op.1.weight", "conv.weight", "downsample.1.weight")):
        return block, None  # a normalisation
    of_input = ("layers.0.", "layers.1.", "layers.3.", "conv_a.", "downsample.")
    return block, max(block - 1, 0) if inside.startswith(of_input) else block


def _reads(network: NATSSizeNetwork) -> list[Tensor]:
    """For each block how much its channels are read: the sum of the absolute weights, per channel."""
    found: list[Tensor | None] = [None] * 5
    for name, value in network.state_dict().items():
        _, inputs = _spaces(name)
        if inputs is not None:
            summed = value.double().abs().sum(dim=[d for d in range(value.ndim) if d != 1])
            so_far = found[inputs]
            found[inputs] = summed if so_far is None else so_far + summed
    return [value for value in found if value is not None]


def _mapping(reads: Tensor, new: int, noise: float, generator: torch.Generator) -> Channels:
    """Net2Net's random copies where there are to be more channels, the most read ones in their order where fewer."""
    old = len(reads)
    if new < old:
        source = torch.argsort(reads.cpu(), descending=True, stable=True)[:new].sort().values
        share = torch.ones(new)
    else:
        copied = torch.randint(0, old, (new - old,), generator=generator)
        source = torch.cat((torch.arange(old), copied))
        raw = 1.0 + noise * (2.0 * torch.rand(new, generator=generator, dtype=torch.float64) - 1.0)
        sums = torch.zeros(old, dtype=torch.float64).index_add_(0, source, raw)
        share = (raw / sums[source]).float()
    return Channels(source.to(reads.device), share.to(reads.device))


def _undo(child: nn.Module, norms: Sequence[nn.BatchNorm2d], images: Tensor) -> None:
    """Make normalisations the identity: statistics of what arrives, and a scale and a shift that take them back."""
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        nn.init.constant_(norm.weight, math.sqrt(1.0 + norm.eps))
        nn.init.zeros_(norm.bias)
    arrived: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(args[0].float(), dim=(0, 2, 3), correction=0)
        arrived[module] = variance, mean

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    training = child.training
    child.eval()  # so far the identity with the statistics of nothing, so that each sees what it would
    try:
        child(images)
    finally:
        child.train(training)
        for hook in hooks:
            hook.remove()
    for norm in norms:
        if norm in arrived and norm.running_mean is not None and norm.running_var is not None:
            variance, mean = arrived[norm]
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_(torch.sqrt(variance + norm.eps))
            norm.bias.copy_(mean)
