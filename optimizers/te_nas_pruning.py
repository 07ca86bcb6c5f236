"""TE-NAS: prune a supernet of all choices down to one architecture, by scores of what would be left.

Chen, Gong and Wang, "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired Perspective", ICLR
2021, section 3.3 and Algorithm 1. https://arxiv.org/abs/2102.11535

Every dimension begins with all its choices. A round scores the network without each choice in turn, by the condition number of
its neural tangent kernel (lower is better) and its number of linear regions (higher is better), adds up the two ranks, and
removes from every dimension the choice without which the network ranks best. The search ends when every dimension has one
choice left; nothing was trained.

Where this file differs from the paper and its code (VITA-Group/TENAS, prune_tenas.py):
    * The ranks are of the quantities after the removal, not of their relative changes. In one round all changes are from the
      same network, so the order is the same, but for two things that the code does: it takes the mean of the changes over
      three draws of the weights, where the proxy takes the mean of the quantity, and it rounds them to three decimals.
    * Equal quantities share the mean of their ranks (`proxies/base.py`); in the code they share one number, and the next
      quantity has the next number.
    * The code measures the network before the removal again for every choice, with new weights; here all networks of a search
      are drawn from one seed, so the one before the removal is not needed, and a round takes half as many measurements.
    * `none` of NAS-Bench-201 is removed before the first round, as in the code; other spaces keep all choices.
    * In a constrained space a choice stays if no valid architecture would be left without it.
    * Linear regions are counted on the network that the condition number is measured on; the code counts them on one with a
      single channel and without the first convolution.
"""

from __future__ import annotations

import itertools

import numpy as np

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..benchmarks.spaces.nasbench201 import NONE, NASBench201Space
from ..harness.core import Proposal, Trial
from .base import Scorer, SearchFinished
from .scoring import ScoringOptimizer


class TENASPruning(ScoringOptimizer):
    """Pruning by importance at each `ask`, one architecture per search.

    A round asks the scorer once, for as many networks as choices are left in dimensions that have more than one: in
    NAS-Bench-201 24, 18 and 12, 54 in all.

    Args:
        proxy: id of a proxy that ranks what is left; te_nas adds up the two ranks of the paper.
        restarts: further searches, each with the next score seed; the published method makes none.
        scorer, score_seed: see `scoring.ScoringOptimizer`; the scorer has to know mixtures of architectures.

    Raises:
        ValueError: restarts below 0; by `ask`, without a scorer, or where the benchmark has no mixtures.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        proxy: str = "te_nas",
        restarts: int = 0,
        scorer: Scorer | None = None,
        score_seed: int | None = None,
    ) -> None:
        super().__init__(space, rng, proxy=proxy, scorer=scorer, score_seed=score_seed)
        if restarts < 0:
            raise ValueError(f"restarts must be at least 0, not {restarts}")
        self.restarts = restarts
        self._searches = 0  # that were made

    def ask(self) -> Proposal:
        """The result of a search.

        Raises:
            SearchFinished: the search and its restarts are over.
        """
        if self._searches > self.restarts:
            raise SearchFinished
        arch = self._search(self.score_seed + self._searches)
        self._searches += 1
        return Proposal(arch)

    def tell(self, trial: Trial) -> None:
        """Nothing to learn: no search looks at accuracies."""

    def _search(self, seed: int) -> Architecture:
        scorer = self._needed()
        left = [list(range(n)) for n in self.space.cardinalities]
        if isinstance(self.space, NASBench201Space):
            left = [[choice for choice in choices if choice != NONE] for choices in left]
        while any(len(choices) > 1 for choices in left):
            removals = [(d, choice) for d, choices in enumerate(left) if len(choices) > 1 for choice in choices]
            scores = np.asarray(
                scorer.mixtures(self.proxy, [_without(left, *removal) for removal in removals], seed=seed),
                dtype=np.float64,
            )
            done: set[int] = set()  # dimensions that have lost their choice of this round
            for i in np.argsort(-scores, kind="stable").tolist():
                d, choice = removals[i]
                if d not in done and self._possible(_without(left, d, choice)):
                    left = _without(left, d, choice)
                    done.add(d)
        return tuple(choices[0] for choices in left)

    def _possible(self, left: list[list[int]]) -> bool:
        """Whether a valid architecture is left."""
        if type(self.space).is_valid is SearchSpace.is_valid:
            return True
        return any(map(self.space.is_valid, itertools.product(*left)))


def _without(left: list[list[int]], d: int, choice: int) -> list[list[int]]:
    """The choices that are left without one of dimension d."""
    return [[c for c in choices if c != choice] if e == d else choices for e, choices in enumerate(left)]
