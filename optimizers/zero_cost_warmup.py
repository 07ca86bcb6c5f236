"""Zero-cost warm-up: the best of a large random pool by a zero-cost proxy, then random search or evolution.

Abdelfattah, Mehrotra, Dudziak and Lane, "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, section 5.
https://arxiv.org/abs/2101.08134

N random architectures are scored without any training and evaluated best score first. Random search goes down that list;
aging evolution takes its top as the initial population.

Where this file differs from the paper and its notebook (SamsungLabs/zero-cost-nas, nas_examples.ipynb):
    * N = 1000 unless told otherwise, for the time that it takes; the notebook has 3000 (preset `paper`), and the paper
      shows others.
    * The architectures of the pool are different ones; a pool as large as the space is the whole space.
    * A random architecture after the end of the list is a new one, as far as one is easily found.
    * The tournament of the evolution draws with replacement, see `regularized_evolution.py`; the notebook's draws without.
    * The paper also warms up reinforcement learning and a predictor; this file does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Scorer
from .drawing import sample_new
from .regularized_evolution import RegularizedEvolution
from .scoring import ScoringOptimizer, best_first, draw_pool


class ZeroCostWarmup(ScoringOptimizer):
    """Evaluate a random pool best score first. The pool is scored at the first `ask`, all at once.

    Args:
        proxy: id of the proxy; the paper's best is synflow.
        pool: architectures that are scored, the paper's N; all of a space that has no more.
        then: what the list is for. "random_search": all of it is evaluated, and new random architectures after it.
            "regularized_evolution": its first `population` architectures are the initial population of aging evolution.
        population, sample: of the evolution, as for `regularized_evolution` (notebook: 64 and 10).
        scorer, score_seed: see `scoring.ScoringOptimizer`.

    Presets: `evolution` has `then="regularized_evolution"`, `paper` a pool of 3000, `paper_evolution` both.

    Raises:
        ValueError: pool, population or sample below 1, or an unknown `then`; at the first `ask`, without a scorer.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "evolution": {"then": "regularized_evolution"},
        "paper": {"pool": 3000},
        "paper_evolution": {"pool": 3000, "then": "regularized_evolution"},
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        proxy: str = "synflow",
        pool: int = 1000,
        then: Literal["random_search", "regularized_evolution"] = "random_search",
        population: int = 64,
        sample: int = 10,
        scorer: Scorer | None = None,
        score_seed: int | None = None,
    ) -> None:
        super().__init__(space, rng, proxy=proxy, scorer=scorer, score_seed=score_seed)
        if pool < 1:
            raise ValueError(f"pool must be at least 1, not {pool}")
        if then not in ("random_search", "regularized_evolution"):
            raise ValueError(f"then is 'random_search' or 'regularized_evolution', not {then!r}")
        self.pool = pool
        self._evolution = RegularizedEvolution(space, rng, population=population, sample=sample)
        self.then = then
        self._list: deque[Architecture] | None = None  # best first, what was not proposed yet
        self._proposed: set[Architecture] = set()

    def ask(self) -> Proposal:
        """The next of the list, then what follows it."""
        if self._list is None:
            self._needed()  # before anything is drawn
            pool = draw_pool(self.space, self.rng, self.pool)
            listed = best_first(pool, self._scores(pool))
            self._list = deque(listed[: self._evolution.population] if self.then != "random_search" else listed)
        if self.then == "random_search":
            arch = self._list.popleft() if self._list else sample_new(self.space, self.rng, self._proposed)
            self._proposed.add(self.space.identity(arch))
            return Proposal(arch)
        # Evolution begins with random architectures; those of the list take their place, and it is told of them.
        evolved = self._evolution.ask()
        return Proposal(self._list.popleft()) if self._list else evolved

    def tell(self, trial: Trial) -> None:
        if self.then != "random_search":
            self._evolution.tell(trial)
