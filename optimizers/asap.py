"""ASAP: anneal the softmax of the operations until it is one-hot, and prune on the way what falls below a threshold.

Noy et al., "ASAP: Architecture Search, Anneal and Prune", AISTATS 2020, sections 3 and 4 and Algorithm 1.
https://arxiv.org/abs/1904.04123

The operations of an edge are weighted by softmax(alpha / T). The temperature T falls from epoch to epoch, so that the mixture
turns into a single path by itself and nothing is cut off at the end. Operations whose weight falls below a threshold, a fixed
fraction of an even share, are removed for good, which makes the search faster and smaller as it goes on. Until T has fallen to
the grace temperature only the weights are trained and nothing is pruned.

Progressive pruning of the whole space is added: at mid-search the weakest operations of a table are dropped until half of them
are left. What a training step saves for its backward pass is measured before and after, and logged.

Where this file differs from the paper (its authors published no search code):
    * `drop_half_at` is not in the paper; None switches it off.
    * Pruning takes place after each epoch, among the operations that are left; a removed operation's share goes to the others.
    * T(t) = T0 * annealing^t as in the paper. The defaults anneal faster, for 25 epochs; `@paper` has T0 = 1.6, annealing 0.95,
      grace temperature 1 and threshold 0.4 as a published re-implementation has them (cogsystuebingen/uninas).
      Its other values are those of DARTS and were not compared with the paper.
    * One batch of held-out images per step, as in DARTS.
    * In the DARTS space an edge keeps its strongest operation other than `none`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..benchmarks.spaces.base import SearchSpace
from .base import SupernetTask
from .supernet.images import Batch
from .supernet.memory import saved_bytes
from .supernet.recipe import PAPER
from .supernet.training import DifferentiableOptimizer


class ASAP(DifferentiableOptimizer):
    """Annealing and pruning.

    The log has `temperature`, `operations` (left in all tables), `memory` and `memory_before`: bytes that a training step
    saves for its backward pass after and before the pruning of the epoch.

    Args:
        temperature: of the softmax in the first epoch.
        annealing: by what the temperature is multiplied after each epoch.
        grace_temperature: the architecture is neither trained nor pruned while the temperature is above it.
        threshold: an operation is removed if its weight is below threshold / (operations that the edge has left).
        drop_half_at: part of the epochs after which half of the operations of each table are dropped; None for never.
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Raises:
        ValueError: temperatures that are not above 0, an annealing outside (0, 1], a threshold outside [0, 1), or a
            drop_half_at outside (0, 1].
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {**PAPER, "annealing": 0.95, "drop_half_at": None},
        "no_halving": {"drop_half_at": None},
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        temperature: float = 1.6,
        annealing: float = 0.9,
        grace_temperature: float = 1.0,
        threshold: float = 0.4,
        drop_half_at: float | None = 0.5,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        for name, value in (("temperature", temperature), ("grace_temperature", grace_temperature)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be above 0, not {value!r}")
        if not 0 < annealing <= 1:
            raise ValueError(f"annealing must be above 0 and at most 1, not {annealing!r}")
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be from 0 and below 1, not {threshold!r}")
        if drop_half_at is not None and not 0 < drop_half_at <= 1:
            raise ValueError(f"drop_half_at is a part of the search above 0 and at most 1, not {drop_half_at!r}")
        self.first_temperature, self.annealing, self.grace_temperature = temperature, annealing, grace_temperature
        self.threshold, self.drop_half_at = threshold, drop_half_at
        self.temperature = temperature
        self._memory = 0

    def begin(self) -> None:
        super().begin()
        self._memory = self.measure()

    # -------------------------------------------------------------------------------------------------- annealed training

    def operation_weights(self, t: int) -> Tensor:
        return self.restricted_softmax(t, self.alphas[t] / self.temperature)

    @property
    def in_grace(self) -> bool:
        return self.temperature > self.grace_temperature

    def step(self, batch: Batch, held_out: Batch) -> None:
        if not self.in_grace and self.epoch >= self.recipe.warm_up:
            self.architecture_step(batch, held_out)
        self.weight_step(batch)

    # ----------------------------------------------------------------------------------------------------------- pruning

    def end_epoch(self) -> Mapping[str, float]:
        """Prune at the temperature that the epoch was trained with, then anneal."""
        before, left = self._memory, self.operations_left()
        if not self.in_grace:
            self.prune()
        if self.drop_half_at is not None and self.epoch == max(1, round(self.drop_half_at * self.recipe.epochs)):
            self.drop_half()
        if self.operations_left() < left:
            self._memory = self.measure()
        entry = {
            **super().end_epoch(),
            "temperature": self.temperature,
            "operations": float(self.operations_left()),
            "memory_before": float(before),
            "memory": float(self._memory),
        }
        self.temperature = self.first_temperature * self.annealing**self.epoch
        return entry

    def operations_left(self) -> int:
        """Operations of all edges that are in the search."""
        return sum(len(ops) for t in range(len(self.alphas)) for ops in self.active(t))

    def prune(self) -> None:
        """Remove the operations below the threshold."""
        for t, values in enumerate(self.strengths()):
            active = self.active(t)
            for e, ops in enumerate(active):
                weak = {op for op in ops if values[e, op] < self.threshold / len(ops)}
                self.removed[t][e] |= weak - {self.spared(t, values[e])}

    def drop_half(self) -> None:
        """Remove the weakest operations of each table until no more than half of all are left, and one on every edge."""
        for t, values in enumerate(self.strengths()):
            edges, operations = self.topology.tables[t].shape
            spared = {(e, self.spared(t, values[e])) for e in range(edges)}
            left = [(e, op) for e, ops in enumerate(self.active(t)) for op in ops]
            excess = len(left) - edges * operations // 2
            weakest = sorted((pair for pair in left if pair not in spared), key=lambda pair: values[pair])
            for e, op in weakest[: max(excess, 0)]:
                self.removed[t][e].add(op)

    def spared(self, t: int, row: np.ndarray) -> int:
        """The operation of an edge that is never removed: the strongest that an architecture can have there."""
        if self.space.name == "darts":
            row = row.copy()
            row[self.topology.tables[t].none] = -np.inf
        return int(row.argmax())

    def measure(self) -> int:
        """Bytes that a weight step saves for its backward pass, each storage once, on a batch of at most 256 images."""
        batch = self.images.fixed("weights", self.recipe.batch_size)[0]
        with torch.no_grad():
            mixes = self.mixes()
        return saved_bytes(lambda: self.loss(batch, mixes))

    # -------------------------------------------------------------------------------------------------------- checkpoints

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), "temperature": self.temperature, "memory": self._memory}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        super().load_extra_state(state)
        self.temperature, self._memory = state["temperature"], state["memory"]
