"""RobustDARTS: watch the sharpness of the held-out loss in the architecture parameters, and stop or regularise when it grows.

Zela, Elsken, Saikia, Marrakchi, Brox and Hutter, "Understanding and Robustifying Differentiable Architecture Search", ICLR
2020, sections 4.3 (early stopping) and 5 (regularisation), Algorithm 1. https://arxiv.org/abs/1909.09656

After every epoch the largest eigenvalue of the Hessian of the held-out loss by the architecture parameters is computed
(`supernet/hessian.py`) and averaged over a window of epochs. When the average exceeds `factor` times that of `delta` epochs
before, the search has begun to run into a sharp minimum, where discretisation costs a lot:

    variant="early_stop"    DARTS-ES: the search ends with the architecture of the earlier epoch;
    variant="adaptive"      DARTS-ADA: the search goes back to the earlier epoch with three times the weight decay;
    variant="watch"         nothing is done about it. With a large `weight_decay` this is R-DARTS (L2), see `@l2`.

Where this file differs from the paper and its code (automl/RobustDARTS):
    * The eigenvalue is measured on the same held-out images after every epoch, not on the last batch of the epoch.
    * First order is the default; `@paper` is second order, as published.
    * `start_epoch` is 5, for the short default search; `@paper` has the published 10.
    * The weight decay of DARTS-ADA grows while it stays within `max_weight_decay`; the code compares rounded logarithms.
    * A search with "adaptive" keeps the states of the last epochs to go back to, in memory and in its checkpoints. The random
      draws are not taken back, as in the code, and the epochs that are made again are further entries of the log.
    * It never goes back further than to the epoch of an earlier return, which the code, with all states on disk, can.
    * Scheduled drop path and cutout (R-DARTS by augmentation), and the reduced spaces S1 to S4, are left out.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..harness.core import Proposal
from .base import SearchFinished, SupernetTask
from .darts import DARTS
from .supernet.hessian import architecture_hessian, largest_eigenvalue
from .supernet.recipe import check_whole

VARIANTS = ("early_stop", "adaptive", "watch")
_PAPER: Mapping[str, Any] = {
    "epochs": 50,
    "learning_rate": 0.025,
    "nesterov": False,
    "weight_decay": 3e-4,
    "alpha_learning_rate": 3e-4,
    "order": 2,
    "start_epoch": 10,
}


def local_average(values: Sequence[float], last: int, window: int) -> float:
    """The mean of the `window` values that end with number `last`, fewer at the beginning.

    It stands for the epoch in its middle, `last - window // 2`.
    """
    return float(np.mean(values[max(0, last - window + 1) : last + 1]))


def sharpened(values: Sequence[float], *, window: int, delta: int, factor: float, start: int) -> int | None:
    """The epoch to go back to if the latest value shows that the loss has become sharp, else None.

    Args:
        values: the eigenvalue of every epoch so far; epochs are counted from 0.
        window: values that are averaged.
        delta: epochs between the two averages that are compared.
        factor: how many times larger the later average has to be.
        start: first epoch that is gone back to.
    """
    last = len(values) - 1
    earlier = last - window // 2 - delta
    if earlier < start:
        return None
    before = local_average(values, last - delta, window)
    return earlier if before > 0 and local_average(values, last, window) > factor * before else None


class RobustDARTS(DARTS):
    """DARTS that looks at the largest eigenvalue of the architecture Hessian after each epoch.

    Args:
        variant: "early_stop", "adaptive" or "watch"; see above.
        window, delta, factor, start_epoch: when the loss counts as sharp; see `sharpened`.
        decay_factor: the weight decay is multiplied by this at each return (adaptive).
        max_weight_decay: it grows no further than this (adaptive).
        hessian_images: held-out images on which the Hessian is computed.
        order: see `darts.DARTS`.
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Attributes:
        eigenvalues: of all epochs so far; after a return, of those up to the one that it went back to.

    Raises:
        ValueError: a variant that there is not, a number out of its range, or a bad order.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": _PAPER,
        "adaptive": {"variant": "adaptive"},
        "l2": {"variant": "watch", "weight_decay": 81e-4},
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        variant: str = "early_stop",
        window: int = 5,
        delta: int = 4,
        factor: float = 1.3,
        start_epoch: int = 5,
        decay_factor: float = 3.0,
        max_weight_decay: float = 243e-4,
        hessian_images: int = 64,
        order: int = 1,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, order=order, task=task, **recipe)
        if variant not in VARIANTS:
            raise ValueError(f"variant is one of {', '.join(VARIANTS)}, not {variant!r}")
        for name, value, least in (
            ("window", window, 1),
            ("delta", delta, 1),
            ("start_epoch", start_epoch, 0),
            ("hessian_images", hessian_images, 2),
        ):
            check_whole(name, value, least)
        if not 0.0 < factor < math.inf:
            raise ValueError(f"factor must be a positive number, not {factor!r}")
        if not 1.0 < decay_factor < math.inf:
            raise ValueError(f"decay_factor must be above 1, not {decay_factor!r}")
        if not 0.0 <= max_weight_decay < math.inf:
            raise ValueError(f"max_weight_decay must be a finite number from 0, not {max_weight_decay!r}")
        self.variant = variant
        self.window = window
        self.delta = delta
        self.factor = factor
        self.start_epoch = start_epoch
        self.decay_factor = decay_factor
        self.max_weight_decay = max_weight_decay
        self.hessian_images = hessian_images
        self.eigenvalues: list[float] = []
        self.stopped = False
        self._proposed: list[list[int]] = []  # architecture after each epoch
        self._states: dict[int, dict[str, Any]] = {}  # after the epochs that a return could reach

    def ask(self) -> Proposal:
        if self.stopped:
            raise SearchFinished
        return super().ask()

    def propose(self) -> Architecture:
        """That of the epoch that the search went back to, once it has stopped."""
        return tuple(self._proposed[-1]) if self.stopped else super().propose()

    def end_epoch(self) -> Mapping[str, float]:
        entry = dict(super().end_epoch())
        matrix = architecture_hessian(
            self.supernet, self.mixes, self.alphas, self.images.fixed("architecture", self.hessian_images)
        )
        self.eigenvalues.append(largest_eigenvalue(matrix))
        self._proposed.append(list(super().propose()))
        entry["eigenvalue"] = self.eigenvalues[-1]
        entry["weight_decay"] = self.recipe.weight_decay
        self._remember()
        back_to = sharpened(
            self.eigenvalues, window=self.window, delta=self.delta, factor=self.factor, start=self.start_epoch
        )
        if back_to is not None and self.epoch < self.recipe.epochs:
            self._react(back_to)
        entry["stopped"] = float(self.stopped)
        return entry

    def _react(self, back_to: int) -> None:
        """What a variant does when the loss has become sharp."""
        if self.variant == "early_stop":
            del self._proposed[back_to + 1 :]
            self.stopped = True
        elif self.variant == "adaptive":
            decay = self.recipe.weight_decay * self.decay_factor
            if 0.0 < decay <= self.max_weight_decay * (1.0 + 1e-9):
                self._return(max(back_to, min(self._states)), decay)

    def _remember(self) -> None:
        """Keep the state of this epoch, and drop those that no return can reach any more."""
        if self.variant != "adaptive":
            return
        now = self.epoch - 1
        self._states[now] = copy.deepcopy(
            {
                "supernet": self.supernet.state_dict(),
                "weights": self.weight_optimizer.state_dict(),
                "alpha optimizer": self.alpha_optimizer.state_dict(),
                "alphas": [alpha.detach() for alpha in self.alphas],
            }
        )
        for epoch in [e for e in self._states if e < now - self.window // 2 - self.delta]:
            del self._states[epoch]

    def _return(self, epoch: int, weight_decay: float) -> None:
        """Go on after `epoch`, which is counted from 0, with another weight decay."""
        state = copy.deepcopy(self._states[epoch])  # optimizers take tensors over as they are
        self.supernet.load_state_dict(state["supernet"])
        self.weight_optimizer.load_state_dict(state["weights"])
        self.alpha_optimizer.load_state_dict(state["alpha optimizer"])
        with torch.no_grad():
            for alpha, saved in zip(self.alphas, state["alphas"], strict=True):
                alpha.copy_(saved)
        self._set_weight_decay(weight_decay)
        self._states = {e: kept for e, kept in self._states.items() if e <= epoch}
        del self.eigenvalues[epoch + 1 :], self._proposed[epoch + 1 :]
        self.epoch = epoch + 1

    def _set_weight_decay(self, weight_decay: float) -> None:
        self.recipe = replace(self.recipe, weight_decay=weight_decay)  # which second order reads
        for group in self.weight_optimizer.param_groups:
            group["weight_decay"] = weight_decay

    def extra_state(self) -> dict[str, Any]:
        return {
            **super().extra_state(),
            "eigenvalues": list(self.eigenvalues),
            "proposed": [list(arch) for arch in self._proposed],
            "stopped": self.stopped,
            "weight_decay": self.recipe.weight_decay,
            "states": self._states,
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        super().load_extra_state(state)
        self.eigenvalues = list(state["eigenvalues"])
        self._proposed = [list(arch) for arch in state["proposed"]]
        self.stopped = state["stopped"]
        self._set_weight_decay(state["weight_decay"])
        self._states = copy.deepcopy(dict(state["states"]))
