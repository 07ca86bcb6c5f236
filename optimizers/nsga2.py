"""NSGA-II: a population that is kept on the trade-off between accuracy and a cost.

Deb, Pratap, Agarwal and Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE Transactions on
Evolutionary Computation 6(2), 2002, section III. For architectures: Lu et al., "NSGA-Net", GECCO 2019.

Where this file differs from the paper:
    * Uniform crossover, and a mutation that changes exactly one choice of the space. The paper's operators are for real
      and binary strings: single-point or simulated binary crossover, and each variable mutated with probability 1/n.
    * A child that was proposed before is drawn again, up to 20 times; in a small space copies would soon fill the
      population. Once the space is exhausted architectures are proposed again.
    * A failed trial (NaN) is dominated by every one that succeeded. A cost that is not known (NaN) is worse than every
      cost that is.
    * A tie in the crowded comparison goes to the member that was there first; the paper leaves it open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces.base import Architecture, InvalidArchitecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer

Floats = npt.NDArray[np.float64]

_REDRAWS = 20  # of a child that was proposed before, and of a crossover that left the space


class NSGA2(Optimizer):
    """Minimise error (1 - validation accuracy) and a cost together: survival by dominance, then by crowding distance.

    Args:
        objective: the benchmark's metric to minimise, such as "flops", "params" or "latency".
        population: parents, and children per generation (paper: N = 100).
        crossover: probability that a child has two parents (paper: 0.9); otherwise it is a mutant of one.

    Presets: `paper` has the paper's population, which takes 200 evaluations before its first selection.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"population": 100}}

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        objective: str = "flops",
        population: int = 50,
        crossover: float = 0.9,
    ) -> None:
        super().__init__(space, rng)
        if population < 1:
            raise ValueError(f"population must be at least 1, not {population}")
        if not 0 <= crossover <= 1:
            raise ValueError(f"crossover is a probability in [0, 1], not {crossover}")
        self.metrics = (objective,)
        self.objective = objective
        self.population = population
        self.crossover = crossover
        self._parents: list[Architecture] = []  # in the order of the crowded comparison, the best first
        self._parent_costs = np.empty((0, 2))
        self._children: list[Architecture] = []
        self._child_costs: list[tuple[float, float]] = []
        self._proposed: set[Architecture] = set()

    def ask(self) -> Proposal:
        """A random architecture until N were told, then a child of the parents."""
        child = self._draw()
        for _ in range(_REDRAWS):
            if child not in self._proposed:
                break
            child = self._draw()
        self._proposed.add(child)
        return Proposal(child)

    def tell(self, trial: Trial) -> None:
        """Once there are N children, the best N of parents and children become the parents."""
        error, cost = 1.0 - trial.value, trial.metrics[self.objective]
        if math.isnan(error):
            error = cost = math.inf
        self._children.append(trial.arch)
        self._child_costs.append((error, math.inf if math.isnan(cost) else cost))
        if len(self._children) == self.population:
            archs = self._parents + self._children
            costs = np.concatenate((self._parent_costs, self._child_costs))
            best = crowded_best(costs, self.population)
            self._parents, self._parent_costs = [archs[i] for i in best], costs[best]
            self._children, self._child_costs = [], []

    def _draw(self) -> Architecture:
        if not self._parents:
            return self.space.sample(self.rng)
        # Two binary tournaments. The parents are sorted, so the winner is the one that stands first.
        n = len(self._parents)
        a, b, c, d, two_parents = self.rng.random(5).tolist()
        child = self._parents[int(min(a, b) * n)]
        if two_parents < self.crossover:
            child = self._uniform_crossover(child, self._parents[int(min(c, d) * n)])
        try:
            return self.space.mutate(child, self.rng)
        except InvalidArchitecture:  # it has no neighbour
            return self.space.sample(self.rng)

    def _uniform_crossover(self, one: Architecture, other: Architecture) -> Architecture:
        """Each choice from either parent; the first parent, where the space contains none of the mixtures drawn."""
        for _ in range(_REDRAWS):
            coins = self.rng.random(len(one)).tolist()
            child = tuple([x if coin < 0.5 else y for x, y, coin in zip(one, other, coins, strict=True)])
            if self.space.is_valid(child):
                return child
        return one


def crowded_best(costs: Floats, k: int) -> list[int]:
    """Indices of the best `k` of `costs` `(n, objectives)`, the best first: by front, then by distance (section III-C)."""
    best: list[int] = []
    for front in non_dominated_sort(costs):
        distance = crowding_distance(costs[front])
        best += [front[i] for i in np.argsort(-distance, kind="stable")]
        if len(best) >= k:
            break
    return best[:k]


def non_dominated_sort(costs: Floats) -> Iterator[list[int]]:
    """The fronts of `costs` `(n, objectives)`, all minimised: indices of those that nobody dominates, then of the next.

    `p` dominates `q` if it is nowhere worse and somewhere better. Fast non-dominated sorting (section III-A): count for
    each how many dominate it, take those with none, and reduce the counts of those that they dominate.
    """
    no_worse: npt.NDArray[np.bool_] = np.logical_and.reduce(costs[:, None] <= costs[None], axis=2)
    dominates = no_worse & ~no_worse.T  # no worse, and not the other way round: somewhere better
    dominators = dominates.sum(axis=0)
    current = np.flatnonzero(dominators == 0)
    while len(current):
        yield current.tolist()
        dominators[current] = -1  # has its front
        dominators -= dominates[current].sum(axis=0)
        current = np.flatnonzero(dominators == 0)


def crowding_distance(costs: Floats) -> Floats:
    """How lonely each point of one front is, `(n,)` for `costs` `(n, objectives)` (section III-B).

    The sum over objectives of the distance between its two neighbours, as a share of the front's range; infinite at the
    ends. A cost that is infinite counts as the largest finite one, and an objective in which all are equal as nothing.
    """
    n, objectives = costs.shape
    distance = np.zeros(n)
    for m in range(objectives):
        column = costs[:, m]
        finite = column[np.isfinite(column)]
        order = np.argsort(column, kind="stable")
        column = np.minimum(column, finite.max(initial=-np.inf))
        distance[order[[0, -1]]] = np.inf
        span = column[order[-1]] - column[order[0]] if len(finite) else 0.0
        if span > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance
