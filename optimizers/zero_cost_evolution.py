"""Evolution on a zero-cost proxy alone; what it scored is evaluated afterwards, best score first.

Lin, Wang, Sun, Chen, Sun, Qian, Li and Jin, "Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition", ICCV 2021,
Algorithms 1 and 2. https://arxiv.org/abs/2102.01063

Each step mutates a random member of the population, scores the mutant without training it and adds it; the member with the
lowest score leaves a population of more than N.

Where this file differs from the paper and its code (idstcv/ZenNAS, evolution_search.py):
    * The proxy is a hyper-parameter, synflow unless told otherwise: the paper's Zen-score is made for networks without
      skip connections, and orders NAS-Bench-201 poorly.
    * N = 64 and 1000 steps unless told otherwise; the code has N = 512 and 480,000 steps, in spaces that are far larger.
    * The population begins with N random architectures, which count as steps; the paper's begins with one given structure.
    * A mutant that was scored before is not scored or added again: in a small space the population would soon be copies
      of one architecture.
    * The budgets of size, latency and depth of the paper are constraints of its spaces; here the space has its own.
    * The paper trains the one best network; here everything that was scored is proposed, best first.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from ..benchmarks.spaces.base import Architecture, InvalidArchitecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Scorer, SearchFinished
from .drawing import can_enumerate
from .scoring import Scores, ScoringOptimizer, best_first, draw_pool


class ZeroCostEvolution(ScoringOptimizer):
    """Evolve by scores at the first `ask`, then propose everything that was scored, best first, and finish.

    A proxy whose score is a place among candidates, such as az_nas, is noticed: it gives an architecture another score alone
    than among others. Each step then scores the population together with the mutant, and the end all architectures together.

    Args:
        proxy: id of the proxy.
        population: members alive at once, the paper's N.
        steps: architectures that are drawn or mutated in all, the paper's T.
        mutations: choices that a mutation changes, one after the other (code: 2 blocks).
        scorer, score_seed: see `scoring.ScoringOptimizer`.

    Raises:
        ValueError: population, steps or mutations below 1; at the first `ask`, without a scorer.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        proxy: str = "synflow",
        population: int = 64,
        steps: int = 1000,
        mutations: int = 1,
        scorer: Scorer | None = None,
        score_seed: int | None = None,
    ) -> None:
        super().__init__(space, rng, proxy=proxy, scorer=scorer, score_seed=score_seed)
        if min(population, steps, mutations) < 1:
            raise ValueError(
                f"population, steps and mutations must be at least 1, not {population}, {steps} and {mutations}"
            )
        self.population = population
        self.steps = steps
        self.mutations = mutations
        self._list: deque[Architecture] | None = None  # best first, what was not proposed yet

    def ask(self) -> Proposal:
        """The best of what was scored and not proposed yet.

        Raises:
            SearchFinished: all of it was proposed.
        """
        if self._list is None:
            self._needed()  # before anything is drawn
            self._list = deque(self._evolve())
        if not self._list:
            raise SearchFinished
        return Proposal(self._list.popleft())

    def tell(self, trial: Trial) -> None:
        """Nothing to learn: the search is over before the first evaluation."""

    def _evolve(self) -> list[Architecture]:
        """Algorithm 1; everything that was scored, best first."""
        space, random = self.space, self.rng.random
        everything = space.size if can_enumerate(space, self.steps) else 0
        alive = draw_pool(space, self.rng, min(self.population, self.steps))
        scores = self._scores(alive)
        together = self._places(alive, scores)
        seen = {space.identity(arch): (arch, score) for arch, score in zip(alive, scores.tolist(), strict=True)}
        for _ in range(self.steps - len(alive)):
            if len(seen) == everything:
                break
            mutant = self._mutate(alive[int(random() * len(alive))])
            if space.identity(mutant) in seen:
                continue
            alive.append(mutant)
            scores = self._scores(alive) if together else np.append(scores, self._scores([mutant]))
            seen[space.identity(mutant)] = mutant, float(scores[-1])
            if len(alive) > self.population:
                lowest = int(scores.argmin())  # of equal ones the oldest
                del alive[lowest]
                scores = np.delete(scores, lowest)
        archs = [arch for arch, _ in seen.values()]
        return best_first(archs, self._scores(archs) if together else np.array([score for _, score in seen.values()]))

    def _places(self, archs: list[Architecture], scores: Scores) -> bool:
        """Tell whether the proxy gives places among candidates: alone everybody has the same place."""
        best, worst = int(scores.argmax()), int(scores.argmin())
        if scores[best] == scores[worst]:
            return False
        alone = [float(self._scores([archs[i]])[0]) for i in (best, worst)]
        return alone[0] == alone[1]

    def _mutate(self, arch: Architecture) -> Architecture:
        for _ in range(self.mutations):
            try:
                arch = self.space.mutate(arch, self.rng)
            except InvalidArchitecture:  # it has no neighbour
                return self.space.sample(self.rng)
        return arch
