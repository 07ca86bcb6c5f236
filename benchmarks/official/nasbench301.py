"""The official NAS-Bench-301 API, call for call, on a converted file.

Code written for `nasbench301` (https://github.com/automl/nasbench301) runs with another import:

    from nasharness.benchmarks.official import nasbench301 as nb

    performance_model = nb.load_ensemble("nasbench301.safetensors", "xgb")
    runtime_model = nb.load_ensemble("nasbench301.safetensors", "lgb_runtime")
    rng = np.random.RandomState(5)
    performance_model.predict(config=genotype, representation="genotype", with_noise=True, rng=rng)

Where it differs:
    * `rng` is a `numpy.random.RandomState` of the caller's. The official call draws from NumPy's global generator, which
      loading a model seeds anew; with `RandomState(seed)` the answers are those after `numpy.random.seed(seed)`.
    * `load_ensemble` takes a file and a model's name, not a folder. Members are in the order of the converted file, or in
      that of `order`; officially it is that of the file system, which decides about the last bit of a mean.
    * Boosted trees are summed as XGBoost from version 1.3 on does it; `base_last` gives the sums of 1.0 to 1.2. The official
      code does not say which version it wants; they differ in the last bits.
    * The features of other hyper-parameters than the fixed ones are the official ones, and values outside their range are
      refused, as by ConfigSpace. The representation "BANANAS", which fails officially, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..columns import Columns, TableError, open_columns
from ..nasbench301 import MODELS, Surrogate, load_surrogate
from ..spaces.base import Architecture, InvalidArchitecture
from ..spaces.darts import FEATURE_NAMES, DARTSSpace, Genotype

_SPACE = DARTSSpace()
_CELL = "NetworkSelectorDatasetInfo:darts:"
_EDGE = 0.49999
"""ConfigSpace widens an integer range by this on both sides before it scales it to [0, 1]."""


def _choices(*values: object) -> tuple[str, tuple[object, ...]]:
    return "choices", values


_PARAMETERS: Mapping[str, tuple[Any, ...]] = {
    "CreateImageDataLoader:batch_size": ("log int", 64, 128),
    "ImageAugmentation:augment": _choices(True),
    "ImageAugmentation:autoaugment": _choices(False, True),
    "ImageAugmentation:cutout": _choices(True),
    "ImageAugmentation:cutout_holes": ("int", 1, 3),
    "ImageAugmentation:cutout_length": ("int", 1, 50),
    "ImageAugmentation:fastautoaugment": _choices(False, True),
    "LossModuleSelectorIndices:loss_module": _choices("cross_entropy"),
    _CELL + "auxiliary": _choices(True),
    _CELL + "drop_path_prob": _choices(0.2),
    _CELL + "init_channels": ("int", 1, 10_000),
    _CELL + "layers": ("int", 1, 10_000),
    "NetworkSelectorDatasetInfo:network": _choices("darts"),
    "OptimizerSelector:optimizer": _choices("sgd"),
    "OptimizerSelector:sgd:learning_rate": ("log normal",),
    "OptimizerSelector:sgd:momentum": ("float", 0.1, 0.99),
    "OptimizerSelector:sgd:weight_decay": ("log normal",),
    "SimpleLearningrateSchedulerSelector:cosine_annealing:T_max": ("int", 1, 10_000),
    "SimpleLearningrateSchedulerSelector:cosine_annealing:eta_min": ("float", 0.0, 10_000.0),
    "SimpleLearningrateSchedulerSelector:lr_scheduler": _choices("cosine_annealing"),
    "SimpleTrainNode:batch_loss_computation_technique": _choices("mixup"),
    "SimpleTrainNode:mixup:alpha": ("log float", 0.01, 0.7),
}
"""The parameters that do not describe a cell, with the ranges of the official configspace.json as its loader changes them."""

FIXED_HYPERPARAMETERS: Mapping[str, object] = {
    "CreateImageDataLoader:batch_size": 96,
    "ImageAugmentation:augment": True,
    "ImageAugmentation:autoaugment": False,
    "ImageAugmentation:cutout": True,
    "ImageAugmentation:cutout_holes": 1,
    "ImageAugmentation:cutout_length": 16,
    "ImageAugmentation:fastautoaugment": False,
    "LossModuleSelectorIndices:loss_module": "cross_entropy",
    _CELL + "auxiliary": True,
    _CELL + "drop_path_prob": 0.2,
    _CELL + "init_channels": 32,
    _CELL + "layers": 8,
    "NetworkSelectorDatasetInfo:network": "darts",
    "OptimizerSelector:optimizer": "sgd",
    "OptimizerSelector:sgd:learning_rate": 0.025,
    "OptimizerSelector:sgd:momentum": 0.9,
    "OptimizerSelector:sgd:weight_decay": 0.0003,
    "SimpleLearningrateSchedulerSelector:cosine_annealing:T_max": 100,
    "SimpleLearningrateSchedulerSelector:cosine_annealing:eta_min": 1e-8,
    "SimpleLearningrateSchedulerSelector:lr_scheduler": "cosine_annealing",
    "SimpleTrainNode:batch_loss_computation_technique": "mixup",
    "SimpleTrainNode:mixup:alpha": 0.2,
}
"""What the surrogate models are asked about unless a configuration says otherwise."""


def hyperparameter_feature(name: str, value: object) -> float:
    """The feature of one hyper-parameter, as ConfigSpace 0.4.12 scales it.

    Raises:
        ValueError: there is no such hyper-parameter, or the value is not legal.
    """
    if name not in _PARAMETERS:
        raise ValueError(f"NAS-Bench-301 has no hyper-parameter {name!r}; it has {', '.join(_PARAMETERS)}")
    kind, *limits = _PARAMETERS[name]
    if kind == "choices":
        value = {"True": True, "False": False}.get(value, value) if isinstance(value, str) else value
        for index, choice in enumerate(limits[0]):
            if value == choice and isinstance(value, bool) == isinstance(choice, bool):
                return float(index)
        raise ValueError(f"{name} is {value!r}; its values are {', '.join(map(repr, limits[0]))}")
    whole = "int" in kind
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise ValueError(f"{name} is {value!r}; it must be a number")
    number = float(value)
    if kind == "log normal":
        if not 0 < number < math.inf:
            raise ValueError(f"{name} is {value!r}; it must be positive")
        return math.log(number)
    low, high = limits
    if not low <= number <= high or (whole and number != int(number)):
        raise ValueError(
            f"{name} is {value!r}; it must be {'a whole number' if whole else 'a number'} in {low}..{high}"
        )
    low, high = (low - _EDGE, high + _EDGE) if whole else (low, high)
    if kind.startswith("log"):
        low, high, number = math.log(low), math.log(high), math.log(number)
    return float((number - low) / (high - low))


class Ensemble:
    """A surrogate ensemble with the official `predict`.

    Args:
        surrogate: the members.
        base_last: sum trees as XGBoost 1.0 to 1.2 do, the base score last.

    Attributes:
        members: names of the members' folders, in order.
    """

    def __init__(self, surrogate: Surrogate, *, base_last: bool = False) -> None:
        if base_last and surrogate.name != "xgb":
            raise ValueError(f"base_last is a question of XGBoost; {surrogate.name} has no base score")
        self._surrogate, self._base_last = surrogate, base_last
        self.members = surrogate.members

    def predict_members(
        self, config: Any, representation: Literal["genotype", "configspace"] = "genotype"
    ) -> list[npt.NDArray[Any]]:
        """What each member says, arrays `(1,)`: float32 of accuracy models (percent), float64 of runtimes (seconds).

        Args:
            config: a `Genotype` or any (normal, normal_concat, reduce, reduce_concat); or a mapping of parameters, by full
                names or without `NetworkSelectorDatasetInfo:darts:`. Hyper-parameters in it replace the fixed ones.
            representation: which of the two it is.

        Raises:
            ValueError: the architecture or a hyper-parameter is not legal, or `representation` is unknown.
        """
        arch, changed = self._read(config, representation)
        trees = self._surrogate.trees
        if trees is None:
            predicted = self._surrogate.predict([arch])
        else:
            features = _SPACE.features([arch])
            for name, feature in changed.items():
                features[0, FEATURE_NAMES.index(name)] = feature
            predicted = trees.predict(features, base_last=self._base_last)
        return list(predicted)

    def predict(
        self,
        config: Any,
        representation: Literal["genotype", "configspace"] = "genotype",
        with_noise: bool = True,
        rng: np.random.RandomState | None = None,
    ) -> np.floating[Any]:
        """The mean of the members, with noise of their standard deviation by default, also for runtimes.

        Args:
            config, representation: see `predict_members`.
            with_noise: add the noise.
            rng: draws it, one `normal` a call.

        Returns:
            With noise a float64, without the members' own type.

        Raises:
            ValueError: see `predict_members`; noise is wanted, but no `rng` given.
        """
        if with_noise and rng is None:
            raise ValueError("with_noise draws from a numpy.random.RandomState: pass rng=..., or with_noise=False")
        predicted = self.predict_members(config, representation)
        mean: np.floating[Any] = np.mean(predicted)
        if not with_noise or rng is None:
            return mean
        return np.float64(mean + rng.normal(0, np.std(predicted), 1)[0])

    def _read(self, config: Any, representation: str) -> tuple[Architecture, dict[str, float]]:
        """The architecture, and the features of hyper-parameters."""
        if representation == "genotype":
            return _SPACE.from_genotype(config), {}
        if representation != "configspace":
            raise ValueError(f"unknown representation {representation!r}; it is 'genotype' or 'configspace'")
        if not isinstance(config, Mapping):
            if not hasattr(config, "get_dictionary"):
                raise InvalidArchitecture(f"a configuration is a mapping of parameters, not {config!r}")
            config = config.get_dictionary()
        cells: dict[str, Any] = {}
        changed: dict[str, float] = {}
        for name, value in config.items():
            if str(name).removeprefix(_CELL).startswith(("edge_", "inputs_node_")):
                cells[name] = value
            else:
                full = name if name in _PARAMETERS else f"{_CELL}{name}"
                changed[full] = hyperparameter_feature(full if full in _PARAMETERS else name, value)
        return _SPACE.from_configspace(cells), changed


def load_ensemble(
    source: Path | str | Columns, model: str, *, order: Sequence[str] | None = None, base_last: bool = False
) -> Ensemble:
    """An ensemble of a converted file.

    Args:
        source: the file, or the opened file.
        model: "xgb", "gnn_gin" or "lgb_runtime", as its official folder is called.
        order: the members' folder names in another order, each once. A name may carry more folders in front.
        base_last: see `Ensemble`.

    Raises:
        TableError: the file cannot be used or lacks the model.
        ValueError: an unknown model, or `order` does not name each member once.
    """
    if model not in MODELS:
        raise ValueError(f"unknown model {model!r}; NAS-Bench-301 has {', '.join(MODELS)}")
    if not isinstance(source, Columns):
        if Path(source).is_dir():
            raise TableError(
                f"{source} is a folder of official models: convert it (`nasharness data convert`) and give the result"
            )
        source = open_columns(Path(source), kind="nasbench301")
    surrogate = load_surrogate(source, model)
    if order is not None:
        places = [
            place
            for name in order
            for place, member in enumerate(surrogate.members)
            if name == member or name.endswith(f"/{member}")
        ]
        if sorted(places) != list(range(len(surrogate.members))) or len(order) != len(places):
            raise ValueError(f"order must name each of {', '.join(surrogate.members)} once; it is {', '.join(order)}")
        surrogate = replace(
            surrogate,
            members=tuple(surrogate.members[place] for place in places),
            trees=surrogate.trees.select(places) if surrogate.trees is not None else None,
            networks=tuple(surrogate.networks[place] for place in places) if surrogate.networks else (),
        )
    return Ensemble(surrogate, base_last=base_last)


__all__ = ["FIXED_HYPERPARAMETERS", "Ensemble", "Genotype", "hyperparameter_feature", "load_ensemble"]
