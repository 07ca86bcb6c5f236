"""DARTS: architecture parameters by gradient descent on the held-out loss of a mixture of all operations.

Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, sections 2.2 to 2.4 and Algorithm 1.
https://arxiv.org/abs/1806.09055

Every edge is the sum of its operations, weighted by the softmax of the edge's parameters. A step updates the parameters by
the gradient of the held-out loss, then the weights by that of the training loss. First order takes the weights as they are;
second order takes them one virtual step of gradient descent further (equation 6), with the product of the mixed second
derivative and a vector by a central difference (equation 8).

Where this file differs from the paper and its code (quark0/darts):
    * First order is the default, as in DARTS-V1 of NAS-Bench-201; `order=2` is DARTS-V2.
    * The default recipe is short; `@paper` is that of NAS-Bench-201 (AutoDL-Projects).
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
from .supernet.recipe import PAPER
from .supernet.training import DifferentiableOptimizer


class DARTS(DifferentiableOptimizer):
    """Differentiable architecture search.

    Args:
        order: 1 for the gradient at the weights as they are, 2 for that after one virtual step.
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Raises:
        ValueError: an order that is neither 1 nor 2.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": PAPER, "second_order": {"order": 2}}

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        order: int = 1,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        if order not in (1, 2):
            raise ValueError(f"order is 1 or 2, not {order!r}")
        self.order = order

    def architecture_step(self, batch: Batch, held_out: Batch) -> None:
        if self.order == 1:
            super().architecture_step(batch, held_out)
            return
        for alpha, gradient in zip(self.alphas, self.unrolled_gradient(batch, held_out), strict=True):
            alpha.grad = gradient
        self.step_architecture()

    def unrolled_gradient(self, batch: Batch, held_out: Batch) -> list[Tensor]:
        """Gradient of the held-out loss by the architecture parameters after one virtual step (equations 7 and 8)."""
        weights = [p for p in self.supernet.parameters() if p.requires_grad]
        rate = self.weight_optimizer.param_groups[0]["lr"]
        before = [w.detach().clone() for w in weights]
        gradients = torch.autograd.grad(self.loss(batch, self.mixes()), weights, allow_unused=True)
        momentum, decay = self.recipe.momentum, self.recipe.weight_decay
        with torch.no_grad():
            for w, g in zip(weights, gradients, strict=True):
                buffer = self.weight_optimizer.state.get(w, {}).get("momentum_buffer")
                step = decay * w if g is None else g + decay * w
                w.sub_(rate * (step if buffer is None else step + momentum * buffer))
        found = torch.autograd.grad(self.loss(held_out, self.mixes()), [*self.alphas, *weights], allow_unused=True)
        direct, vector = found[: len(self.alphas)], found[len(self.alphas) :]
        vector = tuple(torch.zeros_like(w) if v is None else v for v, w in zip(vector, weights, strict=True))
        radius = 0.01 / float(
            torch.sqrt(sum((v.square().sum() for v in vector), torch.zeros((), device=vector[0].device)))
        )
        sides = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for w, start, v in zip(weights, before, vector, strict=True):
                    w.copy_(start + sign * radius * v)
            sides.append(torch.autograd.grad(self.loss(batch, self.mixes()), self.alphas, allow_unused=True))
        with torch.no_grad():
            for w, start in zip(weights, before, strict=True):
                w.copy_(start)
        return [
            torch.zeros_like(alpha) if d is None else d - rate * (plus - minus) / (2 * radius)
            for alpha, d, plus, minus in zip(self.alphas, direct, *sides, strict=True)
        ]  # a supernet of few cells may have none of a kind
