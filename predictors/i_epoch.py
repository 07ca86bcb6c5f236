"""i-Epoch: train everything for i epochs and only the best k in full.

Egele, Mohr, Viering and Balaprakash, "The unreasonable effectiveness of early discarding after one epoch in neural network
hyperparameter optimization", Neurocomputing 597, 2024.
https://arxiv.org/abs/2404.04111

    1. train each architecture i epochs    2. train the k with the highest validation accuracy in full

The yardstick of that paper: an early-stopping method is worth as much as it adds to the front of cost and accuracy that
i-Epoch gives for i = 1, 2, 5, ...

Looks at: validation accuracy. Needs: the whole list of architectures at the start.

Where this file differs from the paper:
    * A training that diverged (NaN) ranks last. If all k diverge in full training, the next best are trained in full, one after
      the other, until one ends with a number.
    * Of equal accuracies the earlier one in the list is chosen.
"""

from __future__ import annotations

import numpy as np

from .base import Schedule, Trainer
from .successive_halving import accuracies, best_first, complete


class IEpoch(Schedule):
    """The best k after i epochs.

    Args:
        rng: not used.
        i: epochs that each is trained, from 1; all are trained in full where this is at least the full training.
        k: how many are then trained in full, from 1.

    Raises:
        ValueError: `i` or `k` below 1.
    """

    def __init__(self, rng: np.random.Generator, *, i: int = 1, k: int = 1) -> None:
        super().__init__(rng)
        if i < 1 or k < 1:
            raise ValueError(f"i and k must be at least 1, not {i!r} and {k!r}")
        self.i, self.k = i, k

    def search(self, trainer: Trainer) -> None:
        everything = range(trainer.n)
        values = accuracies(trainer, everything, min(self.i, trainer.max_epochs))
        if self.i >= trainer.max_epochs:
            return
        ranked = best_first(everything, values)
        alive = sum(not np.isnan(value) for value in values)
        if ranked:
            complete(trainer, ranked[: self.k], ranked[self.k : alive])
