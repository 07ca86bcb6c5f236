"""Successive halving: train all a little, the best third three times as long, and so on.

Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016, algorithm 1.
https://arxiv.org/abs/1502.07943
In the form with rungs: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, algorithm 1 (SHA).
https://arxiv.org/abs/1810.05934

    rung k: train what is left to r0 eta^k epochs, keep the best max(1, floor(n_k / eta))

Looks at: validation accuracy. Needs: the whole list of architectures at the start.

Where this file differs from the paper:
    * After the last rung below the full training, what is left is trained in full, however close that rung is to it. If one
      architecture is left earlier, it goes on to the end.
    * A training that diverged (NaN) ranks last. If all that were left diverge in full training, the best of those dropped are
      trained in full, one after the other, until one ends with a number.
    * Of equal accuracies the earlier one in the list is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import Schedule, Trainer


class SuccessiveHalving(Schedule):
    """Halving of the whole list.

    Args:
        rng: not used.
        eta: one in `eta` is kept at each rung, and trained `eta` times as long; from 2.
        r0: epochs of the first rung, from 1.

    Raises:
        ValueError: `eta` or `r0` too small.
    """

    def __init__(self, rng: np.random.Generator, *, eta: int = 3, r0: int = 1) -> None:
        super().__init__(rng)
        check_rungs(eta, r0)
        self.eta, self.r0 = eta, r0

    def search(self, trainer: Trainer) -> None:
        halve(trainer, range(trainer.n), [*rungs(self.r0, self.eta, trainer.max_epochs), trainer.max_epochs], self.eta)


def check_rungs(eta: int, r0: int) -> None:
    """Check the two hyper-parameters that all methods with rungs share.

    Raises:
        ValueError: they are no whole numbers, `eta` is below 2, or `r0` below 1.
    """
    if int(eta) != eta or eta < 2:
        raise ValueError(f"eta is a whole number from 2, not {eta!r}")
    if int(r0) != r0 or r0 < 1:
        raise ValueError(f"r0 is a number of epochs from 1, not {r0!r}")


def rungs(r0: int, eta: int, max_epochs: int) -> tuple[int, ...]:
    """The epochs r0 eta^k below the full training."""
    found, epochs = [], int(r0)
    while epochs < max_epochs:
        found.append(epochs)
        epochs *= int(eta)
    return tuple(found)


def best_first(which: Sequence[int], values: Sequence[float]) -> list[int]:
    """`which` by their values, the highest first, NaN last, equal ones in their order."""
    keys = np.nan_to_num(-np.asarray(values, dtype=np.float64), nan=np.inf)
    return [which[i] for i in np.argsort(keys, kind="stable")]


def accuracies(trainer: Trainer, which: Sequence[int], epochs: int) -> list[float]:
    """Train each up to `epochs` in all, and give its validation accuracy there."""
    return [float(trainer.train(i, epochs).accuracy[0, epochs - 1]) for i in which]


def complete(trainer: Trainer, chosen: Sequence[int], dropped: Sequence[int]) -> None:
    """Train the chosen in full; if all of them diverge, the dropped, one after the other, until one ends with a number."""
    done = not np.isnan(accuracies(trainer, chosen, trainer.max_epochs)).all()
    for i in dropped:
        if done:
            break
        done = not np.isnan(accuracies(trainer, [i], trainer.max_epochs)[0])


def halve(trainer: Trainer, which: Sequence[int], epochs: Sequence[int], eta: int) -> None:
    """Run one bracket.

    Args:
        trainer: trains.
        which: the architectures it starts with; nothing happens if there are none.
        epochs: of each rung, ascending; the last is the full training.
        eta: one in `eta` is kept at each rung but the last.
    """
    left = list(which)
    dropped: list[int] = []  # best first
    for m in epochs[:-1]:
        values = accuracies(trainer, left, m)
        alive = {i for i, value in zip(left, values, strict=True) if not np.isnan(value)}
        ranked = best_first(left, values)
        keep = max(1, len(ranked) // eta)
        left, out = ranked[:keep], ranked[keep:]
        dropped = [i for i in out if i in alive] + dropped
    if left:
        complete(trainer, left, dropped)
