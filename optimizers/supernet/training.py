"""The search of every one-shot method: train an epoch of the supernet, propose what it would return now.

    class MyMethod(SupernetOptimizer):
        def step(self, batch: Batch, held_out: Batch) -> None: ...    # one training step
        def propose(self) -> Architecture: ...                        # what the search would return now

Most methods are a gate: how a table of architecture parameters becomes the weights of the operations. These subclass
`DifferentiableOptimizer` and write `gate`:

    class Sharp(DifferentiableOptimizer):
        def gate(self, alpha: Tensor) -> Tensor:          # (edges, operations) -> (edges, operations)
            return torch.softmax(alpha / 0.5, dim=1)
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...benchmarks.spaces.base import Architecture, SearchSpace
from ...benchmarks.workers import GLOBAL_GENERATOR, one_torch_thread, without_denormals
from ...harness.core import Proposal, Trial
from ..base import Optimizer, SearchFinished, SupernetTask
from .factory import build_supernet
from .images import Augmentation, Batch, SupernetImages
from .mix import Mix, soft
from .network import Supernet
from .norm import estimated
from .recipe import PAPER, make_recipe
from .topology import Topology, topology

if TYPE_CHECKING:
    from .pretext import Pretext

CHECKPOINT = 1  # raise it when a checkpoint of before cannot be gone on with


class SupernetOptimizer(Optimizer):
    """Base class of the methods that train a supernet inside `ask`.

    Args:
        task: images and network settings; the harness hands it over where the benchmark has both.
        recipe: see `recipe.Recipe`.

    Attributes:
        spaces: names of the spaces that the method works on.
        own_recipe: what differs from the defaults of `Recipe`.
        epoch: epochs that are finished.
        log: one entry per finished epoch: loss, accuracy on the training batches, seconds, and what the method adds.
        supernet, topology, images, generator: there once the search has begun.
    """

    charges_evaluations = False
    spaces: ClassVar[tuple[str, ...] | None] = ("nasbench201", "darts")
    own_recipe: ClassVar[Mapping[str, Any]] = {}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": PAPER}

    supernet: Supernet
    images: SupernetImages
    topology: Topology

    def __init__(
        self, space: SearchSpace, rng: np.random.Generator, *, task: SupernetTask | None = None, **recipe: Any
    ) -> None:
        super().__init__(space, rng)
        self.recipe = make_recipe(type(self).__name__, self.own_recipe, recipe)
        self.task = task
        self.epoch = 0
        self.log: list[dict[str, float]] = []
        self.generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        self._kept: dict[str, Any] = {}
        self._begun = False
        self._sums = {"loss": 0.0, "correct": 0.0, "n": 0.0}

    # ------------------------------------------------------------------------------------------------ what methods write

    def begin(self) -> None:
        """Make what the method needs beside the supernet. What has a `state_dict` goes through `keep`."""

    def step(self, batch: Batch, held_out: Batch) -> None:
        """One training step.

        Args:
            batch: of the part that trains the weights.
            held_out: of the part that trains the architecture.
        """
        raise NotImplementedError

    def propose(self) -> Architecture:
        """What the search would return now."""
        raise NotImplementedError

    def end_epoch(self) -> Mapping[str, float]:
        """Called after each epoch, before `propose`; what it returns is logged."""
        return {}

    def extra_state(self) -> dict[str, Any]:
        """State beside what `keep` holds: numbers, strings, tensors, and lists and dicts of them."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `extra_state`."""

    # ------------------------------------------------------------------------------------------------------- the search

    def ask(self) -> Proposal:
        """Train an epoch and propose the architecture that the search would return now.

        Raises:
            SearchFinished: the epochs are over.
            ValueError: there is no task, or no supernet of this space.
        """
        with self.computing():
            self.prepare()
            if self.epoch >= self.recipe.epochs:
                raise SearchFinished
            self._train_epoch()
            return Proposal(self.propose())

    @contextmanager
    def computing(self) -> Iterator[None]:
        """How the search computes, wherever it does: on the CPU in one thread, and without denormal numbers."""
        with one_torch_thread() if self.recipe.device == "cpu" else nullcontext(), without_denormals():
            yield

    def tell(self, trial: Trial) -> None:
        """Never called: the search learns from its supernet alone."""

    def prepare(self) -> None:
        """Build the supernet and read the images, once."""
        if self._begun:
            return
        self.open_images()
        self.topology = topology(self.space)
        self.supernet = self.keep("supernet", self.build())
        self.supernet.generator = self.generator
        self.weight_optimizer = self.keep("weights", self.make_weight_optimizer(self.supernet.parameters()))
        self.begin()
        self._begun = True

    def open_images(self) -> None:
        """Put the images of both parts on the device.

        Raises:
            ValueError: there is no task, or the method does not search this space.
        """
        if self.task is None:
            raise ValueError(
                f"{type(self).__name__} trains networks: run it on a benchmark that has networks and images, such as"
                " digits201, or give it images with BENCHMARK(images='PATH')"
            )
        if self.spaces is not None and self.space.name not in self.spaces:
            raise ValueError(f"{type(self).__name__} searches {' and '.join(self.spaces)}, not {self.space.name}")
        recipe = self.recipe
        self.images = SupernetImages(
            self.task.images,
            self.generator,
            device=recipe.device,
            batch_size=recipe.batch_size,
            augmentation=self._augmentation(),
            pretext=self._pretext(),
            limit=recipe.images,
            seed=int(self.rng.integers(2**31)),
        )
        scaled = recipe.precision == "float16"
        self.scaler = self.keep("scaler", torch.amp.GradScaler(recipe.device.split(":")[0], enabled=scaled))

    def build(self, **options: Any) -> Supernet:
        """The supernet of the recipe's size on its device, with weights from the run's generator."""
        options = {"affine": self.recipe.affine, **options}
        made: Supernet = self.initialised(lambda: build_supernet(self.space, self.settings, **options))
        return made

    @property
    def settings(self) -> dict[str, Any]:
        """What networks of this search are built with."""
        assert self.task is not None
        settings = {**self.task.settings, "num_classes": self.images.num_classes}
        channels = self.task.images.shape[0]
        pretext = self.images.pretext
        settings["input_channels"] = channels if pretext is None else pretext.channels(channels)
        for name in ("channels", "cells"):
            if (value := getattr(self.recipe, name)) is not None:
                settings["layers" if name == "cells" and self.space.name == "darts" else name] = value
        return settings

    def initialised(self, make: Any) -> Any:
        """A module with weights drawn from the run's generator, on the device."""
        seed = int(torch.randint(2**62, (1,), generator=self.generator))
        with GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):  # torch's initialisers know no other generator
            torch.manual_seed(seed)
            module = make()
        return module.to(self.recipe.device, memory_format=torch.channels_last)

    def keep(self, name: str, part: Any) -> Any:
        """Remember something with a `state_dict` for checkpoints; returns it."""
        self._kept[name] = part
        return part

    def make_weight_optimizer(
        self, parameters: Iterator[nn.Parameter] | Sequence[nn.Parameter]
    ) -> torch.optim.Optimizer:
        r = self.recipe
        return torch.optim.SGD(
            parameters,
            r.learning_rate,
            momentum=r.momentum,
            weight_decay=r.weight_decay,
            nesterov=r.nesterov and r.momentum > 0,
            foreach=True,
        )

    def _augmentation(self) -> Augmentation | None:
        assert self.task is not None
        channels, height, _ = self.task.images.shape
        if not self.recipe.augment or channels != 3:
            return None
        return Augmentation(padding=height // 8, flip=True)

    def _pretext(self) -> Pretext | None:
        if self.recipe.pretext == "classify":
            return None
        from .pretext import make_pretext

        return make_pretext(self.recipe.pretext)

    def _train_epoch(self) -> None:
        start = time.perf_counter()
        self._sums = dict.fromkeys(self._sums, 0.0)
        self.images.start_epoch(self.epoch)
        held_out = self.images.endless("architecture")
        self.supernet.train()
        steps = self.images.steps()
        for i, batch in enumerate(self.images.batches("weights")):
            self._schedule(self.epoch + i / steps)
            self.step(batch, next(held_out))
        self.epoch += 1
        n = max(self._sums["n"], 1.0)
        entry = {
            "epoch": float(self.epoch),
            "loss": self._sums["loss"] / n,
            "accuracy": self._sums["correct"] / n,
        }
        entry.update(self.end_epoch())
        self.log.append({**entry, "seconds": time.perf_counter() - start})

    def _schedule(self, epochs: float) -> None:
        r = self.recipe
        rate = r.min_learning_rate + 0.5 * (r.learning_rate - r.min_learning_rate) * (
            1.0 + math.cos(math.pi * min(1.0, epochs / r.epochs))
        )
        for group in self.weight_optimizer.param_groups:
            group["lr"] = rate

    # ------------------------------------------------------------------------------------------------- pieces of a step

    def autocast(self) -> AbstractContextManager[Any]:
        """The recipe's precision."""
        if self.recipe.precision == "float32":
            return nullcontext()
        return torch.autocast(self.recipe.device.split(":")[0], getattr(torch, self.recipe.precision))

    def loss(self, batch: Batch, mixes: Sequence[Mix], *, per_cell: bool = False, count: bool = False) -> Tensor:
        """Mean cross-entropy of a batch under mixes, one per table, or one per cell; counted for the log if wanted."""
        with self.autocast():
            run = self.supernet.forward_cells if per_cell else self.supernet
            logits = run(batch.images, mixes)
            loss = functional.cross_entropy(logits.float(), batch.targets)
        if count:
            self._sums["loss"] += float(loss.detach()) * len(batch.targets)
            self._sums["correct"] += float((logits.detach().argmax(1) == batch.targets).sum())
            self._sums["n"] += len(batch.targets)
        return loss

    def update_weights(self, loss: Tensor, *, also: Sequence[nn.Parameter] = ()) -> None:
        """One clipped SGD step on the supernet's weights; `also` gets its (scaled) gradient, but is not stepped."""
        self.weight_optimizer.zero_grad(set_to_none=True)
        weights = [p for group in self.weight_optimizer.param_groups for p in group["params"]]
        self.scaler.scale(loss).backward(inputs=[*(p for p in weights if p.requires_grad), *also])
        self.scaler.unscale_(self.weight_optimizer)
        norm = nn.utils.clip_grad_norm_([p for p in weights if p.grad is not None], self.recipe.clip or math.inf)
        # A path whose cells put out zeros divides by their deviation again and again: its gradient may overflow.
        if self.scaler.is_enabled() or bool(torch.isfinite(norm)):
            self.scaler.step(self.weight_optimizer)
        self.scaler.update()

    # ------------------------------------------------------------------------------------------------- inherited accuracy

    @torch.no_grad()
    def inherited(
        self, arch: Architecture, batches: Sequence[Batch], *, recalibrate: Sequence[Batch] | None = None
    ) -> float:
        """Accuracy of an architecture with the supernet's weights, a fraction.

        Args:
            arch: an architecture.
            batches: of the evaluation.
            recalibrate: batches by which the statistics of batch normalisation are estimated first; None normalises every
                batch by its own.
        """
        return self.accuracy(self.supernet.paths(arch), batches, recalibrate=recalibrate)

    @torch.no_grad()
    def accuracy(
        self, mixes: Sequence[Mix], batches: Sequence[Batch], *, recalibrate: Sequence[Batch] | None = None
    ) -> float:
        """`inherited` of any pass through the supernet."""
        training = self.supernet.training
        self.supernet.eval()
        try:
            if recalibrate is not None:
                with estimated(self.supernet):
                    for batch in recalibrate:
                        self.supernet(batch.images, mixes)
            correct = sum(int((self.supernet(b.images, mixes).argmax(1) == b.targets).sum()) for b in batches)
        finally:
            self.supernet.use_batch_statistics()
            self.supernet.train(training)
        return correct / sum(len(b.targets) for b in batches)

    # --------------------------------------------------------------------------------------------------------- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the search depends on; `torch.load(weights_only=True)` reads it back.

        A search that goes on from it is the same to the last bit as one that was never interrupted.
        """
        return {
            "checkpoint": CHECKPOINT,
            "epoch": self.epoch,
            "log": [dict(entry) for entry in self.log],
            "rng": self.rng.bit_generator.state,
            "generator": self.generator.get_state(),
            "parts": {name: part.state_dict() for name, part in self._kept.items()} if self._begun else {},
            "extra": self.extra_state() if self._begun else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of an optimizer that was made in the same way.

        Raises:
            ValueError: it is of another version.
        """
        if state.get("checkpoint") != CHECKPOINT:
            raise ValueError(f"the checkpoint has version {state.get('checkpoint')!r}, this is {CHECKPOINT}")
        if state["parts"]:
            self.prepare()
            for name, part in self._kept.items():
                part.load_state_dict(state["parts"][name])
            self.load_extra_state(state["extra"])
        self.epoch = state["epoch"]
        self.log = [dict(entry) for entry in state["log"]]
        if self._begun and self.epoch:
            self.images.start_epoch(self.epoch - 1)
        self.rng.bit_generator.state = state["rng"]
        self.generator.set_state(state["generator"])


class DifferentiableOptimizer(SupernetOptimizer):
    """A method with a table of architecture parameters that descends the gradient of the held-out loss.

    A step updates the architecture parameters on a held-out batch, then the weights on a training batch. Subclasses write
    `gate`, or `mixes` where weights alone do not say how a pass goes.

    Attributes:
        alphas: per table `(edges, operations)`.
        removed: per table the operations that are out of the search, by edge; they are neither computed nor proposed.
    """

    alphas: list[nn.Parameter]

    def begin(self) -> None:
        shapes = [table.shape for table in self.topology.tables]
        self.alphas = [
            nn.Parameter((self.recipe.alpha_init * torch.randn(shape, generator=self.generator)).to(self.recipe.device))
            for shape in shapes
        ]
        self.removed: list[list[set[int]]] = [[set() for _ in range(edges)] for edges, _ in shapes]
        self.alpha_optimizer = self.keep("alpha optimizer", self.make_alpha_optimizer(self.architecture_parameters()))

    def architecture_parameters(self) -> list[nn.Parameter]:
        """What the architecture step updates."""
        return self.alphas

    def make_alpha_optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        r = self.recipe
        return torch.optim.Adam(
            parameters, r.alpha_learning_rate, betas=(r.alpha_beta1, r.alpha_beta2), weight_decay=r.alpha_weight_decay
        )

    def gate(self, alpha: Tensor) -> Tensor:
        """The weights of the operations `(edges, operations)` from the parameters of one table."""
        return torch.softmax(alpha, dim=1)

    def mixes(self) -> list[Mix]:
        """How the next pass goes, one mix per table."""
        return [soft(self.operation_weights(t), self.active(t)) for t in range(len(self.alphas))]

    def operation_weights(self, t: int) -> Tensor:
        """The weights of the operations of table t, `(edges, operations)`."""
        return self.gate(self.alphas[t])

    def restricted_softmax(self, t: int, logits: Tensor) -> Tensor:
        """Softmax over the operations of table t that are still in the search; 0 for those that are removed."""
        operations = range(logits.shape[1])
        gone = torch.tensor([[op in edge for op in operations] for edge in self.removed[t]], device=logits.device)
        return torch.softmax(logits.masked_fill(gone, -torch.inf), dim=1)

    def active(self, t: int) -> tuple[tuple[int, ...], ...]:
        """The operations of table t that are still in the search, by edge."""
        operations = range(self.topology.tables[t].shape[1])
        return tuple(tuple(op for op in operations if op not in gone) for gone in self.removed[t])

    def strengths(self) -> list[np.ndarray]:
        """What decides which operations are proposed, per table `(edges, operations)`: the gate's weights; -inf if removed."""
        found = []
        with torch.no_grad():
            for t in range(len(self.alphas)):
                values = self.operation_weights(t).double().cpu().numpy().copy()
                for e, gone in enumerate(self.removed[t]):
                    values[e, sorted(gone)] = -np.inf
                found.append(values)
        return found

    def propose(self) -> Architecture:
        return self.topology.discretise(self.strengths())

    def step(self, batch: Batch, held_out: Batch) -> None:
        if self.epoch >= self.recipe.warm_up:
            self.architecture_step(batch, held_out)
        self.weight_step(batch)

    def architecture_step(self, batch: Batch, held_out: Batch) -> None:
        """First order: one Adam step on the gradient of the held-out loss."""
        del batch
        self.update_architecture(self.loss(held_out, self.mixes()) + self.regulariser())

    def regulariser(self) -> Tensor | float:
        """What is added to the loss of the architecture step."""
        return 0.0

    def update_architecture(self, loss: Tensor) -> None:
        parameters = self.architecture_parameters()
        self.alpha_optimizer.zero_grad(set_to_none=True)
        grads = torch.autograd.grad(self.scaler.scale(loss), parameters, allow_unused=True)
        scale = self.scaler.get_scale() if self.scaler.is_enabled() else 1.0
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = torch.zeros_like(parameter) if grad is None else grad / scale
        self.step_architecture()

    def step_architecture(self) -> None:
        """One step of the architecture parameters by their gradients; none if a scaled loss overflowed (float16)."""
        gradients = [p.grad for p in self.architecture_parameters() if p.grad is not None]
        if not self.scaler.is_enabled() or all(bool(torch.isfinite(g).all()) for g in gradients):
            self.alpha_optimizer.step()

    def weight_step(self, batch: Batch) -> None:
        with torch.no_grad():
            mixes = self.mixes()
        self.update_weights(self.loss(batch, mixes, count=True))

    def end_epoch(self) -> Mapping[str, float]:
        proposed = self.propose()
        weights = [np.where(np.isfinite(s), s, 0.0) for s in self.strengths()]
        entropy = []
        for w in weights:
            p = w / np.maximum(w.sum(axis=1, keepdims=True), 1e-12)
            entropy.append(-np.sum(p * np.log(np.maximum(p, 1e-12)), axis=1).mean())
        return {"alpha_entropy": float(np.mean(entropy)), "skips": float(self.topology.skips(proposed))}

    def extra_state(self) -> dict[str, Any]:
        return {
            "alphas": [alpha.detach().clone() for alpha in self.alphas],
            "removed": [[sorted(gone) for gone in table] for table in self.removed],
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for alpha, saved in zip(self.alphas, state["alphas"], strict=True):
                alpha.copy_(saved)
        self.removed = [[set(gone) for gone in table] for table in state["removed"]]
