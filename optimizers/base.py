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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..harness.core import Proposal, Trial

if TYPE_CHECKING:
    from ..benchmarks.images import Images, SplitName


class SearchFinished(Exception):
    """Raised by `ask` when there is nothing left to propose; the run ends there, before its budget."""


class Scorer(Protocol):
    """Scores untrained networks with zero-cost proxies. The harness hands one to every optimizer that takes a `scorer`.

    What a score costs is measured and counted as the optimizer's own seconds, also where the score is known from before.
    """

    def __call__(self, proxy: str, archs: Sequence[Architecture], *, seed: int) -> npt.NDArray[np.float64]:
        """Scores of architectures `(n,)`, higher is better; -inf for a network that cannot be scored, never NaN.

        Args:
            proxy: an id, as for `nasharness score`. A proxy that ranks candidates, such as az_nas, ranks these.
            archs: `(n, dimensions)`.
            seed: of weights and random inputs; the same seed gives the same scores.
        """

    def mixtures(self, proxy: str, choices: Sequence[Sequence[Sequence[int]]], *, seed: int) -> npt.NDArray[np.float64]:
        """Scores of n networks in which every dimension of the space still has several choices, `(n,)`.

        Args:
            proxy, seed: as above.
            choices: for each network the choices that are left in each dimension.

        Raises:
            ValueError: the benchmark has no such networks.
        """


class LabelledImages(Protocol):
    """What supernets need to know of images; `benchmarks.datasets.ImageSource` has it.

    Attributes:
        num_classes: number of classes.
        shape: channels, height and width of an image.
        splits: the splits that there are.
    """

    num_classes: int
    shape: tuple[int, int, int]
    splits: tuple[SplitName, ...]

    def split(self, name: SplitName, /) -> Images:
        """The images of a split."""

    def epoch(self, seed: int, epoch: int, /) -> Images:
        """The training images of one epoch; without variation those of the training split."""

    def describe(self) -> str:
        """One line: what the images are, and how many."""


@dataclass(frozen=True)
class SupernetTask:
    """What a supernet is trained on. The harness hands one to every optimizer that takes a `task`.

    Attributes:
        images: labelled images.
        settings: what the benchmark's own networks are built with, such as their channels.
    """

    images: LabelledImages
    settings: Mapping[str, Any]


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
        spaces: names of the spaces that it works on; None for every space.
        deterministic: True for a method that never draws from `rng`, such as an exhaustive search.
        metrics: names of the benchmark's metrics that `Trial.metrics` is to carry, such as `("flops",)`. A multi-objective
            method sets it on the instance, from its hyper-parameter `objective`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    charges_evaluations: ClassVar[bool] = True
    spaces: ClassVar[tuple[str, ...] | None] = None
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
