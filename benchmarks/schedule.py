"""The settings of one training run; apart from `training.py` so that reading them needs no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Schedule:
    """How a network is trained: stochastic gradient descent with Nesterov momentum and a cosine learning rate.

    The learning rate falls by step, from `learning_rate` at the first to zero after the last.
    """

    epochs: int = 6
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            whole = name in ("epochs", "batch_size")
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise ValueError(f"schedule: {name} must be a {'whole ' if whole else ''}number, not {value!r}")
            if not math.isfinite(value) or value < 0 or (value == 0 and name not in ("momentum", "weight_decay")):
                raise ValueError(f"schedule: {name} must be a positive finite number, not {value!r}")
