"""DrNAS: DARTS in which the weights of the operations are drawn from Dirichlet distributions.

Chen, Wang, Cheng, Tang and Hsieh, "DrNAS: Dirichlet Neural Architecture Search", ICLR 2021, sections 3.1 to 3.3.
https://arxiv.org/abs/2006.10355

The weights of the operations of an edge are a draw from a Dirichlet distribution, whose concentrations elu(alpha) + 1 are
learned: the held-out loss is differentiated through the draw (pathwise, by implicit differentiation of the distribution
function). Draws explore, the more so the smaller the concentrations; a penalty on the distance from the anchor, all
concentrations 1, keeps them from becoming too small or too large. The proposal takes the operations of largest mean.

With `progressive`, the search begins on one of K channels (PC-DARTS). At half time it keeps the better half of the
operations of every edge and doubles the channels that go through them.

Where this file differs from the paper and its code (xiangning-chen/DrNAS):
    * The code has two programs, with and without progressive learning; so `progressive` is an option. It goes through two
      stages of equal length, from `partial` to half of it, as on NAS-Bench-201.
    * Widened convolutions copy random channels, as in the code; their momentum starts from 0, where the code copies it too.
    * The penalty is written into the loss. For "l2" that is half the squared alpha, of which Adam's weight decay in the code
      is the gradient.
    * The code warms up again for 10 epochs in each stage of progressive learning; so does `warm_up` here.
    * Without progressive learning the code has partial channels or not by an option; `partial` is that option.
    * The default recipe is short, and its alpha learns faster; `@paper` is that of the code on NAS-Bench-201.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence
from torch.nn import functional

from ..benchmarks.spaces.base import SearchSpace
from .base import SupernetTask
from .supernet.images import Batch
from .supernet.mix import Mix, soft
from .supernet.network import Supernet
from .supernet.training import DifferentiableOptimizer

Anchor = Literal["l2", "kl"]


class DirichletDraw(torch.autograd.Function):
    """A draw per row of concentrations, on the CPU, with the pathwise gradient."""

    @staticmethod
    def forward(ctx: Any, concentration: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch._sample_dirichlet(concentration, generator=generator)
        ctx.save_for_backward(drawn, concentration)
        return drawn

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        drawn, concentration = ctx.saved_tensors
        total = concentration.sum(dim=-1, keepdim=True).expand_as(concentration).contiguous()
        slope = torch._dirichlet_grad(drawn, concentration, total)
        # What a component gains by its concentration the others lose in proportion to their size.
        return slope * (gradient - (drawn * gradient).sum(dim=-1, keepdim=True)), None


def draw_dirichlet(concentration: Tensor, generator: torch.Generator) -> Tensor:
    """One draw of the Dirichlet distribution per row, on the device of the concentrations."""
    drawn: Tensor = DirichletDraw.apply(concentration.cpu(), generator)  # type: ignore[no-untyped-call]
    return drawn.to(concentration.device)


class DrNAS(DifferentiableOptimizer):
    """Dirichlet neural architecture search.

    Args:
        anchor: the distance from the anchor: "l2", half the squared alpha, or "kl", the divergence from concentrations of 1.
        anchor_weight: factor of that distance.
        partial: K; one of K channels goes through the operations, of the first stage if progressive.
        progressive: half of the operations on twice the channels in the second half of the search.
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Raises:
        ValueError: another distance, a negative factor, `partial` no whole number from 1, or one that `progressive` cannot
            halve.
    """

    own_recipe: ClassVar[Mapping[str, Any]] = {"alpha_learning_rate": 0.03, "alpha_weight_decay": 0.0}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "epochs": 100,
            "learning_rate": 0.025,
            "nesterov": False,
            "weight_decay": 3e-4,
            "alpha_learning_rate": 3e-4,
            "anchor_weight": 1e-3,
        },
        "progressive": {"partial": 4, "progressive": True},
        "paper_progressive": {
            "epochs": 100,
            "warm_up": 10,
            "learning_rate": 0.025,
            "nesterov": False,
            "weight_decay": 3e-4,
            "alpha_learning_rate": 3e-4,
            "anchor_weight": 1e-3,
            "partial": 4,
            "progressive": True,
        },
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        anchor: Anchor = "l2",
        anchor_weight: float = 1e-3,
        partial: int = 1,
        progressive: bool = False,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        if anchor not in ("l2", "kl"):
            raise ValueError(f"anchor is 'l2' or 'kl', not {anchor!r}")
        if (
            isinstance(anchor_weight, bool)
            or not isinstance(anchor_weight, int | float)
            or not 0 <= anchor_weight < float("inf")
        ):
            raise ValueError(f"anchor_weight must be a finite number from 0, not {anchor_weight!r}")
        if isinstance(partial, bool) or not isinstance(partial, int) or partial < 1:
            raise ValueError(f"partial must be a whole number from 1, not {partial!r}")
        if progressive and partial % 2:
            raise ValueError(f"with progressive, partial is halved once: it must be even, not {partial!r}")
        self.anchor, self.anchor_weight = anchor, float(anchor_weight)
        self.partial, self.progressive = partial, progressive

    # ------------------------------------------------------------------------------------------------- the distribution

    def concentrations(self, t: int) -> Tensor:
        """Of the operations of table t that are still in the search, `(edges, kept)`."""
        return functional.elu(self.alphas[t].gather(1, self._kept_columns(t))) + 1

    def operation_weights(self, t: int) -> Tensor:
        """The mean of the distribution; 0 for removed operations."""
        kept = self.concentrations(t)
        return self._spread(t, kept / kept.sum(dim=1, keepdim=True))

    def mixes(self) -> list[Mix]:
        """A draw, the same in all cells of a table."""
        return [
            soft(self._spread(t, draw_dirichlet(self.concentrations(t), self.generator)), self.active(t))
            for t in range(len(self.alphas))
        ]

    def regulariser(self) -> Tensor | float:
        """The distance of all concentrations from the anchor, times its factor."""
        distance = torch.zeros((), device=self.recipe.device)
        for t, alpha in enumerate(self.alphas):
            if self.anchor == "l2":
                distance = distance + 0.5 * alpha.square().sum()
            else:
                kept = self.concentrations(t)
                distance = distance + kl_divergence(Dirichlet(kept), Dirichlet(torch.ones_like(kept))).sum()
        return self.anchor_weight * distance

    def _kept_columns(self, t: int) -> Tensor:
        return torch.tensor(self.active(t), device=self.alphas[t].device)

    def _spread(self, t: int, values: Tensor) -> Tensor:
        return torch.zeros_like(self.alphas[t]).scatter(1, self._kept_columns(t), values)

    # --------------------------------------------------------------------------------------------- progressive learning

    @property
    def half_time(self) -> int:
        """Epochs of the first stage."""
        return max(1, self.recipe.epochs // 2)

    @property
    def second_stage(self) -> bool:
        return self.progressive and self.epoch >= self.half_time

    def build(self, **options: Any) -> Supernet:
        partial = self.partial // 2 if self.second_stage else self.partial
        return super().build(**{"partial": partial, **options})

    def step(self, batch: Batch, held_out: Batch) -> None:
        if self.epoch - (self.half_time if self.second_stage else 0) >= self.recipe.warm_up:
            self.architecture_step(batch, held_out)
        self.weight_step(batch)

    def end_epoch(self) -> Mapping[str, float]:
        if self.progressive and self.epoch == self.half_time:
            self.prune()
            self.widen()
        return super().end_epoch()

    def prune(self) -> None:
        """Keep the better half of the operations of every edge, one more if their number is odd."""
        for removed, values in zip(self.removed, self.strengths(), strict=True):
            keep = (values.shape[1] + 1) // 2
            for gone, row in zip(removed, values, strict=True):
                gone.update(int(op) for op in np.argsort(-row, kind="stable")[keep:])

    def widen(self) -> None:
        """Go on with a supernet of twice the channels in every operation, from copies of the channels there are."""
        before = self.supernet.state_dict()
        self._replace(self.build())
        with torch.no_grad():
            for name, wide in self.supernet.state_dict().items():
                values = before[name]
                for dim, (new, old) in enumerate(zip(wide.shape, values.shape, strict=True)):
                    if new > old:
                        copied = torch.randint(old, (new - old,), generator=self.generator)
                        index = torch.cat((torch.arange(old), copied)).to(values.device)
                        values = values.index_select(dim, index)
                wide.copy_(values)

    def _replace(self, supernet: Supernet) -> None:
        self.supernet = self.keep("supernet", supernet)
        supernet.generator = self.generator
        supernet.train()
        self.weight_optimizer = self.keep("weights", self.make_weight_optimizer(supernet.parameters()))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch = int(state.get("epoch", 0))  # `build` makes the supernet of this epoch
        if self._begun and self.supernet.partial != (self.partial // 2 if self.second_stage else self.partial):
            self._replace(self.build())
        super().load_state_dict(state)
