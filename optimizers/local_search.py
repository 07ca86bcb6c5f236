"""Local search: hill climbing over the neighbourhood graph, with restarts.

White, Nolen and Savani, "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021, Algorithm 1.
https://arxiv.org/abs/2005.02960

Where this file differs from the paper:
    * At a local optimum the search starts again from a new random architecture, until the budget ends; Algorithm 1 stops.
    * Neighbours are visited in random order.
    * `first_improvement=True`, the default, moves as soon as a neighbour is better; False evaluates the whole neighbourhood
      and moves to the best of it, as Algorithm 1 does.
    * An architecture that was evaluated before is not evaluated again; its value is remembered.
    * A failed trial (NaN) never counts as an improvement.
"""

from __future__ import annotations

import numpy as np

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer

_FAILED = -1.0  # ranks below every accuracy
_RESTART_TRIES = 100


class LocalSearch(Optimizer):
    """Climb from a random architecture to a local optimum, then start again elsewhere.

    Args:
        first_improvement: True moves to the first neighbour that is better, False to the best of all neighbours.
    """

    def __init__(self, space: SearchSpace, rng: np.random.Generator, *, first_improvement: bool = True) -> None:
        super().__init__(space, rng)
        self.first_improvement = first_improvement
        self._values: dict[Architecture, float] = {}
        self._current: Architecture | None = None  # None: the next proposal is a new starting point
        self._best: Architecture | None = None  # best neighbour of the current architecture so far, if better than it
        self._unvisited: list[Architecture] = []

    def ask(self) -> Proposal:
        """The next unknown neighbour, or a new starting point once the current architecture is a local optimum."""
        while self._current is not None:
            if self._unvisited:
                neighbour = self._unvisited.pop()
                if neighbour not in self._values:
                    return Proposal(neighbour)
                self._visit(neighbour)
            elif self._best is not None:
                self._move_to(self._best)
            else:
                self._current = None
        start = self.space.sample(self.rng)
        for _ in range(_RESTART_TRIES):
            if start not in self._values:
                break
            start = self.space.sample(self.rng)
        return Proposal(start)

    def tell(self, trial: Trial) -> None:
        self._values[trial.arch] = trial.value if trial.value == trial.value else _FAILED
        if self._current is None:
            self._move_to(trial.arch)
        else:
            self._visit(trial.arch)

    def _move_to(self, arch: Architecture) -> None:
        self._current, self._best = arch, None
        neighbours = self.space.neighbours(arch)
        self._unvisited = [neighbours[i] for i in self.rng.permutation(len(neighbours)).tolist()]

    def _visit(self, neighbour: Architecture) -> None:
        """Compare a neighbour whose value is known with the current architecture."""
        assert self._current is not None
        better_than = self._values[self._current if self._best is None else self._best]
        if self._values[neighbour] > better_than:
            if self.first_improvement:
                self._move_to(neighbour)
            else:
                self._best = neighbour
