"""ProxylessNAS: binary gates, so that no more than two sampled operations per edge are ever in memory.

Cai, Zhu and Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR 2019, sections 3.1 to
3.3. https://arxiv.org/abs/1812.00332

Every edge draws one operation from the softmax of its parameters, and the weights are trained on that path alone. Every few
steps the parameters are trained: each edge draws two operations, one of which is open (its gate is 1) and one is shut (its
gate is 0). The gradient of the held-out loss by the two gates, times the derivative of the two operations' rescaled
probabilities by their parameters, stands for the gradient by the parameters. After the update the two parameters are shifted
together, so that the probabilities of the operations that were not drawn stay as they were. With a table of latencies the
expected latency, which is a differentiable function of the probabilities, enters the loss.

Where this file differs from the paper and its code (mit-han-lab/proxylessnas):
    * The cell spaces of this package in place of chains of MobileNetV2 blocks: an edge of the table is one gate, drawn once per
      step for all cells; in the paper every layer has its own.
    * A latency table has one number per kind of operation, whatever the number of channels and the resolution; the paper's
      predicts that of every block. The expected latency is the mean over the edges of the sum over operations of probability
      times latency, and that over the kinds of cell, so that it does not grow with the network.
    * The multiplicative form is `a * CE * (log(1 + latency) / log(1 + target)) ** b`; the 1, which the code does not have,
      keeps it defined in every unit of time.
    * The value of the expected latency is that of all operations, its gradient goes through the two that were drawn (in the
      code both are of these two).
    * A draw whose open path does not reach the output of its cell is drawn again. Batch normalisation turns the zeros of such
      a network into gradients beyond 1e30, after which Adam moves nothing any more; the chains of the paper cannot break.
    * No label smoothing. The published warm-up has a learning rate schedule of its own; here one cosine spans all epochs.
    * The alternative by REINFORCE (section 3.3.2) is not here.
    * The default recipe is short and updates the parameters after every step; `@paper` has that of the published search.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..benchmarks.spaces.base import SearchSpace
from .base import SupernetTask
from .supernet.images import Batch
from .supernet.mix import Mix, path, soft
from .supernet.topology import topology
from .supernet.training import DifferentiableOptimizer

FORMS = ("mul#log", "add#linear")
_TRIES = 100  # of a connected draw; then one is taken that is not


class Draw(NamedTuple):
    """Two operations per edge of one table, on the CPU.

    Attributes:
        pair: `(edges, 2)`, their columns, the open one first.
        gates: `(edges, operations)`, 1 for the open operation, 0 for all others; on the device, a leaf with a gradient.
    """

    pair: Tensor
    gates: Tensor


class ProxylessNAS(DifferentiableOptimizer):
    """Search with binary gates on two sampled paths.

    Args:
        architecture_every: weight steps between two updates of the architecture parameters.
        latency: of each operation, in any unit: by name (those that are not named take 0) or as a list in the order of the
            space's operations; None leaves latency out of the loss.
        target: reference of the expected latency; None for that of operations with equal probabilities.
        form: "mul#log" multiplies the loss by a power of a ratio of logarithms, "add#linear" adds the relative excess.
        latency_alpha, latency_beta: factor and exponent of "mul#log".
        latency_lambda: factor of what "add#linear" adds.
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Attributes:
        steps: weight steps since the beginning.

    Raises:
        ValueError: architecture_every below 1; a form that there is not; a negative factor or exponent; a target that is not
            positive; latencies that are negative or all zero, too few or too many, or of an operation that the space does
            not have.
    """

    own_recipe: ClassVar[Mapping[str, Any]] = {
        "alpha_learning_rate": 0.01,
        "alpha_beta1": 0.0,
        "alpha_weight_decay": 0.0,
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "epochs": 160,
            "warm_up": 40,
            "learning_rate": 0.025,
            "min_learning_rate": 0.0,
            "weight_decay": 4e-5,
            "clip": 0.0,
            "alpha_learning_rate": 1e-3,
            "architecture_every": 5,
        }
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        architecture_every: int = 1,
        latency: Mapping[str, float] | Sequence[float] | None = None,
        target: float | None = None,
        form: str = "mul#log",
        latency_alpha: float = 0.2,
        latency_beta: float = 0.3,
        latency_lambda: float = 0.2,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        if isinstance(architecture_every, bool) or not isinstance(architecture_every, int) or architecture_every < 1:
            raise ValueError(f"architecture_every must be a whole number from 1, not {architecture_every!r}")
        if form not in FORMS:
            raise ValueError(f"form is one of {', '.join(FORMS)}, not {form!r}")
        for name, value in (
            ("latency_alpha", latency_alpha),
            ("latency_beta", latency_beta),
            ("latency_lambda", latency_lambda),
        ):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number from 0, not {value!r}")
        if target is not None and not 0 < target < math.inf:
            raise ValueError(f"target must be a positive number, not {target!r}")
        self.architecture_every = architecture_every
        self.form, self.target = form, target
        self.latency_alpha, self.latency_beta, self.latency_lambda = latency_alpha, latency_beta, latency_lambda
        self._latency = None if latency is None else _latencies(latency, topology(space).tables[0].operations)
        self.steps = 0

    # ---------------------------------------------------------------------------------------------------------- one step

    def step(self, batch: Batch, held_out: Batch) -> None:
        self.weight_step(batch)
        self.steps += 1
        if self.epoch >= self.recipe.warm_up and self.steps % self.architecture_every == 0:
            self.architecture_step(batch, held_out)

    def mixes(self) -> list[Mix]:
        """One sampled operation per edge: what the weights are trained on."""
        found = []
        for t, alpha in enumerate(self.alphas):
            probabilities = torch.softmax(alpha.detach().float().cpu(), dim=1)
            for _ in range(_TRIES):
                row = torch.multinomial(probabilities, 1, generator=self.generator)[:, 0].tolist()
                if self.topology.tables[t].connected(row):
                    break
            found.append(path(row))
        return found

    def architecture_step(self, batch: Batch, held_out: Batch) -> None:
        del batch
        draws = [self.draw(t) for t in range(len(self.alphas))]
        # Only the columns of the pair are computed. The shut one is multiplied by 0, but its gate has a gradient.
        loss = self.loss(held_out, [soft(draw.gates, draw.pair.tolist()) for draw in draws])
        gates = [draw.gates for draw in draws]
        gradients = torch.autograd.grad(self.scaler.scale(loss), gates, allow_unused=True)
        scale = self.scaler.get_scale() if self.scaler.is_enabled() else 1.0
        by_gates = [torch.zeros_like(g) if d is None else d / scale for g, d in zip(gates, gradients, strict=True)]
        pairs = [draw.pair.to(self.recipe.device) for draw in draws]
        self.update_pairs(pairs, by_gates, loss.detach())

    def draw(self, t: int) -> Draw:
        """Two different operations per edge by their probabilities, and which of them is open by their rescaled ones."""
        logits = self.alphas[t].detach().float().cpu()
        for _ in range(_TRIES):
            pair = torch.multinomial(torch.softmax(logits, dim=1), 2, generator=self.generator)
            rescaled = torch.softmax(logits.gather(1, pair), dim=1)
            first = torch.multinomial(rescaled, 1, generator=self.generator)
            pair = torch.where(first == 0, pair, pair.flip(1))
            if self.topology.tables[t].connected(pair[:, 0].tolist()):
                break
        gates = torch.zeros_like(logits).scatter_(1, pair[:, :1], 1.0)
        return Draw(pair, gates.to(self.recipe.device).requires_grad_())

    def update_pairs(self, pairs: Sequence[Tensor], by_gates: Sequence[Tensor], loss: Tensor) -> None:
        """Update the parameters of the operations that were drawn.

        Args:
            pairs: per table `(edges, 2)`.
            by_gates: per table `(edges, operations)`, the gradient of the loss by the gates.
            loss: without latency.
        """
        chosen = [alpha.gather(1, pair) for alpha, pair in zip(self.alphas, pairs, strict=True)]
        rescaled = [torch.softmax(two, dim=1) for two in chosen]
        # d loss / d alpha_i = sum_j d loss / d g_j * p_j * (delta_ij - p_i), over the two operations of an edge.
        surrogate = torch.stack(
            [(d.gather(1, pair) * p).sum() for d, pair, p in zip(by_gates, pairs, rescaled, strict=True)]
        ).sum()
        # The same gradient as that of the whole loss: `surrogate` has that of the loss without latency, and its own value goes.
        total = self.with_latency(loss + surrogate - surrogate.detach(), pairs)
        before = [alpha.detach().clone() for alpha in self.alphas]
        old = [torch.logsumexp(two.detach(), dim=1, keepdim=True) for two in chosen]
        for alpha, gradient in zip(self.alphas, torch.autograd.grad(total, self.alphas), strict=True):
            alpha.grad = gradient
        self.step_architecture()
        with torch.no_grad():
            for alpha, start, pair, sum_before in zip(self.alphas, before, pairs, old, strict=True):
                updated = alpha.gather(1, pair)
                updated -= torch.logsumexp(updated, dim=1, keepdim=True) - sum_before
                alpha.copy_(start.scatter(1, pair, updated))  # momentum or decay moves nothing that was not drawn

    # ----------------------------------------------------------------------------------------------------------- latency

    def with_latency(self, loss: Tensor, pairs: Sequence[Tensor]) -> Tensor:
        """The loss with the expected latency in it, if there is a table of latencies."""
        if self._latency is None:
            return loss
        expected, target = self.expected_latency(pairs), self.reference
        if self.form == "add#linear":
            return loss + self.latency_lambda * (expected - target) / target
        return self.latency_alpha * loss * (torch.log1p(expected) / math.log1p(target)) ** self.latency_beta

    def expected_latency(self, pairs: Sequence[Tensor] | None = None) -> Tensor:
        """Mean over edges of the expected latency, 0-dimensional.

        Args:
            pairs: per table `(edges, 2)`, the operations through whose rescaled probabilities the gradient goes; None for the
                plain expectation.
        """
        assert self._latency is not None
        table = torch.tensor(self._latency, device=self.recipe.device)
        found = []
        for t, alpha in enumerate(self.alphas):
            value = (torch.softmax(alpha, dim=1) * table).sum(dim=1).mean()
            if pairs is not None:
                rescaled = torch.softmax(alpha.gather(1, pairs[t]), dim=1)
                of_pair = (rescaled * table[pairs[t]]).sum(dim=1).mean()
                value = value.detach() + of_pair - of_pair.detach()
            found.append(value)
        return torch.stack(found).mean()

    @property
    def reference(self) -> float:
        """The latency that the expected one is compared with."""
        assert self._latency is not None
        return sum(self._latency) / len(self._latency) if self.target is None else self.target

    # ------------------------------------------------------------------------------------------------- log, checkpoints

    def end_epoch(self) -> Mapping[str, float]:
        entry = dict(super().end_epoch())
        if self._latency is not None:
            entry["latency"] = float(self.expected_latency().detach())
        return entry

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), "steps": self.steps}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        super().load_extra_state(state)
        self.steps = state["steps"]


def _latencies(given: Mapping[str, float] | Sequence[float], operations: Sequence[str]) -> tuple[float, ...]:
    """One latency per operation."""
    if isinstance(given, Mapping):
        for name in given:
            if name not in operations:
                close = difflib.get_close_matches(str(name), operations, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(operations)}"
                raise ValueError(f"latency names an operation {name!r}; {hint}")
        given = [given.get(name, 0.0) for name in operations]
    if len(given) != len(operations):
        raise ValueError(f"latency has {len(given)} numbers, but there are {len(operations)} operations")
    values = tuple(float(value) for value in given)
    if not all(0 <= value < math.inf for value in values) or not any(values):
        raise ValueError(f"latencies are finite numbers from 0, not all 0: {values}")
    return values
