"""Searches small enough for a test: 4 x 4 pixels, a network of 4 channels with one cell per stage."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch

from nasharness.benchmarks.spaces.base import SearchSpace
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.harness.testing import MadeUpImages as TinyImages
from nasharness.harness.testing import made_up_task as tiny_task
from nasharness.optimizers.base import SearchFinished, SupernetTask

__all__ = ["TinyImages", "finish", "make", "resumed", "same", "tiny_task"]


def make(
    cls: Any, seed: int = 0, *, space: SearchSpace | None = None, task: SupernetTask | None = None, **given: Any
) -> Any:
    """A method on the tiny task: two epochs, batches of 16, unless told otherwise."""
    given = {"epochs": 2, "batch_size": 16, **given}
    return cls(space or NASBench201Space(), np.random.default_rng(seed), task=task or tiny_task(), **given)


def finish(search: Any) -> list[tuple[int, ...]]:
    """The proposals of the rest of a search."""
    found = []
    while True:
        try:
            found.append(search.ask().arch)
        except SearchFinished:
            return found


def resumed(search: Any, fresh: Any) -> Any:
    """`fresh` with the state of `search`, by way of a file."""
    file = io.BytesIO()
    torch.save(search.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal to the last bit, measured seconds left out."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[k], b[k]) for k in a if k != "seconds")
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
