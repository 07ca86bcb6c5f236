"""Grid search: every architecture of the space once.

The oldest baseline there is; in NAS it is the exhaustive search that tabular benchmarks make possible, and with a random
order it is random search without replacement.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer, SearchFinished


class GridSearch(Optimizer):
    """Propose the architectures in lexicographic order, the last choice varying fastest, and finish with the last of them.

    Nothing is enumerated ahead, so a space may be as large as it likes. Choice vectors that the space declares invalid are
    passed over; two that spell isomorphic architectures are two architectures.

    Args:
        shuffled: a uniformly random order instead, without repetition. On a space too large to finish, the lexicographic
            order would only ever vary the last few choices. Memory grows by a few hundred bytes per trial.
    """

    deterministic = True  # in its default order

    def __init__(self, space: SearchSpace, rng: np.random.Generator, *, shuffled: bool = False) -> None:
        super().__init__(space, rng)
        self.shuffled = shuffled
        self._left = _shuffled(space, rng) if shuffled else iter(space)

    def ask(self) -> Proposal:
        """The next architecture.

        Raises:
            SearchFinished: every architecture was proposed.
        """
        for arch in self._left:
            return Proposal(arch)
        raise SearchFinished

    def tell(self, trial: Trial) -> None:
        """Nothing to learn: the harness keeps the incumbent."""


def _shuffled(space: SearchSpace, rng: np.random.Generator) -> Iterator[Architecture]:
    """Fisher and Yates's shuffle of all choice vectors, done as far as it is read.

    Position i is swapped with a random later one. Only positions that are not at their own place any more are stored, as in
    Durstenfeld (CACM 1964) on an array that is never written out.
    """
    total = math.prod(space.cardinalities)
    moved: dict[int, int] = {}
    for i in range(total):
        # 64 bits more than needed: the bias of the remainder is below 2**-64.
        j = i + int.from_bytes(rng.bytes(total.bit_length() // 8 + 9), "little") % (total - i)
        rank = moved.get(j, j)
        moved[j] = moved.get(i, i)
        moved.pop(i, None)  # never read again
        arch = space.unrank(rank)
        if space.is_valid(arch):
            yield arch
