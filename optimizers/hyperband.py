"""Hyperband: brackets of successive halving that differ in how soon they stop a training.

Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization",
JMLR 18(185), 2018, Algorithm 1. https://arxiv.org/abs/1603.06560

Where this file differs from the paper:
    * Epochs are rounded to the nearest fidelity of the benchmark, and the paper's smallest resource of 1 is the lowest of
      them (r_min in section 3.6 of the paper).
    * After the last bracket the first one follows, until the budget ends (section 3.4 suggests it, with growing R).
    * Architectures are drawn without repetition (a configuration of a continuous space never comes twice).
    * A failed training (NaN) is promoted only where there is nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from ..benchmarks.spaces.base import SearchSpace
from .brackets import BracketSearch, hyperband_brackets, rungs


class Hyperband(BracketSearch):
    """Successive halving with many short trainings, then with fewer and longer ones, ..., then random search, and again.

    Once every architecture of a small space was drawn they repeat, in trainings of their own.

    Args:
        fidelities: epochs that can be asked for, ascending; R is the last. With a single one this is random search.
        eta: the best 1/eta of a rung go on to the next, which trains eta times as long; above 1 (paper: 3 or 4).
        sizes: how many architectures start in a bracket: as in the "paper", or rounded down as in "hpbandster".
        resume: a promoted training goes on where it stopped; False starts it anew, at the full price.

    Presets: `hpbandster` has the bracket sizes of HpBandSter, the baseline of the NAS-Bench-101 paper and of BOHB.

    Raises:
        ValueError: fidelities that are not ascending numbers from 1, eta not above 1, or other `sizes`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"hpbandster": {"sizes": "hpbandster"}}

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        fidelities: Sequence[int] = range(1, 13),
        eta: float = 3,
        sizes: Literal["paper", "hpbandster"] = "paper",
        resume: bool = True,
    ) -> None:
        plans = hyperband_brackets(rungs(fidelities, eta), eta, sizes=sizes)
        super().__init__(space, rng, plans, resume=resume)
