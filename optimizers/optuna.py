"""The samplers of Optuna.

Akiba, Sano, Yanase, Ohta and Koyama, "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD 2019.
https://optuna.org

Every dimension of a space becomes a categorical parameter with the choices 0, ..., n - 1: their order means nothing.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..benchmarks.spaces.base import SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer

_REDRAWS = 100
_UNSUITABLE = {
    "CmaEsSampler": "it has no categorical parameters and would draw at random",
    "QMCSampler": "it has no categorical parameters and would draw at random",
    "GridSampler": "it ends a study by itself, which only Optuna's own loop allows; use grid_search",
    "BruteForceSampler": "it ends a study by itself, which only Optuna's own loop allows; use grid_search",
    "PartialFixedSampler": "it wraps another sampler",
}


class OptunaSampler(Optimizer):
    """Propose what a sampler of Optuna suggests.

    A failed trial (NaN) is told as an accuracy of 0, the worst there is, because Optuna's samplers learn nothing from a failed
    one. In a constrained space a suggestion that is not valid is told as pruned and another one is asked for; after 100 of them
    in a row a random architecture is proposed and told like any other. Architectures may be proposed again.

    Args:
        sampler: name of a class in `optuna.samplers` that takes a seed.
        sampler_parameters: its keyword arguments, without the seed, which is drawn from `rng`.

    Raises:
        ImportError: Optuna is not installed.
        ValueError: no such sampler, one that does not suit architectures, or parameters that it does not take.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        sampler: str = "TPESampler",
        sampler_parameters: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(space, rng)
        self._optuna = optuna = _import_optuna()
        self._names = [f"d{i}" for i in range(len(space.cardinalities))]
        self._distributions = {
            name: optuna.distributions.CategoricalDistribution(tuple(range(n)))
            for name, n in zip(self._names, space.cardinalities, strict=True)
        }
        made = _make_sampler(optuna, sampler, sampler_parameters or {}, int(rng.integers(1 << 32)))
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # "A new study created in memory", once per run
        try:
            self._study = optuna.create_study(direction="maximize", sampler=made)
        finally:
            optuna.logging.set_verbosity(verbosity)
        self._trial: Any = None

    def ask(self) -> Proposal:
        """The first valid suggestion of the sampler."""
        for _ in range(_REDRAWS):
            self._trial = self._study.ask(self._distributions)
            arch = tuple([self._trial.params[name] for name in self._names])
            if self.space.is_valid(arch):
                return Proposal(arch)
            self._study.tell(self._trial, state=self._optuna.trial.TrialState.PRUNED)
        arch = self.space.sample(self.rng)
        self._study.enqueue_trial(dict(zip(self._names, arch, strict=True)))
        self._trial = self._study.ask(self._distributions)
        return Proposal(arch)

    def tell(self, trial: Trial) -> None:
        self._study.tell(self._trial, 0.0 if trial.value != trial.value else float(trial.value))


def _import_optuna() -> Any:
    try:
        return importlib.import_module("optuna")
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ImportError("Optuna is not installed: pip install 'nasharness[optuna]'") from error


def _make_sampler(optuna: Any, name: str, parameters: Mapping[str, Any], seed: int) -> Any:
    if name in _UNSUITABLE:
        raise ValueError(f"Optuna's {name} cannot search a space of architectures: {_UNSUITABLE[name]}")
    classes = {n: vars(optuna.samplers)[n] for n in optuna.samplers.__all__ if n not in _UNSUITABLE}
    known = {n for n, c in classes.items() if inspect.isclass(c) and "seed" in inspect.signature(c).parameters}
    if name not in known:
        raise ValueError(f"Optuna {optuna.__version__} has no sampler {name!r}; it has {', '.join(sorted(known))}")
    if "seed" in parameters:
        raise ValueError("sampler_parameters must not have a seed: it is drawn from the run's generator")
    with warnings.catch_warnings():  # who names an experimental sampler or option wants it
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            return classes[name](seed=seed, **parameters)
        except TypeError as error:
            raise ValueError(f"Optuna's {name} cannot be made from {dict(parameters)!r}: {error}") from error
