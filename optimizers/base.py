"""What a search strategy is: ask for an evaluation, be told its outcome.

    class MyOptimizer(Optimizer):
        def ask(self) -> Proposal:
            return Proposal(self.space.sample(self.rng))

        def tell(self, trial: Trial) -> None:
            ...  # state includes every trial told so far

The harness alternates `ask` and `tell`. An optimizer never sees the benchmark, the budget, the clock or test accuracy, and
`rng` is its only source of chance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ..benchmarks.spaces.base import SearchSpace
from ..harness.core import Proposal, Trial


class SearchFinished(Exception):
    """Raised by `ask` when there is nothing left to propose; the run ends there, before its budget."""


class Optimizer(ABC):
    """Base class of search strategies.

    Args:
        space: the space to search.
        rng: the only source of chance.

    Subclasses add keyword hyper-parameters with defaults.

    Attributes:
        presets: named sets of hyper-parameters; `name@preset` selects one wherever an optimizer id is accepted.
        charges_evaluations: False for a method that trains inside `ask` (a supernet). Each proposal is then what it would
            return now, costs nothing and is not told; its own measured seconds are its search cost.
        deterministic: True for a method that never draws from `rng`, such as an exhaustive search.
        metrics: names of the benchmark's metrics that `Trial.metrics` is to carry, such as `("flops",)`. A multi-objective
            method sets it on the instance, from its hyper-parameter `objective`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    charges_evaluations: ClassVar[bool] = True
    deterministic: ClassVar[bool] = False
    metrics: tuple[str, ...] = ()

    def __init__(self, space: SearchSpace, rng: np.random.Generator) -> None:
        self.space = space
        self.rng = rng

    @abstractmethod
    def ask(self) -> Proposal:
        """Return what to evaluate next.

        Raises:
            SearchFinished: nothing is left to propose.
        """

    @abstractmethod
    def tell(self, trial: Trial) -> None:
        """Learn the outcome of the last proposal. `trial.value` may be NaN (a failed trial); it must never win."""
