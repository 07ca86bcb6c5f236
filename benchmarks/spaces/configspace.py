"""Search spaces as ConfigSpace's, for the tools that read those (SMAC, DEHB, HpBandSter and others).

Lindauer, Eggensperger, Feurer, Biedenkapp, Marben, Müller and Hutter, "BOAH: A Tool Suite for Multi-Fidelity Bayesian
Optimization & Analysis of Hyperparameters", 2019, section 2. https://arxiv.org/abs/1908.06756

    space = to_configspace(NASBench201Space())
    arch = from_configuration(NASBench201Space(), space.sample_configuration())
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from .base import Architecture, InvalidArchitecture, SearchSpace


def to_configspace(space: SearchSpace, seed: int | None = None) -> Any:
    """A `ConfigSpace.ConfigurationSpace` with a categorical d0, d1, ... per dimension, whose choices are 0, ..., n - 1.

    ConfigSpace sorts them as text, d10 before d2, also in its vectors: go by the names, as `from_configuration` does.

    What `is_valid` demands beyond the range of each choice is a test, and ConfigSpace has only lists of forbidden values, so a
    configuration of a constrained space may be invalid: `from_configuration` refuses it.

    Args:
        space: any search space.
        seed: of ConfigSpace's own generator (None: from the operating system).

    Raises:
        ImportError: ConfigSpace is not installed.
    """
    try:
        package: Any = importlib.import_module("ConfigSpace")
    except ModuleNotFoundError as error:
        if error.name != "ConfigSpace":
            raise
        raise ImportError("ConfigSpace is not installed: pip install 'nasharness[configspace]'") from error
    converted = package.ConfigurationSpace(name=space.name, seed=seed)
    converted.add(
        [package.CategoricalHyperparameter(f"d{d}", list(range(n))) for d, n in enumerate(space.cardinalities)]
    )
    return converted


def from_configuration(space: SearchSpace, configuration: Mapping[str, Any]) -> Architecture:
    """The architecture of a configuration of `to_configspace(space)`, which may also be a plain dict.

    Raises:
        InvalidArchitecture: a dimension is missing, there is something else in it, or the space refuses the architecture.
    """
    names = [f"d{d}" for d in range(len(space.cardinalities))]
    given = dict(configuration)
    if given.keys() != set(names):
        raise InvalidArchitecture(
            f"a configuration of {space.name} has {', '.join(names)}, not {', '.join(map(str, given)) or 'nothing'}"
        )
    return space.check([given[name] for name in names])
