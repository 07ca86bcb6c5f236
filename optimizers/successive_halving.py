"""Successive halving: train many architectures briefly, keep the best part, train it longer, and so on.

Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016, Figure 3.
https://arxiv.org/abs/1502.07943

Where this file differs from the paper:
    * The paper divides a given budget over the rounds; here the rounds are rungs of the benchmark's fidelities (as in
      Hyperband), and one bracket follows the other until the budget ends.
    * eta is a parameter; the paper halves (eta = 2).
    * Architectures are drawn without repetition (a configuration of a continuous space never comes twice).
    * A failed training (NaN) is promoted only where there is nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..benchmarks.spaces.base import SearchSpace
from .brackets import BracketSearch, halving_plan, rungs


class SuccessiveHalving(BracketSearch):
    """Brackets of n, n/eta, n/eta**2, ... architectures, each rung trained about eta times as long as the one before.

    Once every architecture of a small space was drawn they repeat, in trainings of their own.

    Args:
        fidelities: epochs that can be asked for, ascending. With a single one this is random search.
        eta: the best 1/eta of a rung go on to the next; above 1.
        configurations: architectures that start in a bracket; None for as many as leave one at the end.
        resume: a promoted training goes on where it stopped; False starts it anew, at the full price.

    Raises:
        ValueError: fidelities that are not ascending numbers from 1, eta not above 1, or configurations below 1.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        fidelities: Sequence[int] = range(1, 13),
        eta: float = 2,
        configurations: int | None = None,
        resume: bool = True,
    ) -> None:
        if configurations is not None and configurations < 1:
            raise ValueError(f"configurations must be at least 1, not {configurations}")
        epochs = rungs(fidelities, eta)
        plan = halving_plan(configurations or math.ceil(eta ** (len(epochs) - 1)), epochs, eta)
        super().__init__(space, rng, [plan], resume=resume)
