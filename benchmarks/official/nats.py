"""The API of nats-bench 1.8, and that of nas-bench-201 2.1 where it differs, over a converted table.

For code that was written against the official packages: the same method names and arguments, the same dictionaries, the
same sums in the same order, the same random draws. Accuracies are percent and epochs count from 0, as there. New code should
use `nasharness.load("nasbench201-v1/cifar10")` or `NATSTable`, whose names say which split an accuracy is of.

Where this file differs from the official packages:
    * The official code draws from Python's global generator; here the generator is an argument. With
      `random.Random(seed)` it draws what the official code draws after `random.seed(seed)`.
    * Nothing is printed, so `show` and the `query_info_str_by_*` methods do not exist; there are no trained weights, so
      neither do `get_net_param`, `clear_params` and `reload`.
    * Top-5 accuracies, which no official query returns, are not in the table.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base import Floats
from ..columns import open_columns
from ..nats import FULL, NUM_CLASSES, Group, Measurements, NATSTable
from ..spaces.base import InvalidArchitecture
from ..spaces.nasbench201 import OPERATIONS, unique_string

SIZE_GENOTYPE = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
"""The cell of every network of the size space."""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _numpy_mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _or_none(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


class ResultsCount:
    """One trial: an architecture trained on one dataset under one schedule from one seed."""

    def __init__(self, group: Group, row: int, arch_config: Mapping[str, Any]) -> None:
        self._group, self._row = group, row
        self.name = group.name.split("/")[1]
        self.epochs = group.epochs
        self.seed = int(group.seed[row])
        self.params, self.flop = float(group.params[row]), float(group.flops[row])
        latency = _or_none(group.latency[row])
        self.latency = None if latency is None else [latency]
        self.arch_config = dict(arch_config)
        self.eval_names = [
            name
            for name, measured in group.sets.items()
            if name != "train" and not np.isnan(measured.accuracy[row]).all()
        ]

    def get_total_epoch(self) -> int:
        return self.epochs

    def get_eval_set(self) -> list[str]:
        return self.eval_names

    def get_latency(self) -> float:
        """Seconds for a batch of 256 images; -1 where it was not measured."""
        return -1.0 if self.latency is None else _mean(self.latency)

    def get_train(self, iepoch: int | None = None) -> dict[str, Any]:
        """Training loss and accuracy after an epoch (from 0; None: the last), that epoch's seconds, and all up to it."""
        iepoch = self._check(iepoch)
        return self._info(self._group.sets["train"], iepoch, iepoch)

    def get_eval(self, name: str, iepoch: int | None = None) -> dict[str, Any]:
        """The same on an evaluation set: "x-valid" (also "valid"), "x-test" or "ori-test"."""
        iepoch = self._check(iepoch)
        name = "x-valid" if name == "valid" else name
        key = f"{name}@{iepoch}"
        measured = self._group.sets.get(name)
        if measured is None or name not in self.eval_names:
            if self._timed():
                raise ValueError(f"{key} not in {dict.fromkeys(self._evaluated()).keys()}")
            raise KeyError(key)
        place = measured.place.get(iepoch)
        if place is None or np.isnan(measured.accuracy[self._row, place]):
            raise KeyError(key)
        return self._info(measured, iepoch, place)

    def get_times(self) -> dict[str, float | None]:
        """Seconds of training and of each evaluation set, per epoch and in all."""
        info: dict[str, float | None] = {}
        for name in ("train", *self.eval_names):
            times = self._times(self._group.sets[name])
            info[f"T-{name}@epoch"] = None if times is None else _mean(times)
            info[f"T-{name}@total"] = None if times is None else sum(times)
        return info

    def get_config(self, str2structure: Any = None) -> dict[str, Any]:
        """The configuration that the official model builder takes."""
        config = self.arch_config
        key = "genotype" if "genotype" in config else "arch_str"
        structure = config[key] if str2structure is None else str2structure(config[key])
        if "genotype" in config:
            return {
                "name": config["name"],
                "channels": config["channels"],
                "genotype": structure,
                "num_classes": config["class_num"],
            }
        return {
            "name": "infer.tiny",
            "C": config["channel"],
            "N": config["num_cells"],
            "arch_str" if str2structure is None else "genotype": structure,
            "num_classes": config["class_num"],
        }

    def _check(self, iepoch: int | None) -> int:
        iepoch = self.epochs - 1 if iepoch is None else iepoch
        if iepoch < 0 or iepoch >= self.epochs:
            raise ValueError(f"invalid iepoch={iepoch} < {self.epochs}")
        return iepoch

    def _times(self, measured: Measurements) -> list[float] | None:
        """Seconds of each epoch; None where the file has none."""
        times: list[float] = measured.epoch_seconds[self._row].tolist()
        if np.isnan(times[0]):
            return None
        return times * self.epochs if len(times) == 1 else times

    def _timed(self) -> bool:
        return any(self._times(self._group.sets[name]) is not None for name in self.eval_names)

    def _evaluated(self) -> list[str]:
        return [f"{name}@{epoch}" for name in self.eval_names for epoch in range(self.epochs)]

    def _info(self, measured: Measurements, iepoch: int, place: int) -> dict[str, Any]:
        times = self._times(measured)
        return {
            "iepoch": iepoch,
            "loss": float(measured.loss[self._row, place]),
            "accuracy": float(measured.accuracy[self._row, place]),
            "cur_time": None if times is None else times[iepoch],
            "all_time": None if times is None else sum(times[: iepoch + 1]),
        }


class ArchResults:
    """All trials of one architecture under one schedule."""

    def __init__(
        self, arch_index: int, arch_str: str, results: Mapping[tuple[str, int], ResultsCount], rng: random.Random
    ) -> None:
        self.arch_index, self.arch_str = arch_index, arch_str
        self.all_results = dict(results)
        self.dataset_seed: dict[str, list[int]] = {}
        for dataset, seed in self.all_results:
            self.dataset_seed.setdefault(dataset, []).append(seed)
        self._rng = rng
        self._mean = _mean
        self._fix_costs = True

    def get_dataset_names(self) -> list[str]:
        return list(self.dataset_seed)

    def get_dataset_seeds(self, dataset: str) -> list[int]:
        return list(self.dataset_seed[dataset])

    def query(self, dataset: str, seed: int | None = None) -> ResultsCount | dict[int, ResultsCount]:
        """The trial with this seed, or all trials by seed."""
        if seed is None:
            return {s: self.all_results[(dataset, s)] for s in self.dataset_seed[dataset]}
        return self.all_results[(dataset, seed)]

    def get_total_epoch(self, dataset: str | None = None) -> int:
        return next(r.epochs for (name, _), r in self.all_results.items() if dataset in (None, name))

    def get_latency(self, dataset: str) -> float:
        latencies = [self.all_results[(dataset, seed)].get_latency() for seed in self.dataset_seed[dataset]]
        for seed, latency in zip(self.dataset_seed[dataset], latencies, strict=True):
            if latency <= 0:
                raise ValueError(f"invalid latency of {dataset} with seed={seed} : {latency}")
        return _mean(latencies)

    def get_compute_costs(self, dataset: str) -> dict[str, float | None]:
        """FLOPs and parameters in millions, latency, and mean seconds of training and of each evaluation set."""
        seeds = self.dataset_seed[dataset]
        results = [self.all_results[(dataset, seed)] for seed in seeds]
        latencies = [latency for r in results if (latency := r.get_latency()) > 0]
        info: dict[str, float | None] = {
            "flops": self._mean(self._right([r.flop for r in results], seeds)),
            "params": self._mean(self._right([r.params for r in results], seeds)),
            "latency": self._mean(latencies) if latencies else None,
        }
        times = [r.get_times() for r in results]
        for key in times[0]:
            values = [t[key] for t in times if key in t]
            info[key] = None if values[0] is None else self._mean([v for v in values if v is not None])
        return info

    def _right(self, values: list[float], seeds: list[int]) -> list[float]:
        """Some trials carry the costs of another network; where trials disagree, seed 888 is right."""
        if self._fix_costs and len({f"{value:.5f}" for value in values}) > 1:
            return [values[seeds.index(888)]]
        return values

    def get_metrics(
        self, dataset: str, setname: str, iepoch: int | None = None, is_random: bool | int = False
    ) -> dict[str, Any]:
        """Loss, accuracy and seconds on a set: the mean over trials (False), a random trial (True), or that of a seed."""
        seeds = self.dataset_seed[dataset]
        results = [self.all_results[(dataset, seed)] for seed in seeds]
        infos = [r.get_train(iepoch) if setname == "train" else r.get_eval(setname, iepoch) for r in results]
        if is_random is True:
            return infos[self._rng.randint(0, len(infos) - 1)]
        if is_random is False:
            return {
                key: None if infos[0][key] is None else self._mean([info[key] for info in infos]) for key in infos[0]
            }
        if not isinstance(is_random, int):
            raise ValueError(f"invalid value for is_random: {is_random}")
        if is_random not in seeds:
            raise ValueError(f"can not find random seed ({is_random}) from {seeds}")
        return infos[seeds.index(is_random)]

    def __repr__(self) -> str:
        return f"ArchResults(arch-index={self.arch_index}, arch={self.arch_str}, {len(self.all_results)} runs)"


class NATSBench:
    """The object that `nats_bench.create` returns, for either space.

    Args:
        table: an opened table, or the path of a converted file.
        rng: stands where the official code uses Python's global generator.
    """

    _ALL_DATASETS = ("cifar10", "cifar100", "ImageNet16-120")

    def __init__(self, table: NATSTable | str | Path, *, rng: random.Random) -> None:
        self.table = table if isinstance(table, NATSTable) else NATSTable(open_columns(Path(table), kind="nats"))
        self._space = self.table.space
        self._rng = rng
        self._used_time = 0.0
        self.avaliable_hps = list(self.table.schedules)  # officially spelled so
        present = np.zeros(self._space.size, dtype=bool)
        for group in self.table.groups.values():
            present |= np.diff(group.first) > 0
        self.evaluated_indexes: set[int] = set(np.flatnonzero(present).tolist())

    @property
    def search_space_name(self) -> str:
        return "size" if self.is_size else "topology"

    @property
    def is_size(self) -> bool:
        return self._space.name == "nats_size"

    @property
    def is_topology(self) -> bool:
        return not self.is_size

    @property
    def full_train_epochs(self) -> int:
        return int(FULL[self._space.name])

    @property
    def used_time(self) -> float:
        return self._used_time

    def reset_time(self) -> None:
        self._used_time = 0.0

    def __len__(self) -> int:
        return self._space.size

    def __getitem__(self, index: int) -> str:
        return self.arch(index)

    def arch(self, index: int) -> str:
        """The architecture string at an index."""
        if not 0 <= index < len(self):
            raise IndexError(f"invalid index : {index} vs. {len(self)}.")
        return self._space.to_string(self._space.from_index(index))

    def random(self) -> int:
        """A random index."""
        return self._rng.randint(0, len(self) - 1)

    def query_index_by_arch(self, arch: Any) -> int:
        """The index of an architecture string (or of an object with `tostr`), -1 if it is unknown; an index is itself."""
        if isinstance(arch, int):
            if 0 <= arch < len(self):
                return arch
            raise ValueError(f"Invalid architecture index {arch} vs [0, {len(self)}].")
        text = arch if isinstance(arch, str) else arch.tostr() if hasattr(arch, "tostr") else None
        if text is None:
            return -1
        try:
            found = self._space.from_string(text)
        except InvalidArchitecture:
            return -1
        return self._space.index(found) if self._space.to_string(found) == text else -1

    def query_meta_info_by_index(self, arch_index: int, hp: str = "12") -> ArchResults:
        """All trials of an architecture under a schedule.

        Raises:
            ValueError: no such index, or the file has no trial of it.
            KeyError: no such schedule.
        """
        if arch_index not in self.evaluated_indexes:
            raise ValueError(f"Did not find {arch_index} from arch2infos_dict.")
        groups = [group for name, group in self.table.groups.items() if name.split("/")[0] == hp]
        if not groups:
            raise KeyError(hp)
        text = self.arch(arch_index)
        results = {}
        for group in groups:
            dataset = group.name.split("/")[1]
            classes = NUM_CLASSES[dataset.removesuffix("-valid")]
            for row in group.rows(arch_index):
                trial = ResultsCount(group, row, self._config(text, classes))
                results[(dataset, trial.seed)] = trial
        return self._arch_results(arch_index, text, results)

    def _arch_results(self, index: int, text: str, results: Mapping[tuple[str, int], ResultsCount]) -> ArchResults:
        return ArchResults(index, text, results, self._rng)

    def _config(self, text: str, classes: int) -> dict[str, Any]:
        if self.is_size:
            genotype = SIZE_GENOTYPE
            return {"name": "infer.shape.tiny", "channels": text, "genotype": genotype, "class_num": classes}
        return {"channel": 16, "num_cells": 5, "arch_str": text, "class_num": classes}

    def query_by_index(
        self, arch_index: int, dataname: str | None = None, hp: str = "12"
    ) -> ArchResults | dict[int, ResultsCount]:
        """All trials of an architecture, or those on one dataset by seed."""
        found = self.query_meta_info_by_index(arch_index, hp)
        if dataname is None:
            return found
        if dataname not in found.dataset_seed:
            raise ValueError(f"invalid dataset-names : {dataname}")
        return {seed: found.all_results[(dataname, seed)] for seed in found.dataset_seed[dataname]}

    def query_by_arch(self, arch: Any, hp: str = "12") -> ArchResults | None:
        index = self.query_index_by_arch(arch)
        return None if index == -1 else self.query_meta_info_by_index(index, hp)

    def get_net_config(self, index: int, dataset: str) -> dict[str, Any]:
        for hp in self.avaliable_hps:
            found = self.query_meta_info_by_index(index, hp)
            if dataset in found.dataset_seed:
                return found.all_results[(dataset, found.dataset_seed[dataset][0])].get_config(None)
        raise KeyError(dataset)

    def get_cost_info(self, index: Any, dataset: str, hp: str = "12") -> dict[str, float | None]:
        return self.query_meta_info_by_index(self.query_index_by_arch(index), hp).get_compute_costs(dataset)

    def get_latency(self, index: Any, dataset: str, hp: str = "12") -> float | None:
        return self.get_cost_info(index, dataset, hp)["latency"]

    def statistics(self, dataset: str, hp: str | int) -> dict[int, int]:
        """How many of the architectures in the file have how many trials."""
        if dataset not in ("cifar10-valid", *self._ALL_DATASETS):
            raise ValueError(f"{dataset} not in {['cifar10-valid', *self._ALL_DATASETS]}")
        indexes = sorted(self.evaluated_indexes)
        numbers = np.diff(self.table.group(dataset, hp).first)[indexes]
        return {int(n): int((numbers == n).sum()) for n in np.unique(numbers)}

    def get_more_info(
        self, index: Any, dataset: str, iepoch: int | None = None, hp: str | int = "12", is_random: bool | int = True
    ) -> dict[str, Any]:
        """Losses, accuracies and seconds on the training, validation and test images, and on their mixture `valtest`.

        Args:
            index: index or architecture string.
            dataset: "cifar10-valid", "cifar10", "cifar100" or "ImageNet16-120".
            iepoch: counted from 0; None: the last.
            hp: the schedule. Its default is the 12-epoch one.
            is_random: True: a random trial; False: the mean over trials; a number: the trial with this seed.
        """
        found = self.query_meta_info_by_index(self.query_index_by_arch(index), str(hp))
        if is_random is True:
            is_random = self._rng.choice(found.get_dataset_seeds(dataset))
        train = found.get_metrics(dataset, "train", iepoch, is_random)
        sets = {
            "cifar10-valid": {"valid": "x-valid", "test": "ori-test"},
            "cifar10": {"valid": "x-valid", "test": "ori-test"},
        }.get(dataset, {"valid": "x-valid", "test": "x-test", "valtest": "ori-test"})
        answers: dict[str, dict[str, Any]] = {"train": train}
        for key, name in sets.items():
            try:
                answers[key] = found.get_metrics(dataset, name, iepoch, is_random)
            except (KeyError, ValueError):
                if (dataset, key) == ("cifar10-valid", "valid"):
                    raise
        passes = train["iepoch"] + 1
        info: dict[str, Any] = {}
        for key, answer in answers.items():
            total = answer["all_time"]
            info[f"{key}-loss"], info[f"{key}-accuracy"] = answer["loss"], answer["accuracy"]
            info[f"{key}-per-time"] = None if total is None else total / passes
            info[f"{key}-all-time"] = total
        if self._comments and dataset in ("cifar10-valid", "cifar10"):
            images = "the training images" if dataset == "cifar10-valid" else "the training and validation images"
            info["comment"] = (
                f"trained on {images} of CIFAR-10 for {hp} epochs; test-* is on the test images of CIFAR-10"
            )
        return info

    _comments = True

    def simulate_train_eval(
        self, arch: Any, dataset: str, iepoch: int | None = None, hp: str = "12", account_time: bool = True
    ) -> tuple[float, float | None, float, float]:
        """Validation accuracy, latency, seconds of training plus one validation pass, and all seconds used so far.

        After an epoch at which only the mixture of validation and test images was evaluated (200 epochs, CIFAR-100 and
        ImageNet16-120, not the last), the accuracy is that of the mixture: so does the official code.
        """
        index = self.query_index_by_arch(arch)
        if dataset not in self._ALL_DATASETS:
            raise ValueError(f"Invalid dataset name : {dataset} vs {self._ALL_DATASETS}")
        searched = "cifar10-valid" if dataset == "cifar10" else dataset
        info = self.get_more_info(index, searched, iepoch, hp, is_random=True)
        accuracy = info.get("valid-accuracy")
        if accuracy is not None:
            cost = info["train-all-time"] + info["valid-per-time"]
        else:
            accuracy = info["valtest-accuracy"]
            at_the_end = self.get_more_info(index, dataset, None, hp, is_random=True)
            cost = info["train-all-time"] + at_the_end["valid-per-time"]
        latency = self.get_latency(index, dataset, self._latency_hp(hp))
        if account_time:
            self._used_time += cost
        return accuracy, latency, cost, self._used_time

    @staticmethod
    def _latency_hp(hp: str) -> str:
        return hp

    def find_best(
        self,
        dataset: str,
        metric_on_set: str,
        flop_max: float | None = None,
        param_max: float | None = None,
        hp: str = "12",
    ) -> tuple[int, float | None]:
        """Index and accuracy (mean over trials) of the best architecture in the file under the limits; the first wins ties."""
        name = {"valid": "x-valid", "test": "ori-test" if dataset == "cifar10" else "x-test"}.get(
            metric_on_set, metric_on_set
        )
        if (dataset, metric_on_set) == ("cifar10", "valid"):
            dataset = "cifar10-valid"
        elif dataset not in self._ALL_DATASETS:
            name = metric_on_set
        group = self.table.group(dataset, hp)
        measured = group.sets[name]
        accuracy = group.mean(measured.accuracy[:, measured.place[group.epochs - 1]])
        allowed = ~np.isnan(accuracy)
        for limit, column in ((flop_max, group.flops), (param_max, group.params)):
            if limit is not None:
                allowed &= self._network_costs(group, column) <= limit
        if not allowed.any():
            return -1, None
        best = int(np.argmax(np.where(allowed, accuracy, -np.inf)))
        return best, float(accuracy[best])

    @staticmethod
    def _network_costs(group: Group, column: Floats) -> Floats:
        return group.network_costs(column)

    def get_unique_str(self, arch: Any) -> str:
        """The string that isomorphic cells of the topology space share."""
        if self.is_size:
            raise AttributeError("get_unique_str is about the topology space")
        return unique_string(self._space.from_index(self.query_index_by_arch(arch)))

    @staticmethod
    def str2lists(arch_str: str) -> list[tuple[tuple[str, int], ...]]:
        """Node by node, the (operation, input) pairs of a topology string."""
        nodes = []
        for node in arch_str.split("+"):
            terms = [term.split("~") for term in node.split("|") if term]
            if any(len(term) != 2 for term in terms):
                raise ValueError(f"invalid input in {node}")
            nodes.append(tuple((op, int(source)) for op, source in terms))
        return nodes

    @staticmethod
    def str2matrix(arch_str: str, search_space: Sequence[str] = OPERATIONS) -> Any:
        """`matrix[i, j]`: number of the operation on the edge from node j to node i, float64 `(4, 4)`."""
        matrix = np.zeros((4, 4))
        for target, node in enumerate(NATSBench.str2lists(arch_str), start=1):
            for op, source in node:
                if op not in search_space:
                    raise ValueError(f"this op ({op}) is not in the search space ({list(search_space)})")
                matrix[target, source] = list(search_space).index(op)
        return matrix


class NASBench201(NATSBench):
    """The API of nas-bench-201 2.1: no epoch in `simulate_train_eval`, latencies of the 12-epoch schedule, plain means."""

    _comments = False

    @staticmethod
    def _latency_hp(_: str) -> str:
        return "12"

    @staticmethod
    def _network_costs(group: Group, column: Floats) -> Floats:
        return group.mean(column)

    def _arch_results(self, index: int, text: str, results: Mapping[tuple[str, int], ResultsCount]) -> ArchResults:
        found = super()._arch_results(index, text, results)
        found._mean, found._fix_costs = _numpy_mean, False
        return found

    def simulate_train_eval(  # type: ignore[override]
        self, arch: Any, dataset: str, hp: str = "12", account_time: bool = True
    ) -> tuple[float, float | None, float, float]:
        return super().simulate_train_eval(arch, dataset, None, hp, account_time)

    def find_best(  # the limits are spelled differently there
        self,
        dataset: str,
        metric_on_set: str,
        FLOP_max: float | None = None,  # noqa: N803
        Param_max: float | None = None,  # noqa: N803
        hp: str = "12",
    ) -> tuple[int, float | None]:
        return super().find_best(dataset, metric_on_set, FLOP_max, Param_max, hp)
