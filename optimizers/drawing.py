"""What the model-based strategies share about a space: drawing what was not told yet, and whether it can be listed."""

from __future__ import annotations

import math
from collections.abc import Container

import numpy as np

from ..benchmarks.spaces.base import Architecture, SearchSpace

TRIES = 100
"""Draws for a new architecture before a known one is taken."""
_ENUMERABLE = 1_000_000  # choice vectors


def sample_new(space: SearchSpace, rng: np.random.Generator, known: Container[Architecture]) -> Architecture:
    """A random architecture whose `space.identity` is not among `known`, if one is found within `TRIES` draws."""
    for _ in range(TRIES):
        arch = space.sample(rng)
        if space.identity(arch) not in known:
            break
    return arch


def can_enumerate(space: SearchSpace, limit: int) -> bool:
    """Tell whether the space has at most `limit` architectures and listing them takes no longer than a few seconds."""
    if type(space).__iter__ is SearchSpace.__iter__ and math.prod(space.cardinalities) > _ENUMERABLE:
        return False
    try:
        return space.size <= limit
    except NotImplementedError:
        return False
