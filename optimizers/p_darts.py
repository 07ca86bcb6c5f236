"""P-DARTS: search in stages, each with a deeper supernet and fewer operations, and with dropout on skip connections.

Chen, Xie, Wu and Tian, "Progressive Differentiable Architecture Search: Bridging the Depth Gap between Search and Evaluation",
ICCV 2019, sections 3.2 (search space approximation) and 3.3 (search space regularisation). https://arxiv.org/abs/1904.12760

DARTS searches with a shallow supernet and evaluates a deep network. Here the supernet gets deeper from stage to stage, and to
pay for that every edge loses the operations with the smallest weights after each stage. A stage begins with new weights and
new architecture parameters, of which the latter rest for its first epochs. Skip connections train fastest and would win early:
their outputs go through dropout, strong at the beginning of a stage and fading out, and the final normal cell may have no more
than a given number of them.

Where this file differs from the paper and its code (chenxin061/pdarts):
    * The default recipe is short and the depth grows by cells of the benchmark's own network; `@paper` has the published
      schedule for the DARTS space. In NAS-Bench-201, which the paper does not search, `cells` counts those of each stage.
    * `keep` defaults to equal steps down to one operation: 5 and 3 of the 8 of the DARTS space as published, and 3 and 2 of the
      5 of NAS-Bench-201.
    * In the first epochs of a stage the dropout falls linearly as in the code; after that by exp(-3 x), x from 0 to 1, which
      is the code's exp(-0.2 n) for n = 15 epochs.
    * The dropout is of the values of skip connections with stride 1 and with stride 2, as far as the supernet drops them.
    * A skip connection that is one too many counts as the weakest operation of its edge, and the cell is derived again. It
      stays if the cell cannot do without it. In NAS-Bench-201 the successor may be `none`.
    * The architecture step's gradient is not clipped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ..benchmarks.spaces.base import Architecture, SearchSpace
from .base import SupernetTask
from .supernet.images import Batch
from .supernet.training import DifferentiableOptimizer

_DEMOTED = -1.0  # below every weight, above operations that are out of the question


class PDARTS(DifferentiableOptimizer):
    """Progressive differentiable architecture search.

    `warm_up` counts the first epochs of every stage; `epochs` those of all stages, which are of equal length but for rounding.

    Args:
        add_cells: for every stage, by how much the supernet is deeper than `cells`.
        keep: operations that an edge has left in the second stage and in each later one; None for equal steps down to 1.
        skip_dropout: for every stage, the probability at its beginning with which a value of a skip connection is dropped.
        max_skips: skip connections that the normal cell (in NAS-Bench-201 the cell) may have; None for any number.
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Raises:
        ValueError: not one dropout per stage; depths that are negative; probabilities outside [0, 1); a negative max_skips;
            or a `keep` that is not of one number less than stages, falling, and from 2.
    """

    own_recipe: ClassVar[Mapping[str, Any]] = {"epochs": 21, "warm_up": 3}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "epochs": 75,
            "warm_up": 10,
            "batch_size": 96,
            "learning_rate": 0.025,
            "min_learning_rate": 0.0,
            "nesterov": False,
            "weight_decay": 3e-4,
            "alpha_learning_rate": 6e-4,
            "cells": 5,
            "channels": 16,
            "add_cells": (0, 6, 12),
            "skip_dropout": (0.0, 0.4, 0.7),
        }
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        add_cells: Sequence[int] = (0, 1, 2),
        keep: Sequence[int] | None = None,
        skip_dropout: Sequence[float] = (0.0, 0.4, 0.7),
        max_skips: int | None = 2,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        self.add_cells, self.skip_dropout = tuple(add_cells), tuple(skip_dropout)
        self.keep_operations = None if keep is None else tuple(keep)
        if not self.add_cells or any(n < 0 for n in self.add_cells):
            raise ValueError(f"add_cells are whole numbers from 0, one per stage, not {add_cells!r}")
        if len(self.skip_dropout) != len(self.add_cells) or any(not 0 <= p < 1 for p in self.skip_dropout):
            raise ValueError(f"skip_dropout are {len(self.add_cells)} probabilities below 1, not {skip_dropout!r}")
        if self.keep_operations is not None:
            falling = all(a > b for a, b in zip(self.keep_operations, self.keep_operations[1:], strict=False))
            if len(self.keep_operations) != len(self.add_cells) - 1 or not falling or min(keep or [2]) < 2:
                raise ValueError(f"keep are {len(self.add_cells) - 1} falling numbers from 2, not {keep!r}")
        if max_skips is not None and max_skips < 0:
            raise ValueError(f"max_skips must be at least 0, not {max_skips!r}")
        self.max_skips = max_skips
        self.stage = 0

    # --------------------------------------------------------------------------------------------------------- the stages

    @property
    def stages(self) -> int:
        return len(self.add_cells)

    def first_epoch(self, stage: int) -> int:
        """The epoch at which a stage begins, counted from 0; that after the last stage is `epochs`."""
        return round(stage * self.recipe.epochs / self.stages)

    def operations_kept(self, stage: int, total: int) -> int:
        """Operations of an edge that are in the search in a stage, of so many."""
        if stage == 0:
            return total
        if self.keep_operations is not None:
            return min(total, self.keep_operations[stage - 1])
        return max(2, math.floor(total - stage * (total - 1) / self.stages))

    @property
    def settings(self) -> dict[str, Any]:
        settings = super().settings
        settings["layers" if self.space.name == "darts" else "cells"] += self.add_cells[self.stage]
        return settings

    def _train_epoch(self) -> None:
        target = self.stage
        while target + 1 < self.stages and self.epoch >= self.first_epoch(target + 1):
            target += 1
        if target > self.stage:
            for stage in range(self.stage + 1, target + 1):
                self.drop_operations(stage)
            self.begin_stage(target)
        super()._train_epoch()

    def drop_operations(self, stage: int) -> None:
        """Remove the operations with the smallest weights, edge by edge, until as many are left as a stage has."""
        for t, values in enumerate(self.strengths()):
            for e, row in enumerate(values):
                order = np.argsort(-row, kind="stable").tolist()
                self.removed[t][e] = set(order[self.operations_kept(stage, len(row)) :])

    def begin_stage(self, stage: int) -> None:
        """A new supernet and new architecture parameters; the operations that are left stay."""
        self.stage = stage
        removed = self.removed
        self.supernet = self.keep("supernet", self.build())
        self.supernet.generator = self.generator
        self.weight_optimizer = self.keep("weights", self.make_weight_optimizer(self.supernet.parameters()))
        self.begin()
        self.removed = removed

    # ------------------------------------------------------------------------------------------------------- the training

    def operation_weights(self, t: int) -> Tensor:
        return self.restricted_softmax(t, self.alphas[t])

    def _schedule(self, epochs: float) -> None:
        """The cosine of the learning rate begins again with every stage; the dropout is constant within an epoch."""
        r = self.recipe
        first, last = self.first_epoch(self.stage), self.first_epoch(self.stage + 1)
        done = (epochs - first) / max(last - first, 1)
        rate = r.min_learning_rate + 0.5 * (r.learning_rate - r.min_learning_rate) * (1.0 + math.cos(math.pi * done))
        for group in self.weight_optimizer.param_groups:
            group["lr"] = rate
        self.supernet.skip_dropout = self.dropout(self.epoch - first, last - first)

    def dropout(self, epoch: int, epochs: int) -> float:
        """The probability of the dropout in an epoch of the stage, of so many."""
        start, warm = self.skip_dropout[self.stage], self.recipe.warm_up
        if epoch < warm:
            return start * (epochs - epoch - 1) / epochs
        return start * math.exp(-3.0 * (epoch - warm) / max(epochs - warm, 1))

    def step(self, batch: Batch, held_out: Batch) -> None:
        if self.epoch - self.first_epoch(self.stage) >= self.recipe.warm_up:
            self.architecture_step(batch, held_out)
        self.weight_step(batch)

    def end_epoch(self) -> Mapping[str, float]:
        left = [len(ops) for t in range(len(self.alphas)) for ops in self.active(t)]
        return {
            **super().end_epoch(),
            "stage": float(self.stage + 1),
            "operations": float(np.mean(left)),
            "skip_dropout": self.supernet.skip_dropout,
        }

    # ------------------------------------------------------------------------------------------------------- the proposal

    def propose(self) -> Architecture:
        """The strongest architecture with no more than `max_skips` skip connections in its first cell."""
        strengths = self.strengths()
        if self.max_skips is None:
            return self.topology.discretise(strengths)
        skip = self.topology.tables[0].skip
        while True:
            arch = self.topology.discretise(strengths)
            edges = [e for e, op in enumerate(self.topology.choices(arch)[0]) if op == skip]
            weakest = [e for e in edges if strengths[0][e, skip] > _DEMOTED]
            if len(edges) <= self.max_skips or not weakest:
                return arch
            strengths[0][min(weakest, key=lambda e: strengths[0][e, skip]), skip] = _DEMOTED

    # -------------------------------------------------------------------------------------------------------- checkpoints

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), "stage": self.stage}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Build the supernet of the stage first, so that the saved weights fit."""
        if state.get("extra"):
            self.prepare()
            if state["extra"]["stage"] != self.stage:
                self.begin_stage(state["extra"]["stage"])
        super().load_state_dict(state)
