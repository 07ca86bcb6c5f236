"""Searches small enough for a test: 4 x 4 pixels, a network of 4 channels with one cell per stage."""

from __future__ import annotations

from typing import Any

import numpy as np

from nasharness.benchmarks.spaces.base import SearchSpace
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.harness.testing import MadeUpImages as TinyImages
from nasharness.harness.testing import made_up_task as tiny_task
from nasharness.optimizers.base import SupernetTask

__all__ = ["TinyImages", "make", "tiny_task"]


def make(
    cls: Any, seed: int = 0, *, space: SearchSpace | None = None, task: SupernetTask | None = None, **given: Any
) -> Any:
    """A method on the tiny task: two epochs, batches of 16, unless told otherwise."""
    given = {"epochs": 2, "batch_size": 16, **given}
    return cls(space or NASBench201Space(), np.random.default_rng(seed), task=task or tiny_task(), **given)
