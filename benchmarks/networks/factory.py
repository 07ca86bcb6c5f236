"""From the name of a space to the networks of its architectures."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..spaces.base import Architecture

if TYPE_CHECKING:
    from torch import nn

_IMAGES = {"num_classes": 10, "input_channels": 3}

# Written down here too, so that they can be told without importing torch; a test compares them with the constructors.
SETTINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "nasbench201": MappingProxyType({"channels": 16, "cells": 5, "prune": False, **_IMAGES}),
        "nasbench101": MappingProxyType({"channels": 128, "stacks": 3, "modules": 3, **_IMAGES}),
        "darts": MappingProxyType(
            {"channels": 32, "layers": 8, "auxiliary": True, "stem_multiplier": 3, **_IMAGES},
        ),
        "nats_size": MappingProxyType(_IMAGES),
    }
)
"""The settings of each space's networks with the values of the official benchmark on CIFAR-10 (darts: NAS-Bench-301)."""


def build_network(space_name: str, arch: Architecture, **settings: Any) -> nn.Module:
    """The freshly initialised network of an architecture (initialised from torch's global generator).

    Args:
        space_name: a key of `SETTINGS`.
        arch: an architecture of that space.
        settings: replace those of `SETTINGS`.

    Raises:
        ValueError: an unknown space, or a setting that its networks do not have; the message lists the known ones.
        InvalidArchitecture: `arch` is not in the space.
    """
    if space_name not in SETTINGS:
        raise ValueError(f"there are no networks of the space {space_name!r}, only of {', '.join(SETTINGS)}")
    known = SETTINGS[space_name]
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(
            f"networks of {space_name} have no setting {', '.join(map(repr, unknown))}; they have {', '.join(known)}"
        )
    settings = {**known, **settings}
    if space_name == "nasbench201":
        from .nasbench201 import NASBench201Network

        return NASBench201Network(arch, **settings)
    if space_name == "nasbench101":
        from .nasbench101 import NASBench101Network

        return NASBench101Network(arch, **settings)
    if space_name == "darts":
        from .darts import DARTSNetwork

        return DARTSNetwork(arch, **settings)
    from .nats_size import NATSSizeNetwork

    return NATSSizeNetwork(arch, **settings)
