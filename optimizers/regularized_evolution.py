"""Regularized evolution (aging evolution), and the non-aging evolution that it is compared with.

Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019, Algorithm 1.
https://arxiv.org/abs/1802.01548

Where this file differs from the paper:
    * A mutation always changes exactly one choice of the space; the paper's mutations change the input or the operation of
      an edge of a NASNet cell, or nothing (the identity mutation, probability 0.05).
    * A failed trial (NaN) enters the population and ages like any other, but never wins a tournament against one that
      succeeded.
    * One evaluation at a time; the paper's workers are asynchronous.
    * A winner without a neighbour, as in a space of one architecture, is followed by a random architecture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ..benchmarks.spaces.base import Architecture, InvalidArchitecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer


class RegularizedEvolution(Optimizer):
    """Tournament selection in which the oldest member dies, not the worst. Architectures may be proposed again.

    Args:
        population: members alive at once (paper: P = 100; NATS-Bench: 10).
        sample: tournament size, drawn with replacement (paper: S = 25; NATS-Bench: 3).
        aging: False is the paper's non-aging evolution (section 3.2), ordinary tournament selection: the worst of the
            tournament dies, the oldest of several equally bad.

    Presets: `nats` is the setting of the NAS-Bench-201 and NATS-Bench papers, `non_aging` has `aging=False`.

    Raises:
        ValueError: population or sample below 1.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "nats": {"population": 10, "sample": 3},
        "non_aging": {"aging": False},
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        population: int = 100,
        sample: int = 25,
        aging: bool = True,
    ) -> None:
        super().__init__(space, rng)
        if population < 1 or sample < 1:
            raise ValueError(f"population and sample must be at least 1, not {population} and {sample}")
        self.population = population
        self.sample = sample
        self.aging = aging
        self._alive: deque[tuple[float, Architecture]] = deque(maxlen=population)  # oldest first; appending drops it
        self._dying: int | None = None  # without aging: place in `_alive` of the worst of the last tournament
        self._n_asked = 0

    def ask(self) -> Proposal:
        """A random architecture until P were proposed, then the mutated winner of a tournament."""
        self._n_asked += 1
        alive = self._alive
        if self._n_asked <= self.population or not alive:
            return Proposal(self.space.sample(self.rng))
        best_value = -2.0
        parent: Architecture = ()
        n = len(alive)
        tournament = self.rng.random(self.sample).tolist()
        for u in tournament:
            value, arch = alive[int(u * n)]
            if value > best_value:
                best_value, parent = value, arch
        if not self.aging:
            self._dying = min((int(u * n) for u in tournament), key=lambda i: (alive[i][0], i))
        try:
            return Proposal(self.space.mutate(parent, self.rng))
        except InvalidArchitecture:
            return Proposal(self.space.sample(self.rng))

    def tell(self, trial: Trial) -> None:
        value = trial.value
        if self._dying is not None:
            del self._alive[self._dying]
            self._dying = None
        self._alive.append((value if value == value else -1.0, trial.arch))  # NaN ranks below every accuracy
