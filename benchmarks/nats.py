"""NAS-Bench-201 and NATS-Bench: the converted table, and the benchmarks over it.

Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020.
https://arxiv.org/abs/2001.00326
Dong, Liu, Musial and Gabrys, "NATS-Bench: Benchmarking NAS Algorithms for Architecture Topology and Size", TPAMI 2021.
https://arxiv.org/abs/2009.00437

The files know four datasets, and three sets of images to evaluate on whose names hide what they are:

    dataset           trained on             "x-valid"          "x-test"     "ori-test"
    cifar10-valid     half of CIFAR-10       the other half     -            test images
    cifar10           all 50,000             -                  -            test images
    cifar100          all 50,000             half of the test   other half   both halves: a mixture
    ImageNet16-120    all 151,700            half of the test   other half   both halves: a mixture

Here validation, test and their mixture are three quantities with three names, `valid`, `test` and `valtest`, and a question
about one is never answered with another.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from .base import Benchmark, Curve, Evaluation, Evaluations, Final, Floats, Info, best_of
from .columns import Columns, TableError, open_columns
from .spaces.base import Architecture, InvalidArchitecture, SearchSpace
from .spaces.nasbench201 import NASBench201Space, official_positions
from .spaces.nats_size import NATSSizeSpace
from .spaces.subspace import Subspace

if TYPE_CHECKING:
    from torch import nn

Dataset: TypeAlias = Literal["cifar10-valid", "cifar10", "cifar100", "ImageNet16-120"]
Split: TypeAlias = Literal["train", "valid", "test", "valtest"]
SPACES: Mapping[str, type[NASBench201Space | NATSSizeSpace]] = {
    "nasbench201": NASBench201Space,
    "nats_size": NATSSizeSpace,
}
FULL: Mapping[str, str] = {"nasbench201": "200", "nats_size": "90"}
"""The longest schedule of each space: what reports use."""
NUM_CLASSES: Mapping[str, int] = {"cifar10": 10, "cifar100": 100, "ImageNet16-120": 120}
_FLOAT32 = np.dtype(np.float32)
_MIXED = {"valid": "x-valid", "test": "x-test", "valtest": "ori-test"}
_SETS: Mapping[str, Mapping[str, str]] = {
    "cifar10-valid": {"valid": "x-valid", "test": "ori-test"},
    "cifar10": {"test": "ori-test"},
    "cifar100": _MIXED,
    "ImageNet16-120": _MIXED,
}


def official_set(dataset: str, split: str) -> str:
    """The files' name of a split of a dataset.

    Raises:
        ValueError: the dataset has no such split, such as `cifar10`, whose networks were trained on all but the test images.
    """
    if dataset not in _SETS:
        raise ValueError(f"unknown dataset {dataset!r}: choose from {', '.join(_SETS)}")
    if split == "train":
        return "train"
    if split not in _SETS[dataset]:
        known = ", ".join(("train", *_SETS[dataset]))
        hint = "; for validation accuracies ask cifar10-valid" if (dataset, split) == ("cifar10", "valid") else ""
        raise ValueError(f"{dataset} has no split {split!r}; it has {known}{hint}")
    return _SETS[dataset][split]


class Measurements:
    """One set of images (or the training set) in one group of trials.

    Attributes:
        accuracy: percent, `(trials, stored epochs)`; NaN where a trial lacks it.
        loss: as accuracy.
        epoch_seconds: seconds of each epoch's pass, `(trials, epochs)`, or `(trials, 1)` where they are all the same.
        place: column of each stored epoch, counted from 0.
    """

    def __init__(self, columns: Columns, prefix: str, stored: Sequence[int]) -> None:
        self.accuracy = columns[f"{prefix}/accuracy"]
        self.loss = columns[f"{prefix}/loss"]
        self.epoch_seconds = columns[f"{prefix}/seconds"]
        self.place = {int(epoch): i for i, epoch in enumerate(stored)}

    def seconds(self, row: int, epochs: int) -> float:
        """Seconds of the passes of the first `epochs` epochs of a trial, added up one by one as the official API does."""
        times = self.epoch_seconds[row]
        return float(sum([float(times[0])] * epochs if len(times) == 1 else times[:epochs].tolist()))


class Group:
    """All trials of one schedule on one dataset, architecture by architecture.

    Attributes:
        name: such as "200/cifar10-valid".
        epochs: length of the schedule.
        first: rows `first[i]` to `first[i + 1]` are the trials of the architecture at index i, by ascending seed.
        seed: training seed of each row.
        params, flops: of each row, in millions as the file has them.
        latency: seconds of each row for a batch of 256 images; NaN where it was not measured.
        sets: measurements by the files' own set names, "train" among them.
    """

    def __init__(self, columns: Columns, name: str, description: Mapping[str, Any]) -> None:
        self.name = name
        self.epochs = int(description["epochs"])
        self.first = columns[f"{name}/first"]
        self.seed = columns[f"{name}/seed"]
        self.params = columns[f"{name}/params"]
        self.flops = columns[f"{name}/flops"]
        self.latency = columns[f"{name}/latency"]
        self.sets = {"train": Measurements(columns, f"{name}/train", range(self.epochs))}
        for set_name, stored in description["sets"].items():
            self.sets[set_name] = Measurements(columns, f"{name}/{set_name}", stored)

    def rows(self, index: int) -> range:
        return range(int(self.first[index]), int(self.first[index + 1]))

    def seeds(self, index: int) -> list[int]:
        rows = self.rows(index)
        return [int(seed) for seed in self.seed[rows.start : rows.stop]]

    def mean(self, per_trial: npt.NDArray[np.floating]) -> Floats:
        """Mean over the trials of each architecture, `(architectures,)`; NaN where there is none."""
        counts = np.diff(self.first)
        sums = np.zeros(len(counts))
        for k in range(int(counts.max(initial=0))):  # trial by trial, in the order in which the official API adds
            some = counts > k
            sums[some] += per_trial[self.first[:-1][some] + k]
        with np.errstate(invalid="ignore"):
            return sums / counts

    def network_costs(self, column: npt.NDArray[np.float64]) -> Floats:
        """Parameters or FLOPs of each architecture in millions, `(architectures,)`.

        Some trials of the topology files carry those of another network. Where the trials of an architecture disagree
        by more than rounding, the one with seed 888 is right (nats-bench 1.6 and later do the same).
        """
        means = self.mean(column)
        counts = np.diff(self.first)
        several = np.flatnonzero(counts > 1)
        starts, ends = self.first[several], self.first[several + 1] - 1
        spread = np.zeros(len(several), dtype=bool)
        for k in range(1, int(counts.max(initial=0))):
            spread |= np.round(column[np.minimum(starts + k, ends)], 5) != np.round(column[starts], 5)
        for index in several[spread]:
            rows = self.rows(int(index))
            means[index] = next((column[r] for r in rows if self.seed[r] == 888), means[index])
        return means


class NATSTable:
    """Everything that a converted NAS-Bench-201 or NATS-Bench file knows, by explicit name.

    Args:
        columns: opened file of kind "nats".

    Attributes:
        space: the topology or the size space.
        groups: trials by "schedule/dataset".
        schedules: the schedules in the file, such as "12" and "200".
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        metadata = columns.metadata
        if metadata.get("space") not in SPACES:
            raise TableError(f"{columns.path} is a table of the unknown space {metadata.get('space')!r}")
        self.space = SPACES[metadata["space"]]()
        try:
            self.groups = {name: Group(columns, name, text) for name, text in sorted(metadata["groups"].items())}
        except KeyError as error:
            raise TableError(f"{columns.path} is damaged: it lacks {error}") from error
        self.schedules = tuple(sorted({name.split("/")[0] for name in self.groups}))

    def group(self, dataset: str, schedule: str | int) -> Group:
        """The trials of a dataset under a schedule.

        Raises:
            ValueError: the file has none.
        """
        name = f"{schedule}/{dataset}"
        if f"0{name}" in self.groups:  # the size space calls its schedule of one epoch "01", which is no Python number
            name = f"0{name}"
        if name not in self.groups:
            raise ValueError(f"{self.columns.path} has no trials of {name}; it has {', '.join(self.groups)}")
        return self.groups[name]

    def seeds(self, arch: Architecture, dataset: str, schedule: str | int) -> list[int]:
        """The training seeds of an architecture's trials, ascending; empty where the file has none."""
        return self.group(dataset, schedule).seeds(self.space.index(self.space.check(arch)))

    def accuracy(
        self,
        arch: Architecture,
        dataset: str,
        split: Split,
        *,
        schedule: str | int,
        epoch: int | None = None,
        seed: int | None = None,
    ) -> float:
        """Accuracy, a fraction, after `epoch` epochs (1 is the first; None: all) of the trial with this training seed.

        Without a seed it is the mean over the trials.

        Raises:
            ValueError: no such dataset, schedule, split, epoch or seed; or the split was not evaluated at that epoch.
        """
        return self._value("accuracy", arch, dataset, split, schedule, epoch, seed) / 100

    def loss(
        self,
        arch: Architecture,
        dataset: str,
        split: Split,
        *,
        schedule: str | int,
        epoch: int | None = None,
        seed: int | None = None,
    ) -> float:
        """Cross entropy, as `accuracy`."""
        return self._value("loss", arch, dataset, split, schedule, epoch, seed)

    def seconds(
        self,
        arch: Architecture,
        dataset: str,
        split: Split,
        *,
        schedule: str | int,
        epochs: int,
        seed: int | None = None,
    ) -> float:
        """Seconds of the first `epochs` training epochs (`split="train"`), or of one pass over a split after each of them."""
        group, rows = self._rows(arch, dataset, schedule, seed)
        self._check_epoch(group, epochs)
        measured = self._measurements(group, dataset, split)
        return sum(measured.seconds(row, epochs) for row in rows) / len(rows)

    def _value(
        self,
        field: str,
        arch: Architecture,
        dataset: str,
        split: Split,
        schedule: str | int,
        epoch: int | None,
        seed: int | None,
    ) -> float:
        group, rows = self._rows(arch, dataset, schedule, seed)
        epoch = group.epochs if epoch is None else epoch
        self._check_epoch(group, epoch)
        measured = self._measurements(group, dataset, split)
        place = measured.place.get(epoch - 1)
        values = [] if place is None else [float(getattr(measured, field)[row, place]) for row in rows]
        if place is None or any(np.isnan(measured.accuracy[row, place]) for row in rows):
            raise ValueError(
                f"{group.name} has no {split} {field} after epoch {epoch}: it was only measured after"
                f" {_spans([e + 1 for e in measured.place])}" + _hint(dataset, split)
            )
        return sum(values) / len(values)

    def _rows(self, arch: Architecture, dataset: str, schedule: str | int, seed: int | None) -> tuple[Group, list[int]]:
        index = self.space.index(self.space.check(arch))
        group = self.group(dataset, schedule)
        rows, seeds = list(group.rows(index)), group.seeds(index)
        if not rows:
            raise ValueError(f"{self.columns.path} has no trial of {self.space.to_string(arch)} in {group.name}")
        if seed is None:
            return group, rows
        if seed not in seeds:
            raise ValueError(
                f"the training seeds of {self.space.to_string(arch)} in {group.name} are {seeds}, not {seed!r}"
            )
        return group, [rows[seeds.index(seed)]]

    @staticmethod
    def _check_epoch(group: Group, epoch: int) -> None:
        if isinstance(epoch, bool) or not isinstance(epoch, int | np.integer) or not 1 <= epoch <= group.epochs:
            raise ValueError(f"{group.name} has the epochs 1..{group.epochs}, not {epoch!r}")

    @staticmethod
    def _measurements(group: Group, dataset: str, split: str) -> Measurements:
        name = official_set(dataset, split)
        if name not in group.sets:
            raise ValueError(f"{group.name} was not evaluated on {split}")
        return group.sets[name]


def _spans(epochs: Sequence[int]) -> str:
    if not epochs:
        return "no epoch"
    if len(epochs) == epochs[-1] - epochs[0] + 1 > 1:
        return f"epochs {epochs[0]} to {epochs[-1]}"
    return "epoch " + ", ".join(map(str, epochs))


def _hint(dataset: str, split: str) -> str:
    if dataset in ("cifar100", "ImageNet16-120") and split in ("valid", "test"):
        return "; what exists after every epoch is the mixture of both, split='valtest'"
    return ""


class NATSBenchmark(Benchmark):
    """One dataset of a NATS table under the papers' protocol.

    Protocol
        A search sees the validation accuracy of one random trial of the 12-epoch schedule (on CIFAR-10: of `cifar10-valid`,
        trained on half of the training images) and pays its training seconds and one validation pass: what the official
        `simulate_train_eval` answers. After fewer epochs it sees and pays accordingly. A report uses the means over the
        trials of the full schedule (200 epochs, size space 90): validation accuracy of the network that was validated, test
        accuracy of the network that was trained on all training images. Where a file lacks some of the space, `space` is
        what it has.

    Args:
        table: opened.
        dataset: "cifar10", "cifar100" or "ImageNet16-120".
        id: versioned id.
        schedule: what a search trains; by default "12". Under "200" only CIFAR-10 has validation accuracies before the
            end: elsewhere the files mix validation and test images, and the mixture is not handed to a search.
        interpolation: how reports read the incumbent between two trials: "step", or "linear" as the scripts of NATS-Bench.

    Version history
        v1  NATS-Bench topology v1_0, or NAS-Bench-201 v1_1 / v1_0; NATS-Bench size v1_0.
    """

    metrics = ("params", "flops", "latency")

    def __init__(
        self,
        table: NATSTable,
        dataset: str,
        *,
        id: str,
        schedule: str | int = "12",
        interpolation: Literal["step", "linear"] = "step",
    ) -> None:
        if dataset not in NUM_CLASSES:
            raise ValueError(f"unknown dataset {dataset!r}: choose from {', '.join(NUM_CLASSES)}")
        if interpolation not in get_args(Literal["step", "linear"]):
            raise ValueError(f"interpolation is 'step' or 'linear', not {interpolation!r}")
        self.id = id
        self.table = table
        self.dataset = dataset
        self.interpolation = interpolation
        self.image_shape = (3, 16, 16) if dataset == "ImageNet16-120" else (3, 32, 32)
        # The validated networks of CIFAR-10 are those that were trained on half of its training images.
        self._validated = "cifar10-valid" if dataset == "cifar10" else dataset
        full = FULL[table.space.name]
        try:
            self._group = table.group(self._validated, schedule)
            self._final_groups = table.group(self._validated, full), table.group(dataset, full)
        except ValueError as error:
            raise TableError(f"{id}: {error}") from error
        self.schedule = self._group.name.partition("/")[0]
        self.max_epochs = self._group.epochs
        for name in ("train", "x-valid"):
            if name not in self._group.sets or np.isnan(self._group.sets[name].epoch_seconds).any():
                raise TableError(
                    f"{id}: {table.columns.path} does not say how long an epoch on {name} takes in {self._group.name}, so a"
                    " search would not know what it costs"
                )
        # Sampling, mutation and neighbours stay within what can be answered, both to a search and in a report.
        complete = np.all([np.diff(g.first) > 0 for g in (self._group, *self._final_groups)], axis=0)
        self._known = complete[_index_of_rank(table.space.name)]
        self.space: SearchSpace = table.space
        caution = ""
        if not self._known.all():
            ranks = np.flatnonzero(self._known).tolist()
            if not ranks:
                raise TableError(
                    f"{id}: {table.columns.path} has no architecture with trials of all that a study needs"
                )
            self.space = Subspace(table.space, map(table.space.unrank, ranks), checked=True)
            caution = self.space.caution
        metadata = table.columns.metadata
        self.info = Info(
            id=id,
            source=f"{metadata['source']} (sha256 {metadata['source_sha256'][:12]})",
            licence="MIT",
            sha256=table.columns.sha256,
            version_history="v1: NATS-Bench v1_0 / NAS-Bench-201 v1_1 or v1_0",
            caution=caution,
            details={"schedule": self.schedule, "dataset": dataset},
        )
        first = self._group.first
        by_rank = np.stack((first[:-1], np.diff(first)), axis=1)[_index_of_rank(table.space.name)]
        self._first_row, self._count = by_rank[:, 0].astype(np.int64), by_rank[:, 1].astype(np.float64)
        # By architecture, first row and number of trials: one look-up is much faster than indexing arrays.
        every = itertools.product(*map(range, self.space.cardinalities))
        self._gathered: dict[int, tuple[Floats, Floats]] = {}
        self._trials: dict[Architecture, tuple[int, int]] = dict(zip(every, map(tuple, by_rank.tolist()), strict=True))

    @functools.cached_property
    def _columns(self) -> tuple[Floats, Floats]:
        """Validation accuracy, a fraction, and seconds to get it, after each epoch: `(trials, epochs)` each."""
        valid, train = self._group.sets["x-valid"], self._group.sets["train"]
        accuracy = np.full((len(self._group.seed), self.max_epochs), np.nan)
        accuracy[:, list(valid.place)] = valid.accuracy[:, list(valid.place.values())] / 100
        passes = np.arange(1, self.max_epochs + 1)
        shape = accuracy.shape
        one_pass = np.cumsum(np.broadcast_to(valid.epoch_seconds, shape), axis=1) / passes
        seconds = np.cumsum(np.broadcast_to(train.epoch_seconds, shape), axis=1) + one_pass
        return accuracy, seconds

    @functools.cached_property
    def _answers(self) -> tuple[list[float], list[float], bytes, int]:
        """Values and costs of the whole schedule by trial, and the curves' bytes with the length of one."""
        accuracy, seconds = self._columns
        width = 4 * self.max_epochs
        return accuracy[:, -1].tolist(), seconds[:, -1].tolist(), accuracy.astype(np.float32).tobytes(), width

    @property
    def fidelities(self) -> tuple[int, ...]:
        return tuple(sorted(epoch + 1 for epoch in self._group.sets["x-valid"].place))

    def query(
        self, arch: Architecture, epochs: int | None = None, rng: np.random.Generator | None = None
    ) -> Evaluation:
        try:
            row, count = self._trials[arch]
        except (KeyError, TypeError):  # not in the space, or not a tuple
            row, count = self._trials[self.table.space.check(arch)]
        if count == 0:
            raise self._missing(arch)
        if rng is not None and count > 1:
            row += int(rng.random() * count)
        values, costs, curves, width = self._answers
        if epochs is None or epochs == self.max_epochs:
            # From a copy of the bytes: read-only, and without a way to what other trials reached.
            curve = np.frombuffer(curves[row * width : row * width + width], _FLOAT32)
            return Evaluation(values[row], costs[row], self.max_epochs, curve)
        self._check_epochs(epochs)
        accuracy, seconds = self._columns
        curve = np.frombuffer(curves[row * width : row * width + 4 * epochs], _FLOAT32)
        return Evaluation(float(accuracy[row, epochs - 1]), float(seconds[row, epochs - 1]), int(epochs), curve)

    def _check_epochs(self, epochs: int) -> None:
        if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer) or not 1 <= epochs <= self.max_epochs:
            raise ValueError(f"epochs must be a whole number in 1..{self.max_epochs} for {self.id}, not {epochs!r}")
        stored = self._group.sets["x-valid"].place
        if epochs - 1 not in stored:
            raise ValueError(
                f"{self.id} has no validation accuracy after epoch {epochs}, only after"
                f" {_spans([e + 1 for e in stored])}{_hint(self._validated, 'valid')} (benchmark.table.accuracy)"
            )

    def query_many(
        self,
        archs: Sequence[Architecture] | npt.NDArray[np.integer],
        epochs: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> Evaluations:
        epochs = self.max_epochs if epochs is None else epochs
        self._check_epochs(epochs)
        ranks = self.table.space.ranks(archs)
        counts, rows = self._count[ranks], self._first_row[ranks]
        if not counts.all():
            raise self._missing(self.space.unrank(int(ranks[counts == 0][0])))
        if rng is not None:
            rows = rows + (rng.random(len(rows)) * counts).astype(np.int64)
        values, costs = self._by_epoch(epochs)
        return Evaluations(values[rows], costs[rows])

    def _missing(self, arch: Architecture) -> InvalidArchitecture:
        text = self.table.space.to_string(arch)
        return InvalidArchitecture(f"{self.table.columns.path} has no trial of {text} in {self._group.name}")

    def _by_epoch(self, epochs: int) -> tuple[Floats, Floats]:
        """Columns of `_columns`, contiguous, for fast gathering."""
        if epochs not in self._gathered:
            accuracy, seconds = self._columns
            last = epochs - 1
            self._gathered[epochs] = np.ascontiguousarray(accuracy[:, last]), np.ascontiguousarray(seconds[:, last])
        return self._gathered[epochs]

    @functools.cached_property
    def _finals(self) -> Final:
        """`Final` of every architecture by lexicographic rank, each field float64 `(architectures,)`."""
        validated, trained = self._final_groups
        tested = trained.sets[official_set(self.dataset, "test")]
        valid, train = validated.sets["x-valid"], validated.sets["train"]
        seconds = np.broadcast_to(train.epoch_seconds, (len(validated.seed), validated.epochs)).sum(axis=1)
        last = trained.epochs - 1
        fields = (
            validated.mean(valid.accuracy[:, valid.place[last]]) / 100,
            trained.mean(tested.accuracy[:, tested.place[last]]) / 100,
            validated.mean(seconds),
            np.round(1e6 * trained.network_costs(trained.params)),
            np.round(1e6 * trained.network_costs(trained.flops)),
        )
        order = _index_of_rank(self.table.space.name)
        return Final(*(field[order] for field in fields))

    def _known_ranks(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Ranks of architectures that a report can be about."""
        ranks = self.table.space.ranks(archs)
        if not self._known[ranks].all():
            self.space.check(self.space.unrank(int(ranks[~self._known[ranks]][0])))  # says which one
        return ranks

    def final_many(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> Final:
        ranks = self._known_ranks(archs)
        return Final(*(field[ranks] for field in self._finals))

    def metric(self, name: str, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> Floats:
        if name != "latency":
            return super().metric(name, archs)
        group = self._final_groups[1]
        return group.mean(group.latency)[_index_of_rank(self.table.space.name)][self._known_ranks(archs)]

    @functools.cached_property
    def _optimum(self) -> Final:
        return best_of(Final(*(field[self._known] for field in self._finals)))

    @property
    def optimum(self) -> Final:
        return self._optimum

    def seeds(self, arch: Architecture) -> list[int]:
        """The training seeds of an architecture's trials, ascending, as `curve` takes them."""
        return self.table.seeds(arch, self._validated, self.schedule)

    def curve(self, arch: Architecture, seed: int | None = None) -> Curve:
        """The learning curve of the trial with this training seed, such as 777 (None: the mean over the trials).

        Validation is NaN after epochs at which the validation images alone were not evaluated.
        """
        index = self.table.space.index(self.table.space.check(arch))
        rows, seeds = self._group.rows(index), self._group.seeds(index)
        if not rows:
            raise self._missing(arch)
        if seed is not None and seed not in seeds:
            raise ValueError(f"the training seeds of {self.table.space.to_string(arch)} are {seeds}, not {seed!r}")
        chosen = list(rows) if seed is None else [rows[seeds.index(seed)]]
        valid, train = self._group.sets["x-valid"], self._group.sets["train"]
        val_loss = np.full((len(chosen), self.max_epochs), np.nan)
        val_loss[:, list(valid.place)] = valid.loss[chosen][:, list(valid.place.values())]
        accuracy, seconds = self._columns
        fields = (train.loss[chosen], train.accuracy[chosen] / 100, val_loss, accuracy[chosen], seconds[chosen])
        return Curve(*(np.mean(field, axis=0).astype(np.float32) for field in fields))

    def __reduce__(self) -> tuple[Any, ...]:
        again = functools.partial(
            open_nats, id=self.id, schedule=self.schedule, interpolation=self.interpolation
        )  # another process maps the file itself
        return again, (self.table.columns.path, self.dataset), self._state()

    def network(self, arch: Architecture, **settings: Any) -> nn.Module:
        from .networks.factory import build_network

        return build_network(self.table.space.name, arch, **{**self.network_settings, **settings})

    @property
    def network_settings(self) -> Mapping[str, Any]:
        from .networks.factory import SETTINGS

        return {**SETTINGS[self.table.space.name], "num_classes": NUM_CLASSES[self.dataset]}

    def mixture(self, choices: Sequence[Sequence[int]], **settings: Any) -> nn.Module:
        """See `Benchmark.mixture`; small networks unless told otherwise, see `networks/mixtures.py`."""
        if not isinstance(self.table.space, NASBench201Space):
            return super().mixture(choices, **settings)
        from .networks.mixtures import build_mixture

        return build_mixture(choices, **{"num_classes": NUM_CLASSES[self.dataset], **settings})


@functools.cache
def _index_of_rank(space: str) -> npt.NDArray[np.int64]:
    """Position in the official files of the architecture at each lexicographic rank."""
    if space == "nasbench201":
        return np.array(official_positions(), dtype=np.int64)
    return np.arange(SPACES[space]().size)  # the size space is numbered in that order


def open_nats(
    path: Path,
    dataset: str,
    *,
    id: str,
    schedule: str | int = "12",
    interpolation: Literal["step", "linear"] = "step",
) -> NATSBenchmark:
    """Open one dataset of a converted file.

    Raises:
        TableError: the file is missing, damaged or foreign, or lacks the dataset or schedule.
    """
    table = NATSTable(open_columns(path, kind="nats"))
    return NATSBenchmark(table, dataset, id=id, schedule=schedule, interpolation=interpolation)
