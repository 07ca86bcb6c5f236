"""SMASH: a second network writes the weights of a random architecture, and architectures are compared by what it wrote for them.

Brock, Lim, Ritchie and Weston, "SMASH: One-Shot Model Architecture Search through HyperNetworks", ICLR 2018, sections 3.1 to
3.3 and Algorithm 1. https://arxiv.org/abs/1708.05344

Each step draws an architecture and asks the hypernetwork for its weights: from a code of the architecture and an embedding of
each place in the network it computes the kernels of all operations on the path. The loss of the path trains the hypernetwork
through these kernels; what all architectures have in common (stem, classifier, ...) is trained as usual. So unlike in other
one-shot methods the same operation on the same edge gets other weights in another architecture. In the end random
architectures are judged with the weights written for them; the best one is perturbed, then followed by a Markov chain, in
which a perturbation that is better becomes the one to perturb.

Where this file differs from the paper and its code (ajbrock/SMASH):
    * The paper's space is one of memory banks, kernel sizes, groups and dilations, and the code of an architecture is a map of
      where each layer reads and writes. Here the code is one-hot: one operation per edge, table by table.
    * The hypernetwork is a perceptron with two hidden layers, the same for all pieces of `piece` weights; it reads the code and
      a learned embedding of the piece. The paper's is a convolutional DenseNet over the map; its embedding is random noise
      that stays fixed.
    * All kernels of operations are written; in the paper the 1x1 convolutions, while the larger ones are free and shared.
    * A kernel is divided by its Euclidean norm as in the paper, and multiplied by the root of its number of filters.
    * Adam with the recipe's cosine for everything, without weight decay of the hypernetwork, as in the code; the code anneals
      over the steps of 100 epochs on its own networks.
    * The best architecture is returned; it is not trained from scratch, which the benchmark does.
    * A perturbation redraws choices of the space's vectors. After every epoch but the last the proposal is the best of
      `quick` random architectures.
    * In the DARTS space the strided skip connection of a reduction cell counts as common and is not written.
    * The default recipe and search are short; `@paper` has the paper's, on the networks of the space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..benchmarks.spaces.base import Architecture, SearchSpace
from .base import SupernetTask
from .supernet.images import Batch
from .supernet.mix import Mix, path, soft
from .supernet.training import SupernetOptimizer


class HyperNetwork(nn.Module):
    """Writes kernels, piece by piece.

    Args:
        code: length of an architecture's code.
        shapes: of all kernels.
        units: of the hidden layers.
        embedding: length of the embedding of a piece.
        piece: weights of a piece.
    """

    def __init__(self, code: int, shapes: Sequence[Sequence[int]], *, units: int, embedding: int, piece: int) -> None:
        super().__init__()
        self.shapes = [tuple(shape) for shape in shapes]
        counts = [-(-math.prod(shape) // piece) for shape in self.shapes]
        ends = np.cumsum(counts).tolist()
        self.rows = [range(end - count, end) for end, count in zip(ends, counts, strict=True)]
        self.places = nn.Parameter(torch.randn(sum(counts), embedding))
        self.of_place = nn.Linear(embedding, units)
        self.of_code = nn.Linear(code, units, bias=False)
        self.hidden = nn.Linear(units, units)
        self.out = nn.Linear(units, piece)

    def forward(self, code: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        """The kernels with the numbers `wanted`, for an architecture with this code."""
        if not wanted:
            return []
        rows = torch.cat([self.places[self.rows[k].start : self.rows[k].stop] for k in wanted])
        x = functional.leaky_relu(self.of_place(rows) + self.of_code(code), 0.02)
        x = functional.leaky_relu(self.hidden(x), 0.02)
        pieces = self.out(x)
        kernels, start = [], 0
        for k in wanted:
            shape, n = self.shapes[k], len(self.rows[k])
            flat = pieces[start : start + n].flatten()[: math.prod(shape)]
            kernels.append((flat * (math.sqrt(shape[0]) / (flat.norm() + 1e-12))).view(shape))
            start += n
        return kernels


class SMASH(SupernetOptimizer):
    """One-shot model architecture search through a hypernetwork.

    Args:
        units: of the hypernetwork's hidden layers.
        embedding: length of its embedding of a piece of weights.
        piece: weights that it writes at once.
        candidates: random architectures that the finish compares.
        perturbed: perturbations of the best of them that are judged next.
        chain: steps of the Markov chain that starts at the best so far.
        perturbation: probability that a perturbation redraws a choice; at least one is changed.
        quick: random architectures that are compared after every epoch but the last.
        judged: held-out images that an architecture is judged by; None for all.
        task, recipe: see `supernet.training.SupernetOptimizer`; `learning_rate` is that of Adam.

    Raises:
        ValueError: a hyper-parameter is out of range.
    """

    own_recipe: ClassVar[Mapping[str, Any]] = {"learning_rate": 0.003, "min_learning_rate": 0.0}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "epochs": 100,
            "learning_rate": 0.001,
            "weight_decay": 1e-4,
            "clip": 0.0,
            "candidates": 500,
            "perturbed": 0,
            "chain": 100,
        }
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        units: int = 64,
        embedding: int = 16,
        piece: int = 64,
        candidates: int = 100,
        perturbed: int = 0,
        chain: int = 20,
        perturbation: float = 0.1,
        quick: int = 10,
        judged: int | None = None,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        for name, value in {
            "units": units,
            "embedding": embedding,
            "piece": piece,
            "candidates": candidates,
            "quick": quick,
            "judged": 1 if judged is None else judged,
        }.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        for name, value in {"perturbed": perturbed, "chain": chain}.items():
            if value < 0:
                raise ValueError(f"{name} must be at least 0, not {value}")
        if not 0.0 <= perturbation <= 1.0:
            raise ValueError(f"perturbation must be a probability, not {perturbation}")
        self.units, self.embedding, self.piece = units, embedding, piece
        self.candidates, self.perturbed, self.chain, self.perturbation = candidates, perturbed, chain, perturbation
        self.quick, self.judged = quick, judged

    def begin(self) -> None:
        self.finish_seed = int(
            self.rng.integers(2**31)
        )  # proposals draw from their own numbers: training stays the same
        self.kernels, self.owned = self._find_kernels()
        for kernel in self.kernels:
            kernel.requires_grad_(True)
        code = sum(math.prod(table.shape) for table in self.topology.tables)
        self.hypernetwork: HyperNetwork = self.keep(
            "hypernetwork",
            self.initialised(
                lambda: HyperNetwork(
                    code,
                    [k.shape for k in self.kernels],
                    units=self.units,
                    embedding=self.embedding,
                    piece=self.piece,
                )
            ),
        )
        written = set(map(id, self.kernels))
        self.free = [p for p in self.supernet.parameters() if id(p) not in written]
        self.weight_optimizer = self.keep(
            "weights",
            torch.optim.Adam(
                [
                    {"params": self.free, "weight_decay": self.recipe.weight_decay},
                    {"params": list(self.hypernetwork.parameters()), "weight_decay": 0.0},
                ],
                self.recipe.learning_rate,
            ),
        )

    def _find_kernels(self) -> tuple[list[nn.Parameter], dict[tuple[int, int, int], list[int]]]:
        """The kernels of operations, and by (table, edge, operation) their numbers.

        Which parameters belong to an operation is found by asking what the output depends on: those that a network of skip
        connections does without, that a network with this operation everywhere has, and that one with all operations on
        this edge has.
        """
        batch = self.images.fixed("architecture", 2)[0]
        skips = [path([table.skip] * len(table.edges)) for table in self.topology.tables]
        common = self._reached(batch, skips)
        kernels = [
            p for i, p in enumerate(self.supernet.parameters()) if p.dim() > 1 and i not in common and p.requires_grad
        ]
        number = {i: k for k, i in enumerate(self._positions(kernels))}
        owned: dict[tuple[int, int, int], list[int]] = {}
        for t, table in enumerate(self.topology.tables):
            edges, operations = table.shape
            everywhere = [
                self._reached(batch, [*skips[:t], path([op] * edges), *skips[t + 1 :]]) for op in range(operations)
            ]
            for e in range(edges):
                active = [tuple(range(operations)) if other == e else (table.skip,) for other in range(edges)]
                weights = torch.ones(table.shape, device=batch.images.device)
                here = self._reached(batch, [*skips[:t], soft(weights, active), *skips[t + 1 :]])
                for op in range(operations):
                    owned[t, e, op] = sorted(number[i] for i in everywhere[op] & here if i in number)
        return kernels, owned

    def _positions(self, parameters: Sequence[nn.Parameter]) -> list[int]:
        position = {id(p): i for i, p in enumerate(self.supernet.parameters())}
        return [position[id(p)] for p in parameters]

    def _reached(self, batch: Batch, mixes: Sequence[Mix]) -> set[int]:
        """Positions of the supernet's parameters that its output depends on."""
        self.supernet.train()
        output = self.supernet(batch.images, mixes).sum()
        gradients = torch.autograd.grad(output, list(self.supernet.parameters()), allow_unused=True)
        return {i for i, gradient in enumerate(gradients) if gradient is not None}

    # ------------------------------------------------------------------------------------------------------- the weights

    def code(self, arch: Architecture) -> Tensor:
        """One-hot: the operation of every edge, table by table."""
        parts = [
            functional.one_hot(torch.tensor(row), table.shape[1]).flatten()
            for table, row in zip(self.topology.tables, self.topology.choices(arch), strict=True)
        ]
        return torch.cat(parts).float().to(self.recipe.device)

    def used(self, arch: Architecture) -> list[int]:
        """Numbers of the kernels of an architecture."""
        rows = self.topology.choices(arch)
        return sorted({k for t, row in enumerate(rows) for e, op in enumerate(row) for k in self.owned[t, e, op]})

    def write(self, arch: Architecture) -> tuple[list[nn.Parameter], list[Tensor]]:
        """Put the weights for an architecture into the supernet; where they were put, and what the hypernetwork wrote."""
        wanted = self.used(arch)
        written = self.hypernetwork(self.code(arch), wanted)
        places = [self.kernels[k] for k in wanted]
        with torch.no_grad():
            for place, kernel in zip(places, written, strict=True):
                place.copy_(kernel)
        return places, written

    def step(self, batch: Batch, held_out: Batch) -> None:
        del held_out
        self.hyper_step(self.space.sample(self.rng), batch)

    def hyper_step(self, arch: Architecture, batch: Batch) -> None:
        """One step of Adam on the loss of an architecture, by the chain rule through its kernels."""
        places, written = self.write(arch)
        self.weight_optimizer.zero_grad(set_to_none=True)
        loss = self.scaler.scale(self.loss(batch, self.supernet.paths(arch), count=True))
        gradients = torch.autograd.grad(loss, [*places, *self.free], allow_unused=True)
        into_free = zip(self.free, gradients[len(places) :], strict=True)
        for parameter, gradient in into_free:
            parameter.grad = gradient
        # A kernel whose output nothing reads, behind `none`, has no gradient.
        pairs = [(w, g) for w, g in zip(written, gradients, strict=False) if g is not None]
        if pairs:
            torch.autograd.backward([w for w, _ in pairs], [g for _, g in pairs])
        self.scaler.unscale_(self.weight_optimizer)
        if self.recipe.clip:
            nn.utils.clip_grad_norm_([*self.free, *self.hypernetwork.parameters()], self.recipe.clip)
        self.scaler.step(self.weight_optimizer)
        self.scaler.update()

    # ------------------------------------------------------------------------------------------------- the architecture

    @torch.no_grad()
    def score(self, arch: Architecture, batches: Sequence[Batch]) -> float:
        """Accuracy of an architecture with the weights that are written for it, a fraction."""
        self.write(arch)
        return self.inherited(arch, batches)

    def propose(self) -> Architecture:
        rng = np.random.default_rng([self.finish_seed, self.epoch])
        batches = self.images.fixed("architecture", self.judged)
        if self.epoch < self.recipe.epochs:
            best = max((self.space.sample(rng) for _ in range(self.quick)), key=lambda arch: self.score(arch, batches))
        else:
            best = self.search(rng, lambda arch: self.score(arch, batches))
        self.write(best)  # so that the supernet holds the weights of what is proposed
        return best

    def search(self, rng: np.random.Generator, judge: Callable[[Architecture], float]) -> Architecture:
        """The best of random architectures, then of perturbations of it, then along a Markov chain."""
        best, value = self._best(((self.space.sample(rng)) for _ in range(self.candidates)), judge)
        around = [self.perturb(best, rng) for _ in range(self.perturbed)]
        best, value = self._best(around, judge, best, value)
        for _ in range(self.chain):
            best, value = self._best([self.perturb(best, rng)], judge, best, value)
        return best

    @staticmethod
    def _best(
        archs: Iterator[Architecture] | Sequence[Architecture],
        judge: Callable[[Architecture], float],
        best: Architecture = (),
        value: float = -math.inf,
    ) -> tuple[Architecture, float]:
        for arch in archs:
            if (found := judge(arch)) > value:
                best, value = arch, found
        return best, value

    def perturb(self, arch: Architecture, rng: np.random.Generator) -> Architecture:
        """An architecture with some choices redrawn; a neighbour if that changes nothing."""
        redrawn = rng.random(len(arch)) < self.perturbation
        fresh = rng.integers(self.space.cardinalities)
        other = tuple(int(f) if again else a for a, f, again in zip(arch, fresh, redrawn, strict=True))
        return other if other != arch and self.space.is_valid(other) else self.space.mutate(arch, rng)

    # ------------------------------------------------------------------------------------------------------- checkpoints

    def extra_state(self) -> dict[str, Any]:
        return {"finish_seed": self.finish_seed}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.finish_seed = state["finish_seed"]
