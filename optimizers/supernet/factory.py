"""From a space to its supernet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...benchmarks.spaces.base import SearchSpace
from .network import Supernet


def build_supernet(space: SearchSpace, settings: Mapping[str, Any], **options: Any) -> Supernet:
    """A freshly initialised supernet (initialised from torch's global generator).

    Args:
        space: nasbench201 or darts.
        settings: of the stand-alone networks, as `Benchmark.network_settings` has them.
        options: of the supernet's class, such as `affine` and `partial`.

    Raises:
        ValueError: there is no supernet of this space.
    """
    if space.name == "darts":
        from .darts import DARTSSupernet

        return DARTSSupernet(space, settings, **options)
    from .nasbench201 import NASBench201Supernet

    return NASBench201Supernet(space, settings, **options)
