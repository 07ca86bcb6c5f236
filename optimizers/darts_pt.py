"""DARTS-PT: decide the edges one by one, each by the operation that the trained supernet can least do without.

Wang, Cheng, Chen, Tang and Hsieh, "Rethinking Architecture Selection in Differentiable NAS", ICLR 2021, section 4, Algorithm 1
and section 5.2 (the variant without architecture parameters). https://arxiv.org/abs/2108.04392

A supernet is trained as in DARTS. The architecture parameters are then not read off: they say little about what an operation
contributes. Instead the edges are visited in random order. For each operation of the edge, the supernet is evaluated on
held-out images without it, the weights of the others as they are; the edge keeps the operation whose absence costs most. The
supernet is fine-tuned between two decisions. In the DARTS space, where a node keeps two of its incoming edges, the nodes are
visited afterwards: the edge whose absence costs least is dropped until two are left. With `fixed_alpha` the architecture
parameters are never updated, and the operations are mixed almost evenly.

Where this file differs from the paper and its code (ruocwang/darts-pt):
    * `epochs` counts the whole search; the decisions take its end. The last one ends the search, where the code trains one
      more epoch after it. If there are too few epochs, several decisions are made after the first one.
    * The learning rate of the fine-tuning falls by a cosine; in the code it stays at a tenth of `learning_rate`.
    * Equal accuracies are told apart by the loss (`criterion="accuracy"`); in the code the first operation stays.
    * The held-out images are not augmented, are the same for every decision, and go through in batches of 256.
    * Before an edge is decided, its proposed operation is that with the largest weight. With `fixed_alpha` that is a random
      architecture until the decisions begin.
    * `none` is no candidate in the DARTS space, as in the code; in NAS-Bench-201 it is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..benchmarks.spaces.base import SearchSpace
from .base import SupernetTask
from .supernet.images import Batch
from .supernet.mix import Mix
from .supernet.recipe import PAPER
from .supernet.training import DifferentiableOptimizer

CRITERIA = ("accuracy", "loss")


class DARTSPT(DifferentiableOptimizer):
    """Perturbation-based architecture selection.

    Args:
        tune: epochs of fine-tuning between two decisions.
        tune_rate: the learning rate at the beginning of the fine-tuning, as a fraction of `learning_rate`.
        criterion: what the absence of an operation costs: "accuracy" or "loss".
        decision_images: held-out images that a decision looks at; None for all.
        fixed_alpha: leave the architecture parameters as they are initialised.
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Raises:
        ValueError: tune or decision_images below 1, a tune_rate that is not above 0, or a criterion that there is not.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {**PAPER, "epochs": 125, "tune": 5, "nesterov": False, "weight_decay": 3e-4},
        "fixed_alpha": {"fixed_alpha": True},
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        tune: int = 1,
        tune_rate: float = 0.1,
        criterion: str = "accuracy",
        decision_images: int | None = None,
        fixed_alpha: bool = False,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        if tune < 1:
            raise ValueError(f"tune must be at least 1, not {tune!r}")
        if not 0 < tune_rate < float("inf"):
            raise ValueError(f"tune_rate must be above 0, not {tune_rate!r}")
        if criterion not in CRITERIA:
            raise ValueError(f"criterion is one of {', '.join(CRITERIA)}, not {criterion!r}")
        if decision_images is not None and decision_images < 1:
            raise ValueError(f"decision_images must be at least 1, not {decision_images!r}")
        self.tune, self.tune_rate, self.criterion = tune, tune_rate, criterion
        self.decision_images, self.fixed_alpha = decision_images, fixed_alpha

    def begin(self) -> None:
        super().begin()
        self.two_edges = self.space.name == "darts"  # a node keeps two of its incoming edges
        if self.two_edges:
            for t, table in enumerate(self.topology.tables):
                self.removed[t] = [{table.none} for _ in table.edges]

    # ---------------------------------------------------------------------------------------------- training and tuning

    def operation_weights(self, t: int) -> Tensor:
        """A decided edge has one operation left, with weight 1."""
        return self.restricted_softmax(t, self.alphas[t])

    def step(self, batch: Batch, held_out: Batch) -> None:
        if self.fixed_alpha:
            self.weight_step(batch)
        else:
            super().step(batch, held_out)

    def _schedule(self, epochs: float) -> None:
        """A cosine over the training, and a second one from a lower rate over the fine-tuning."""
        r = self.recipe
        trained = self.due()[0]
        if epochs < trained:
            start, done = r.learning_rate, epochs / trained
        else:
            start, done = r.learning_rate * self.tune_rate, (epochs - trained) / max(r.epochs - trained, 1)
        rate = r.min_learning_rate + 0.5 * (start - r.min_learning_rate) * (1.0 + float(np.cos(np.pi * done)))
        for group in self.weight_optimizer.param_groups:
            group["lr"] = rate

    # ------------------------------------------------------------------------------------------------------ the decisions

    def due(self) -> list[int]:
        """The number of epochs after which each round of decisions is made, ascending."""
        rounds = max(len(table.edges) for table in self.topology.tables)
        if self.two_edges:
            rounds += max(sum(len(table.edges_into(n)) > 2 for n in table.nodes) for table in self.topology.tables)
        return [max(1, self.recipe.epochs - self.tune * later) for later in reversed(range(rounds))]

    def end_epoch(self) -> Mapping[str, float]:
        due = self.due()
        for _ in range(due.count(self.epoch)):
            self.decide()
        if self.epoch == due[0]:
            self.weight_optimizer.state.clear()  # the fine-tuning begins without momentum
        edges = sum(len(ops) == 1 for t in range(len(self.alphas)) for ops in self.active(t))
        return {**super().end_epoch(), "decided": float(edges)}

    def decide(self) -> None:
        """One round: in every table the next edge or, once all edges are decided, the next node."""
        batches = self.images.fixed("architecture", self.decision_images)
        for t, table in enumerate(self.topology.tables):
            undecided = [e for e, ops in enumerate(self.active(t)) if len(ops) > 1]
            if undecided:
                self.decide_edge(t, undecided[int(self.rng.integers(len(undecided)))], batches)
            elif self.two_edges:
                nodes = [node for node in table.nodes if len(self.edges_left(t, node)) > 2]
                if nodes:
                    self.decide_node(t, nodes[int(self.rng.integers(len(nodes)))], batches)

    def decide_edge(self, t: int, edge: int, batches: Sequence[Batch]) -> int:
        """Keep the operation of an edge whose absence costs most; returns it."""
        values = {op: self.value_without(t, edge, op, batches) for op in self.active(t)[edge]}
        chosen = min(values, key=lambda op: values[op])
        self.removed[t][edge] = set(range(self.topology.tables[t].shape[1])) - {chosen}
        return chosen

    def decide_node(self, t: int, node: int, batches: Sequence[Batch]) -> list[int]:
        """Drop the incoming edge of a node whose absence costs least until two are left; returns these."""
        table = self.topology.tables[t]
        while len(left := self.edges_left(t, node)) > 2:
            values = {e: self.value_without(t, e, self.active(t)[e][0], batches) for e in left}
            weakest = max(values, key=lambda e: values[e])
            self.removed[t][weakest] = set(range(table.shape[1])) - {table.none}
        return left

    def edges_left(self, t: int, node: int) -> list[int]:
        """The incoming edges of a node that were not dropped, all of them decided."""
        table = self.topology.tables[t]
        return [e for e in table.edges_into(node) if self.active(t)[e] != (table.none,)]

    def value_without(self, t: int, edge: int, op: int, batches: Sequence[Batch]) -> tuple[float, float]:
        """What the supernet is worth without an operation of an edge; higher is better."""
        with torch.no_grad():
            mixes = self.mixes()
        mixes[t] = mixes[t].without(edge, op)
        accuracy, loss = self.evaluate(mixes, batches)
        return (accuracy, -loss) if self.criterion == "accuracy" else (-loss, accuracy)

    @torch.no_grad()
    def evaluate(self, mixes: Sequence[Mix], batches: Sequence[Batch]) -> tuple[float, float]:
        """Accuracy and mean loss of a pass, normalised by the batch."""
        training = self.supernet.training
        self.supernet.eval()
        try:
            totals = torch.zeros(2, dtype=torch.float64, device=self.recipe.device)
            for batch in batches:
                with self.autocast():
                    logits = self.supernet(batch.images, mixes)
                correct = (logits.argmax(1) == batch.targets).sum()
                totals += torch.stack(
                    (
                        correct.double(),
                        functional.cross_entropy(logits.float(), batch.targets, reduction="sum").double(),
                    )
                )
        finally:
            self.supernet.train(training)
        accuracy, loss = (totals / sum(len(batch.targets) for batch in batches)).tolist()
        return accuracy, loss
