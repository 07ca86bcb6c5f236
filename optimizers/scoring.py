"""What the strategies that score untrained networks share: the scorer, the proxy, and the seed of the scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces.base import Architecture, SearchSpace
from .base import Optimizer, Scorer
from .drawing import can_enumerate, sample_new

Scores = npt.NDArray[np.float64]


class ScoringOptimizer(Optimizer):
    """An optimizer that scores untrained networks with one zero-cost proxy.

    Args:
        proxy: its id, as for `nasharness score`.
        scorer: what scores; the harness hands it over where the benchmark has networks and images.
        score_seed: seed of the weights and inputs of all scores of the run. None: drawn from `rng`, so that repetitions
            differ in it; with a number they share the scores.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        proxy: str,
        scorer: Scorer | None,
        score_seed: int | None,
    ) -> None:
        super().__init__(space, rng)
        self.proxy = proxy
        self.scorer = scorer
        self.score_seed = int(rng.integers(2**31)) if score_seed is None else score_seed

    def _needed(self) -> Scorer:
        """The scorer.

        Raises:
            ValueError: there is none.
        """
        if self.scorer is None:
            raise ValueError(
                f"{type(self).__name__} scores untrained networks: run it on a benchmark that has networks and images, such"
                " as digits201"
            )
        return self.scorer

    def _scores(self, archs: Sequence[Architecture]) -> Scores:
        """Scores of architectures `(n,)`, higher is better; -inf where there is none."""
        return np.asarray(self._needed()(self.proxy, archs, seed=self.score_seed), dtype=np.float64)


def best_first(archs: Sequence[Architecture], scores: Scores) -> list[Architecture]:
    """Architectures by descending score, those without a score last; of equal ones the first stays first."""
    return [archs[i] for i in np.argsort(-scores, kind="stable").tolist()]


def draw_pool(space: SearchSpace, rng: np.random.Generator, n: int) -> list[Architecture]:
    """`n` different random architectures, or as many as are found; where the space has no more, all of it in random order."""
    known: dict[Architecture, Architecture] = {}  # by identity
    if can_enumerate(space, n):
        for arch in space:
            known.setdefault(space.identity(arch), arch)
        every = list(known.values())
        return [every[i] for i in rng.permutation(len(every)).tolist()]
    while len(known) < n:
        arch = sample_new(space, rng, known)
        if known.setdefault(space.identity(arch), arch) is not arch:
            break  # nothing new was found in many draws
    return list(known.values())
