"""Hyperband: successive halving with several first rungs, because nobody knows how soon trainings can be told apart.

Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization", JMLR
18(185), 2018, algorithm 1.
https://arxiv.org/abs/1603.06560

    s_max = floor(log_eta(R / r0));  bracket s = s_max, ..., 0:
        n = ceil((s_max + 1) eta^s / (s + 1)) architectures, and for i = 0, ..., s:
            train floor(n eta^-i) of them to R eta^(i - s) epochs, keep the best

R: the full training. One pass over all brackets costs about (s_max + 1)^2 full trainings if each rung starts anew, less if
trainings are gone on with, which is up to the trainer.

Looks at: validation accuracy. Needs: a list of architectures in random order.

Where this file differs from the paper:
    * Architectures are not drawn but taken from the trainer's list, in its order. The brackets repeat until the list is used up;
      the last one takes what is left of it and keeps at least one at every rung, so that it, too, trains one in full.
    * `r0` is the least number of epochs; the paper's unit of resource is r0 = 1.
    * A number of epochs that is not whole is rounded.
    * Diverged trainings and equal accuracies: as in successive halving here.
"""

from __future__ import annotations

import numpy as np

from .base import Schedule, Trainer
from .successive_halving import check_rungs, halve


class Hyperband(Schedule):
    """Brackets of successive halving over the list until it is used up.

    Args:
        rng: not used.
        eta: one in `eta` is kept at each rung, and trained `eta` times as long; from 2.
        r0: fewest epochs of a first rung, from 1.

    Raises:
        ValueError: `eta` or `r0` too small.
    """

    def __init__(self, rng: np.random.Generator, *, eta: int = 3, r0: int = 1) -> None:
        super().__init__(rng)
        check_rungs(eta, r0)
        self.eta, self.r0 = eta, r0

    def brackets(self, max_epochs: int) -> list[tuple[int, tuple[int, ...]]]:
        """One pass: how many architectures each bracket starts with, and the epochs of its rungs."""
        s_max = 0
        while self.r0 * self.eta ** (s_max + 1) <= max_epochs:  # not by a logarithm, whose last digit may be wrong
            s_max += 1
        found = []
        for s in range(s_max, -1, -1):
            n = -(-(s_max + 1) * self.eta**s // (s + 1))
            found.append((n, tuple(max(1, round(max_epochs / self.eta**j)) for j in range(s, -1, -1))))
        return found

    def search(self, trainer: Trainer) -> None:
        start = 0
        while start < trainer.n:
            for n, epochs in self.brackets(trainer.max_epochs):
                halve(trainer, range(start, min(start + n, trainer.n)), epochs, self.eta)
                start += n
