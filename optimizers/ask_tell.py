"""Optimizers of other packages that have the two methods ask() and tell(candidate, loss), such as Nevergrad's.

    class Mine(AskTell):
        def __init__(self, space: SearchSpace, rng: np.random.Generator) -> None:
            super().__init__(space, rng, make=lambda space, rng: their_package.Optimizer(space.cardinalities, seed=...))

Nevergrad: Rapin and Teytaud, "Nevergrad - A gradient-free optimization platform", 2018.
https://github.com/facebookresearch/nevergrad
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer

_REDRAWS = 100
_WORST = 1.0  # the loss of an accuracy of 0


class AskTell(Optimizer):
    """Wrap an object that minimises: `ask()` gives a candidate, `tell(candidate, loss)` takes its loss.

    The loss is the error, 1 - value, a fraction; that of a failed trial (NaN) is 1. In a constrained space a candidate that is
    not valid is told a loss of 1 at once, and the next is asked for; after 100 of them in a row a random architecture is
    proposed, of which the object is told nothing.

    Args:
        make: called with the space and the generator, from which the object must draw its seed; returns the object.
        choices: turns a candidate into its choices, one number per dimension.

    Raises:
        InvalidArchitecture: by `ask`, where the choices of a candidate are too many, too few or out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        make: Callable[[SearchSpace, np.random.Generator], Any],
        choices: Callable[[Any], Iterable[int]] = tuple,
    ) -> None:
        super().__init__(space, rng)
        self._choices = choices
        self._candidate: Any = None  # whose the last proposal is; None: drawn at random
        self._wrapped = make(space, rng)

    def ask(self) -> Proposal:
        """The first valid candidate that the object gives."""
        for _ in range(_REDRAWS):
            self._candidate = self._wrapped.ask()
            arch: Architecture = tuple([int(choice) for choice in self._choices(self._candidate)])
            if self.space.is_valid(arch):
                return Proposal(arch)
            if not SearchSpace.is_valid(self.space, arch):
                self.space.check(arch)  # says what is wrong with it
            self._wrapped.tell(self._candidate, _WORST)
        self._candidate = None
        return Proposal(self.space.sample(self.rng))

    def tell(self, trial: Trial) -> None:
        if self._candidate is not None:
            self._wrapped.tell(self._candidate, _WORST if trial.value != trial.value else 1.0 - trial.value)


class Nevergrad(AskTell):
    """An optimizer of Nevergrad. Every dimension is a `Choice`: its choices have no order.

    Args:
        optimizer: a name in `nevergrad.optimizers.registry`.
        budget: number of evaluations that Nevergrad plans for (None: it is not told any). Some of its optimizers need it, and
            its portfolios, such as NGOpt, choose by it. Nothing ends when it is reached.

    Raises:
        ImportError: Nevergrad is not installed.
        ValueError: no optimizer of that name.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        optimizer: str = "OnePlusOne",
        budget: int | None = None,
    ) -> None:
        def make(space: SearchSpace, rng: np.random.Generator) -> Any:
            try:
                nevergrad: Any = importlib.import_module("nevergrad")
            except ModuleNotFoundError as error:
                if error.name != "nevergrad":
                    raise
                raise ImportError("Nevergrad is not installed: pip install 'nasharness[nevergrad]'") from error
            registry = nevergrad.optimizers.registry
            if optimizer not in registry:
                close = difflib.get_close_matches(optimizer, registry) or ["OnePlusOne", "DE", "NGOpt"]
                raise ValueError(
                    f"Nevergrad {nevergrad.__version__} has no optimizer {optimizer!r}; among its {len(registry)} are"
                    f" {', '.join(close)}"
                )
            parametrization = nevergrad.p.Tuple(*(nevergrad.p.Choice(range(n)) for n in space.cardinalities))
            parametrization.random_state = np.random.RandomState(int(rng.integers(1 << 32)))
            return registry[optimizer](parametrization=parametrization, budget=budget, num_workers=1)

        super().__init__(space, rng, make=make, choices=lambda candidate: candidate.value)
