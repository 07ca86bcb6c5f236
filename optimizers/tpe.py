"""Tree-structured Parzen estimator (TPE).

Bergstra, Bardenet, Bengio and Kégl, "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011, section 4.
https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization

Two densities of architectures are kept, l of the good ones and g of all others. The expected improvement is the larger the
larger l(x) / g(x) (eq. 3), so architectures are drawn from l and the one with the largest ratio is proposed.

Where this file differs from the paper:
    * The paper's split at a quantile of all values makes ever more architectures good. This is the split of HyperOpt, the
      authors' package: of n trials min(ceil(gamma sqrt(n)), max_good) are good. `n_startup` and `candidates` have its
      defaults, too. Its down-weighting of old trials ("linear forgetting") is not in the paper and not here.
    * Every dimension of a space here is categorical and none depends on another one, so the tree is flat: l and g are
      products of one categorical distribution per dimension. A choice that C of N architectures made has the probability
      (C + prior_weight) / (N + k prior_weight) among k choices, which is the paper's with prior_weight 1.
    * Candidates are whole architectures, as in the paper; HyperOpt takes the best choice of each dimension by itself.
    * A failed trial (NaN) belongs to the bad ones.
    * In a constrained space, candidates that are not valid are passed over, and drawn again where none is valid.
    * One evaluation at a time. An architecture may be proposed again, also after the whole space was seen.
"""

from __future__ import annotations

import math
from bisect import bisect_right

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer

_REDRAWS = 20  # rounds of candidates without a valid one before a random architecture is proposed
_DECIMALS = 9  # of log-ratios: beyond them the last digit of a logarithm, which is a machine's own, would settle ties


class TPE(Optimizer):
    """Propose what is likelier among good architectures than among bad ones.

    Args:
        n_startup: random trials before the densities are used (HyperOpt: 20).
        candidates: architectures drawn from l for each proposal (HyperOpt: 24).
        gamma: good are the best ceil(gamma sqrt(n)) of n trials (HyperOpt: 0.25), ...
        max_good: ... but no more than this (HyperOpt: 25).
        prior_weight: how many observations of every choice the uniform prior stands for (paper: 1).
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        n_startup: int = 20,
        candidates: int = 24,
        gamma: float = 0.25,
        max_good: int = 25,
        prior_weight: float = 1.0,
    ) -> None:
        super().__init__(space, rng)
        if n_startup < 0 or candidates < 1 or max_good < 1:
            raise ValueError(
                "n_startup must be at least 0, candidates and max_good at least 1,"
                f" not {n_startup}, {candidates} and {max_good}"
            )
        if not 0 < gamma < math.inf or not 0 < prior_weight < math.inf:
            raise ValueError(f"gamma and prior_weight must be positive and finite, not {gamma} and {prior_weight}")
        self.n_startup = n_startup
        self.candidates = candidates
        self.gamma = gamma
        self.max_good = max_good
        self._ranked: list[tuple[float, int, Architecture]] = []  # trials that did not fail, best first, then oldest
        self._n_told = 0
        self._n_good = 0  # so many of `_ranked` are good; all others, and the failed trials, are bad
        # Pseudo-counts (dimension, choice), the prior included. Columns that a dimension does not have stay at zero.
        dimensions, widest = len(space.cardinalities), max(space.cardinalities)
        prior = np.zeros((dimensions, widest))
        for row, n in zip(prior, space.cardinalities, strict=True):
            row[:n] = prior_weight
        self._good, self._bad = prior, prior.copy()
        self._missing = prior == 0
        self._dimensions = np.arange(dimensions)
        self._last = np.array(space.cardinalities) - 1

    def ask(self) -> Proposal:
        """A random architecture until `n_startup` were told, then the candidate with the largest l / g."""
        if self._n_told < self.n_startup or self._n_good == 0:
            return Proposal(self.space.sample(self.rng))
        likely = self._good / self._good.sum(axis=1, keepdims=True)  # l
        unlikely = self._bad / self._bad.sum(axis=1, keepdims=True)  # g
        ratio = np.log((likely + self._missing) / (unlikely + self._missing))
        below = np.cumsum(likely, axis=1)[:, :-1]  # a draw u is choice c if c of these are not above u
        for _ in range(_REDRAWS):
            draws = self.rng.random((self.candidates, len(below)))
            drawn = np.minimum(
                (draws[:, :, None] >= below).sum(axis=2), self._last
            )  # the sums end at 1 but for rounding
            scores = ratio[self._dimensions, drawn].sum(axis=1).round(_DECIMALS)
            for i in np.argsort(-scores, kind="stable").tolist():
                arch = tuple(drawn[i].tolist())
                if self.space.is_valid(arch):
                    return Proposal(arch)
        return Proposal(self.space.sample(self.rng))

    def tell(self, trial: Trial) -> None:
        """Count the trial's choices among the good or the bad; whoever changes sides takes its counts along."""
        self._n_told += 1
        arch = trial.arch
        if trial.value != trial.value:
            self._count(arch, self._bad)
        else:
            entry = (-trial.value, self._n_told, arch)
            rank = bisect_right(self._ranked, entry)
            self._ranked.insert(rank, entry)
            if rank < self._n_good:  # the last of the good ones makes room
                self._count(arch, self._good)
                self._move(self._ranked[self._n_good][2], self._good, self._bad)
            else:
                self._count(arch, self._bad)
        good = min(math.ceil(self.gamma * math.sqrt(self._n_told)), self.max_good, len(self._ranked))
        while self._n_good < good:
            self._move(self._ranked[self._n_good][2], self._bad, self._good)
            self._n_good += 1

    def _count(self, arch: Architecture, counts: npt.NDArray[np.float64]) -> None:
        counts[self._dimensions, arch] += 1

    def _move(self, arch: Architecture, source: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> None:
        source[self._dimensions, arch] -= 1
        target[self._dimensions, arch] += 1
