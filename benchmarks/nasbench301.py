"""`nasbench301-v1`: the DARTS space with accuracies predicted by NAS-Bench-301's surrogate models. Needs the converted models.

Zela, Siems, Zimmer, Lukasik, Keuper and Hutter, "Surrogate NAS Benchmarks: Going Beyond the Limited Search Spaces of Tabular
NAS Benchmarks", ICLR 2022. https://arxiv.org/abs/2008.09777

Protocol
    The models predict the validation accuracy on CIFAR-10 after 100 epochs (32 channels, 8 cells, 10,000 held-out images).
    A search sees the official noisy prediction: the mean of the ensemble's members plus normal noise with their standard
    deviation, drawn from the search's own generator (without a generator: the mean), clipped to [0, 1]. It pays the mean
    prediction of the runtime model; officially that gets noise too by default, here the cost of an architecture is a fixed
    number. There are no shorter schedules. A report uses the mean prediction: nothing is known of test accuracies, and
    nobody knows the optimum of 10^18 architectures. `model` chooses the ensemble: "xgb" (boosted trees) or "gin" (graph
    networks); the id of the latter is `nasbench301-v1(model='gin')`.

Version history
    v1  The models of version 0.9 or 1.0 as published in 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from .base import Benchmark, Curve, Evaluation, Evaluations, Final, Floats, Info
from .columns import Columns, TableError, open_columns
from .formats.errors import FormatError
from .formats.gin import build_gin
from .gin import GIN
from .spaces.base import Architecture
from .spaces.darts import FEATURE_NAMES, DARTSSpace, count_cost
from .trees import TreeEnsemble

if TYPE_CHECKING:
    from torch import nn

Model = Literal["xgb", "gin"]

ACCURACY_MODELS = ("xgb", "gnn_gin")
RUNTIME_MODEL = "lgb_runtime"
MODELS = (*ACCURACY_MODELS, RUNTIME_MODEL)
"""The official ensembles, by the names of their folders."""
FEATURES = len(FEATURE_NAMES)
MAX_EPOCHS = 100

_COLUMNS_OF: dict[str, str] = {"xgb": "xgb", "gin": "gnn_gin"}
_REMEMBERED = 1 << 17  # architectures whose predictions are kept: some 60 MB
_SPACE = DARTSSpace()

Architectures = Sequence[Architecture] | npt.NDArray[np.integer]


@dataclass(frozen=True)
class Surrogate:
    """An ensemble of models of one kind.

    Attributes:
        name: one of `MODELS`.
        members: the names of the members' folders, in the order of `predict`.
        trees: the members, for boosted trees.
        networks: the members, for graph networks.
    """

    name: str
    members: tuple[str, ...]
    trees: TreeEnsemble | None = None
    networks: tuple[GIN, ...] = ()

    def predict(self, archs: Architectures, features: Floats | None = None) -> npt.NDArray[Any]:
        """What each member says: architectures `(n, 22)` to `(members, n)`.

        Percent (float32) of accuracy models, seconds (float64) of the runtime model. `features` are those of `archs`, where
        they are already known.
        """
        if self.trees is not None:
            return self.trees.predict(_SPACE.features(archs) if features is None else features)
        return np.stack([network.predict(archs) for network in self.networks])

    def check(self) -> None:
        """Read all arrays and check that they belong together.

        Raises:
            FormatError: they do not. (Weights of networks are checked when they are loaded.)
        """
        if self.trees is not None:
            self.trees.check()


def load_surrogate(columns: Columns, name: str) -> Surrogate:
    """One ensemble of a converted file. Trees stay on disk until they are used.

    Raises:
        TableError: the file does not have it, or not as the converter writes it.
    """
    described = columns.metadata.get("models")
    if not isinstance(described, dict) or name not in described:
        there = ", ".join(described) if isinstance(described, dict) else "nothing"
        raise TableError(
            f"{columns.path} lacks the model {name} (it has {there}): convert a folder that holds {name}_v1.0"
        )
    try:
        members = tuple(described[name]["members"])
        if name == "gnn_gin":
            config = described[name]["model_config"]
            networks = []
            for member in range(len(members)):
                prefix = f"{name}.{member}."
                weights = {key.removeprefix(prefix): columns[key] for key in columns if key.startswith(prefix)}
                networks.append(build_gin(weights, config, f"{columns.path}, member {member} of {name}"))
            return Surrogate(name, members, networks=tuple(networks))
        if columns.metadata["features"] != FEATURES:
            raise TableError(f"{columns.path} is about {columns.metadata['features']} features, not {FEATURES}")
        trees = TreeEnsemble.from_columns(
            columns, f"{name}.", left_if="<" if name == "xgb" else "<=", features=FEATURES
        )
        if len(trees.base) != len(members):
            raise TableError(f"{columns.path} has {len(trees.base)} members of {name} but {len(members)} names")
        return Surrogate(name, members, trees)
    except (KeyError, TypeError, FormatError) as error:
        raise TableError(f"{columns.path} is damaged: {error}; convert its source again") from error


class Prediction(NamedTuple):
    """What the models say of architectures; float64 `(n,)`.

    Attributes:
        mean, std: mean and standard deviation of the members, validation accuracy in percent.
        seconds: mean of the runtime members.
    """

    mean: Floats
    std: Floats
    seconds: Floats


class NASBench301(Benchmark):
    """The benchmark over converted models: see the top of this file for its protocol.

    Args:
        columns: an opened file of kind "nasbench301".
        model: the ensemble that predicts accuracies.
        id: default: `nasbench301-v1`, or `nasbench301-v1(model='gin')`.

    Attributes:
        accuracy, runtime: the two ensembles.

    Raises:
        TableError: the file lacks one of them.
        ValueError: an unknown `model`.
    """

    def __init__(self, columns: Columns, *, model: Model = "xgb", id: str | None = None) -> None:
        if model not in get_args(Model):
            raise ValueError(f"unknown model {model!r} of NAS-Bench-301; it has {', '.join(get_args(Model))}")
        self.id = id if id is not None else "nasbench301-v1" if model == "xgb" else f"nasbench301-v1(model={model!r})"
        self.space = _SPACE
        self.max_epochs = MAX_EPOCHS
        self.image_shape = (3, 32, 32)
        self.accuracy = load_surrogate(columns, _COLUMNS_OF[model])
        self.runtime = load_surrogate(columns, RUNTIME_MODEL)
        self._opened = (columns.path, model)
        version = columns.metadata.get("version", "")
        self.info = Info(
            id=self.id,
            source=f"NAS-Bench-301 (Zela et al., ICLR 2022), {self.accuracy.name} models of version {version or 'unknown'}",
            licence="Apache-2.0",
            sha256=columns.sha256,
            version_history="v1: the models as published in 2020",
            caution=f"{self.id} is a surrogate: its accuracies are predictions of models fitted to some 50,000 trained"
            " networks. There is no test accuracy, and the optimum is unknown.",
            details={
                "path": f"{columns.path.resolve()}(model={model!r})",  # by which worker processes load the same
                "model": model,
                "version": version,
                "members": len(self.accuracy.members),
                "runtime_members": len(self.runtime.members),
                "source_sha256": columns.metadata.get("source_sha256", ""),
            },
        )
        self._remembered = lru_cache(maxsize=_REMEMBERED)(self._look_up)
        self._no_curve = np.zeros(0, dtype=np.float32)
        self._no_curve.flags.writeable = False

    def predict(self, archs: Architectures) -> Prediction:
        """What the models say of architectures `(n, 22)`, without any noise.

        Of graph networks the last bits depend on how many architectures are asked about at once, and on the machine.

        Raises:
            InvalidArchitecture: one of them is not in the space.
        """
        features = _SPACE.features(archs)
        accuracies = np.ascontiguousarray(
            self.accuracy.predict(archs, features).T
        )  # means as NumPy takes them of one row
        seconds = np.ascontiguousarray(self.runtime.predict(archs, features).T)
        return Prediction(
            accuracies.mean(axis=1).astype(np.float64),
            accuracies.std(axis=1).astype(np.float64),
            seconds.mean(axis=1),
        )

    def _look_up(self, arch: Architecture) -> tuple[float, float, float]:
        mean, std, seconds = self.predict([self.space.check(arch)])
        return float(mean[0]), float(std[0]), float(seconds[0])

    @property
    def fidelities(self) -> tuple[int, ...]:
        return (MAX_EPOCHS,)

    def query(
        self, arch: Architecture, epochs: int | None = None, rng: np.random.Generator | None = None
    ) -> Evaluation:
        """A noisy prediction: see the top of this file. `curve` is empty: nobody knows it.

        Raises:
            InvalidArchitecture: `arch` is not in the space.
            ValueError: `epochs` is neither None nor 100.
        """
        self._check_epochs(epochs)
        try:
            mean, std, seconds = self._remembered(arch)
        except TypeError:  # a list or an array
            mean, std, seconds = self._remembered(self.space.check(arch))
        if rng is not None:
            mean += std * float(rng.standard_normal())
        return Evaluation(min(max(mean / 100, 0.0), 1.0), seconds, MAX_EPOCHS, self._no_curve)

    def query_many(
        self, archs: Architectures, epochs: int | None = None, rng: np.random.Generator | None = None
    ) -> Evaluations:
        self._check_epochs(epochs)
        mean, std, seconds = self.predict(archs)
        if rng is not None:
            mean = mean + std * rng.standard_normal(len(mean))
        return Evaluations(np.clip(mean / 100, 0, 1), seconds)

    def _check_epochs(self, epochs: int | None) -> None:
        if epochs is not None and (isinstance(epochs, bool) or epochs != MAX_EPOCHS):
            raise ValueError(
                f"{self.id} predicts the result of {MAX_EPOCHS} epochs, not of {epochs!r}: a surrogate has no shorter schedule"
            )

    def final_many(self, archs: Architectures) -> Final:
        """Mean predictions; `test_accuracy` is NaN. Parameters include the auxiliary head (32 channels, 8 cells)."""
        mean, _, seconds = self.predict(archs)
        costs = np.array([count_cost(tuple(int(x) for x in arch)) for arch in archs], dtype=np.float64).reshape(-1, 2)
        return Final(np.clip(mean / 100, 0, 1), np.full(len(mean), np.nan), seconds, costs[:, 0], costs[:, 1])

    def curve(self, arch: Architecture, seed: int | None = None) -> Curve:
        """NaN, but for the validation accuracy and seconds of the last epoch.

        Raises:
            ValueError: a `seed` is given: the models stand for no single training run.
        """
        if seed is not None:
            raise ValueError(f"{self.id} has no training seeds, so none is number {seed!r}")
        final = self.final(arch)
        curves = np.full((5, self.max_epochs), np.nan, dtype=np.float32)
        curves[3, -1], curves[4, -1] = final.val_accuracy, final.seconds
        return Curve(*curves)

    @property
    def optimum(self) -> Final:
        """Unknown: every field is NaN."""
        return Final(*[float("nan")] * 5)

    def network(self, arch: Architecture, **settings: Any) -> nn.Module:
        """See `Benchmark.network`; as it was trained it has 32 channels, 8 cells and the auxiliary head."""
        from .networks.factory import build_network

        return build_network("darts", self.space.check(arch), **settings)

    @property
    def network_settings(self) -> Mapping[str, Any]:
        from .networks.factory import SETTINGS

        return SETTINGS["darts"]

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process maps the file itself.
        return (
            _open,
            (*self._opened, self.id),
            self._state(),
        )


def open_nasbench301(path: Path, *, model: Model = "xgb", id: str | None = None) -> NASBench301:
    """Open a converted file; its trees are mapped, not read.

    Raises:
        TableError: it is missing, damaged, no converted NAS-Bench-301 file, or lacks the model or the runtime model.
        ValueError: an unknown `model`.
    """
    return NASBench301(open_columns(path, kind="nasbench301"), model=model, id=id)


def _open(path: Path, model: Model, id: str) -> NASBench301:
    return open_nasbench301(path, model=model, id=id)
