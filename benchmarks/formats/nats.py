"""The official files of NAS-Bench-201 and NATS-Bench.

Four forms hold the same thing, the state of each architecture under each training schedule:

    NATS-*-simple/NNNNNN.pickle.pbz2 and meta.pickle.pbz2    one file per architecture
    NATS-*.pickle.pbz2                                       all in one pickle
    NAS-Bench-201-v1_*.pth                                   all in one pickle, inside torch.save; schedules "full" and "less"

The last two take some 30 GB when they are simply loaded. `stream_architectures` hands each architecture over as soon as it
is complete and forgets it. `parse_states` checks everything against the search space: what it does not know is refused.

Dong and Yang, ICLR 2020. https://arxiv.org/abs/2001.00326 - Dong, Liu, Musial and Gabrys, TPAMI 2021.
https://arxiv.org/abs/2009.00437
"""

from __future__ import annotations

import bz2
import io
import re
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from ..spaces.nasbench201 import NASBench201Space
from ..spaces.nats_size import NATSSizeSpace
from .errors import FormatError
from .torch_file import plain_stream
from .unpickle import PLAIN, BulkUnpickler, Window, describe, guarded

Floats = npt.NDArray[np.float64]
Form: TypeAlias = Literal["folder", "pickle", "torch"]

SPACES: Mapping[str, NASBench201Space | NATSSizeSpace] = {
    space.name: space for space in (NASBench201Space(), NATSSizeSpace())
}
SCHEDULES: Mapping[str, Mapping[str, int]] = {
    "nasbench201": {"12": 12, "200": 200},
    "nats_size": {"01": 1, "12": 12, "90": 90},
}
"""Epochs of each training schedule of each space."""
NUM_CLASSES: Mapping[str, int] = {"cifar10-valid": 10, "cifar10": 10, "cifar100": 100, "ImageNet16-120": 120}
SETS = ("x-valid", "x-test", "ori-test")
"""The sets of images on which trained networks were evaluated, under the files' own names."""

_OLD_SCHEDULES = {"less": "12", "full": "200"}  # as the .pth files call them
_SCHEDULE_NAMES = frozenset([*_OLD_SCHEDULES, *(name for names in SCHEDULES.values() for name in names)])
_STATE_KEYS = frozenset(["arch_index", "arch_str", "all_results", "dataset_seed", "clear_net_done"])
_RESULT_KEYS = frozenset(
    {"name", "seed", "epochs", "params", "flop", "latency", "arch_config", "net_state_dict"}
    | {"train_acc1es", "train_acc5es", "train_losses", "train_times"}
    | {"eval_names", "eval_acc1es", "eval_losses", "eval_times"}
)
_META_KEYS = frozenset(["meta_archs", "total_archs", "arch2infos", "evaluated_indexes"])
_CONFIG_KEYS = frozenset(["name", "channel", "channels", "num_cells", "arch_str", "genotype", "class_num"])
_FILE_NAME = re.compile(r"([0-9]{1,6})\.pickle\.pbz2")
_ARCHITECTURE_LIMIT = 1 << 26  # bytes of pickle; real ones have 0.1 to 0.9 million


@dataclass(frozen=True, eq=False)
class EvaluationCurve:
    """How a network did on one set of images during its training.

    Attributes:
        epochs: the stored ones, ascending, int64 `(k,)`; 0 is the first.
        accuracy: percent `(k,)`.
        loss: `(k,)`.
        seconds: of one pass after each epoch, stored or not, `(epochs,)`; None where the file has no times.
    """

    epochs: npt.NDArray[np.int64]
    accuracy: Floats
    loss: Floats
    seconds: Floats | None


@dataclass(frozen=True, eq=False)
class Trial:
    """One training run of an architecture. Top-5 accuracies are left out.

    Attributes:
        dataset, seed: what was trained on, and the run's seed.
        epochs: length of the run.
        train_accuracy, train_loss: percent and loss of each epoch, `(epochs,)`.
        train_seconds: of each epoch, `(epochs,)`; None in the schedule "200" of version 1.0.
        evaluations: by name of the set (see `SETS`).
        params, flops: in millions, as in the file.
        latency: seconds of single batches; may be empty.
    """

    dataset: str
    seed: int
    epochs: int
    train_accuracy: Floats
    train_loss: Floats
    train_seconds: Floats | None
    evaluations: Mapping[str, EvaluationCurve]
    params: float
    flops: float
    latency: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class State:
    """All trials of an architecture under one schedule.

    Attributes:
        space: name of the search space.
        index: position of the architecture in the official files.
        text: its official string.
        schedule: a key of `SCHEDULES[space]`.
        trials: by dataset, each in the order of the file's list of seeds.
    """

    space: str
    index: int
    text: str
    schedule: str
    trials: Mapping[str, tuple[Trial, ...]]


@dataclass(frozen=True)
class Meta:
    """What a benchmark file says about itself.

    Attributes:
        space: name of the search space.
        total: number of architectures of the space.
        indexes: architectures that the file holds, ascending; empty for the meta file of a folder, which does not know.
    """

    space: str
    total: int
    indexes: tuple[int, ...]


def find_form(path: Path) -> Form:
    """Tell the form of a benchmark from its first bytes.

    Raises:
        FormatError: it is none of the known forms.
        OSError: it cannot be read.
    """
    if path.is_dir():
        return "folder"
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"BZh"):
        return "pickle"
    if start.startswith((b"PK\x03\x04", b"\x80\x02\x8a\x0a")):
        return "torch"
    raise FormatError(
        f"{path.name} is no NATS-Bench or NAS-Bench-201 file: expected a folder of NNNNNN.pickle.pbz2,"
        f" a NATS-*.pickle.pbz2 or a NAS-Bench-201-*.pth (an unpacked one: unpack a .tar first)"
    )


def list_folder(folder: Path) -> dict[int, Path]:
    """The per-architecture files of a folder by index, ascending; names may be padded with zeros or not.

    Raises:
        FormatError: it has none, or two for one architecture.
    """
    files: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if match := _FILE_NAME.fullmatch(path.name):
            if int(match[1]) in files:
                raise FormatError(f"{folder.name} has two files of architecture {int(match[1])}; remove one")
            files[int(match[1])] = path
    if not files:
        raise FormatError(f"{folder.name} has no files named NNNNNN.pickle.pbz2")
    return dict(sorted(files.items()))


def read_architecture(path: Path, data: bytes | None = None) -> dict[str, State]:
    """Read one `NNNNNN.pickle.pbz2`.

    Args:
        path: the file; its name tells which architecture it must hold.
        data: its content where the caller has read it already.

    Returns:
        The states by schedule.

    Raises:
        FormatError: it is damaged, hostile, or not what its name says.
    """
    match = _FILE_NAME.fullmatch(path.name)
    if match is None:
        raise FormatError(f"{path.name} is not named NNNNNN.pickle.pbz2")
    raw = _read_compressed(path.read_bytes() if data is None else data, path.name)
    return parse_states(raw, path.name, index=int(match[1]))


def read_meta(path: Path) -> Meta:
    """Read the `meta.pickle.pbz2` of a folder.

    Raises:
        FormatError: it is damaged, hostile, or lists other architectures than the space has.
    """
    meta = _parse_meta(_read_compressed(path.read_bytes(), path.name), path.name)
    if meta["arch2infos"] is not None:
        raise FormatError(f"{path.name}: a meta file holds no architectures, this one does")
    return Meta(meta["space"], meta["total_archs"], ())


def stream_architectures(path: Path, visit: Callable[[dict[str, State]], None]) -> Meta:
    """Read a file that holds all architectures in one pickle, in memory that does not grow with their number.

    Args:
        path: a `NATS-*.pickle.pbz2` or a `NAS-Bench-201-*.pth`.
        visit: called with the states of each architecture by schedule, in the order of the file. The file as a whole is
            only known to be good when this function returns.

    Raises:
        FormatError: it is damaged, hostile, or not as expected.
    """
    where = path.name
    if (form := find_form(path)) == "torch":
        with plain_stream(path, limit=_ARCHITECTURE_LIMIT) as window:
            return _stream(window, where, visit)
    if form == "pickle":
        with bz2.open(path) as file:
            window = Window(file.read, limit=_ARCHITECTURE_LIMIT, where=where)
            meta = _stream(window, where, visit)
            if guarded(lambda: window.ahead(1), where):
                raise FormatError(f"{where} goes on after its end")
            return meta
    raise FormatError(f"{where} is a folder; read its files one by one")


def _read_compressed(data: bytes, where: str) -> Any:
    def load() -> Any:
        window = Window(bz2.BZ2File(io.BytesIO(data)).read, limit=_ARCHITECTURE_LIMIT, where=where)
        unpickler = BulkUnpickler(window, encoding="latin1")
        unpickler.allowed, unpickler.where = PLAIN, where
        value = unpickler.load()
        if window.ahead(1):
            raise FormatError(f"{where} goes on after its end")
        return value

    return guarded(load, where)


class _Visiting(BaseException):
    """Carries an error of the caller's `visit` past the handling of damaged files."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _stream(window: Window, where: str, visit: Callable[[dict[str, State]], None]) -> Meta:
    unpickler = _ArchitectureUnpickler(window, encoding="latin1")
    unpickler.allowed, unpickler.where, unpickler.visit = PLAIN, where, visit
    try:
        raw = guarded(unpickler.load, where)
    except _Visiting as visiting:
        raise visiting.error from None
    meta = _parse_meta(raw, where)
    infos = meta["arch2infos"]
    if not isinstance(infos, dict) or not infos:
        raise FormatError(f"{where} holds no architectures")
    for index, info in infos.items():
        if type(index) is not int or not isinstance(info, dict) or _DONE not in info:
            raise FormatError(f"{where}: {describe(index)} among the architectures holds no training results")
        if info[_DONE] != (meta["space"], index):
            raise FormatError(f"{where}: architecture {describe(info[_DONE])} is stored under index {index}")
    if set(meta["evaluated_indexes"]) != set(infos):
        raise FormatError(f"{where}: the list of evaluated indexes does not fit the architectures")
    return Meta(meta["space"], meta["total_archs"], tuple(sorted(infos)))


_DONE = object()
"""The only key of an architecture's dict once it has been handed over."""


class _Memo(dict[int, Any]):
    """A memo whose old entries take a few bytes each: shared strings by number, in ascending order of their place.

    Attributes:
        outside: entries that belong to no architecture.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outside: dict[int, Any] = {}
        self._places = array("Q")
        self._numbers = array("L")
        self._words: list[str] = []
        self._number_of: dict[str, int] = {}

    def keep(self, place: int, word: str) -> None:
        if self._places and place <= self._places[-1]:
            self.outside[place] = word
            return
        number = self._number_of.setdefault(word, len(self._words))
        if number == len(self._words):
            self._words.append(word)
        self._places.append(place)
        self._numbers.append(number)

    def __missing__(self, place: int) -> Any:
        if place in self.outside:
            return self.outside[place]
        at = bisect_left(self._places, place)
        if at < len(self._places) and self._places[at] == place:
            return self._words[self._numbers[at]]
        raise KeyError(place)


class _ArchitectureUnpickler(BulkUnpickler):
    """Hands over each {schedule: state} dict the moment its items are set, empties it and forgets what it was made of.

    What later architectures may refer to are strings that the writing program shared, such as dataset names; curves' keys
    ("x-valid@0") and the architecture's own string are not among them.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(BulkUnpickler.dispatch)
    visit: Callable[[dict[str, State]], None]
    memo: _Memo

    def __init__(self, window: Window, **options: Any) -> None:
        super().__init__(window, **options)
        self.memo = _Memo()

    def store(self, target: Any, keys: list[Any], values: list[Any]) -> None:
        if isinstance(target, dict) and _DONE in target:
            raise FormatError(f"{self.where}: architecture {describe(target[_DONE][1])} comes in pieces")
        super().store(target, keys, values)
        if keys and type(keys[0]) is str and keys[0] in _SCHEDULE_NAMES and isinstance(values[0], dict):
            states = parse_states(target, self.where)
            state = next(iter(states.values()))
            try:
                self.visit(states)
            except Exception as error:
                raise _Visiting(error) from error
            target.clear()
            target[_DONE] = (state.space, state.index)
            self._forget(target, state.text)
            self.reader.renew()

    def _forget(self, architecture: object, text: str) -> None:
        memo = self.memo
        inside = False
        for place, value in memo.items():
            if value is architecture:
                inside = True
            elif not inside:
                memo.outside[place] = value
            elif type(value) is str:
                if "@" not in value and value != text and len(value) <= 200 and value.isascii() and value.isprintable():
                    memo.keep(place, value)
            elif type(value) not in (dict, OrderedDict, list, tuple, set, float, int, bytes):
                memo.outside[place] = value  # the stand-ins
        self.dropped += len(memo)
        memo.clear()


@cache
def _official_strings(space: str) -> list[str]:
    return [SPACES[space].to_string(SPACES[space].from_index(i)) for i in range(SPACES[space].size)]


@cache
def _official_indexes(space: str) -> dict[str, int]:
    return {text: index for index, text in enumerate(_official_strings(space))}


def _parse_meta(raw: Any, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict) or set(raw) != _META_KEYS:
        raise FormatError(
            f"{where} is no benchmark file: it holds {describe(raw)} without {', '.join(sorted(_META_KEYS))}"
        )
    strings, total, evaluated = raw["meta_archs"], raw["total_archs"], raw["evaluated_indexes"]
    if not isinstance(strings, list) or not strings or type(strings[0]) is not str:
        raise FormatError(f"{where}: meta_archs is no list of architecture strings")
    space = "nats_size" if ":" in strings[0] else "nasbench201"
    if strings != _official_strings(space):
        raise FormatError(f"{where}: meta_archs are not the architectures of {space} in the official order")
    if type(total) is not int or total != len(strings):
        raise FormatError(f"{where}: total_archs is {describe(total)}, not {len(strings)}")
    if not isinstance(evaluated, list | set) or any(type(index) is not int for index in evaluated):
        raise FormatError(f"{where}: evaluated_indexes is no set of indexes")
    return {**raw, "space": space}


def parse_states(raw: object, where: str, *, index: int | None = None) -> dict[str, State]:
    """Check what the official files hold for one architecture.

    Args:
        raw: {schedule: architecture state} as unpickled, with schedules called "full" and "less" in the old files.
        where: names the file in errors.
        index: which architecture it must be; None for any.

    Returns:
        The states by schedule, under the new names.

    Raises:
        FormatError: naming the file, the architecture and what is wrong.
    """
    if not isinstance(raw, dict) or not raw:
        raise FormatError(f"{where}: an architecture is a dict of schedules, not {describe(raw)}")
    states: dict[str, State] = {}
    for name, value in raw.items():
        state = _parse_state(name, value, where)
        first = next(iter(states.values()), state)
        if (state.space, state.index) != (first.space, first.index) or state.schedule in states:
            raise FormatError(
                f"{where}: architecture {first.index} holds schedule {name!r} of architecture {state.index}"
            )
        if index is not None and state.index != index:
            raise FormatError(f"{where}: architecture {state.index} where {index} is expected")
        states[state.schedule] = state
    return states


def _parse_state(name: object, raw: object, where: str) -> State:
    if not isinstance(raw, dict) or set(raw) != _STATE_KEYS:
        raise FormatError(
            f"{where}: schedule {describe(name)} of an architecture lacks {', '.join(sorted(_STATE_KEYS))}"
        )
    index, text = raw["arch_index"], raw["arch_str"]
    here = f"{where}: architecture {describe(index)}"
    if type(text) is not str:
        raise FormatError(f"{here}: arch_str is {describe(text)}")
    space = "nats_size" if ":" in text else "nasbench201"
    official = _official_indexes(space).get(text)
    if type(index) is not int or official != index:
        place = f"is index {official}" if official is not None else "does not exist"
        raise FormatError(f"{here}: its string {describe(text)} {place} in {space}")
    schedule = _OLD_SCHEDULES.get(name, name) if isinstance(name, str) and space == "nasbench201" else name
    if not isinstance(schedule, str) or schedule not in SCHEDULES[space]:
        raise FormatError(f"{here}: unknown schedule {describe(name)}; {space} has {', '.join(SCHEDULES[space])}")
    seeds, results = raw["dataset_seed"], raw["all_results"]
    if not isinstance(seeds, dict) or not isinstance(results, dict):
        raise FormatError(f"{here}: dataset_seed or all_results is no dict")
    trials: dict[str, tuple[Trial, ...]] = {}
    for dataset, listed in seeds.items():
        if dataset not in NUM_CLASSES:
            raise FormatError(f"{here}: unknown dataset {describe(dataset)}; known: {', '.join(NUM_CLASSES)}")
        if not isinstance(listed, list) or any(type(seed) is not int or not 0 <= seed < 1 << 31 for seed in listed):
            raise FormatError(f"{here}: the seeds of {dataset} are {describe(listed)}")
        if len(set(listed)) != len(listed) or any((dataset, seed) not in results for seed in listed):
            raise FormatError(f"{here}: the seeds of {dataset} are not those of its results")
        trials[dataset] = tuple(
            _parse_trial(
                results[dataset, seed],
                _Trial(
                    f"{here}, schedule {schedule}, {dataset} seed {seed}",
                    text,
                    dataset,
                    seed,
                    SCHEDULES[space][schedule],
                ),
            )
            for seed in listed
        )
    if sum(map(len, trials.values())) != len(results):
        raise FormatError(f"{here}: schedule {schedule} has results that dataset_seed does not list")
    return State(space, index, text, schedule, trials)


@dataclass(frozen=True)
class _Trial:
    """What a result must be, and where it is."""

    where: str
    text: str
    dataset: str
    seed: int
    epochs: int

    def refuse(self, why: str) -> NoReturn:
        raise FormatError(f"{self.where}: {why}")


def _parse_trial(raw: Any, trial: _Trial) -> Trial:
    if not isinstance(raw, dict) or set(raw) != _RESULT_KEYS:
        extra = set(raw) ^ _RESULT_KEYS if isinstance(raw, dict) else ()
        trial.refuse(
            f"the result does not have the known fields (see {', '.join(map(describe, list(extra)[:5])) or 'all'})"
        )
    if raw["net_state_dict"] is not None:
        trial.refuse("it holds weights; use the files without (-simple)")
    seed = raw["seed"]
    if raw["name"] != trial.dataset or seed not in (trial.seed, f"{trial.seed:04d}", str(trial.seed)):
        trial.refuse(f"the result is of {describe(raw['name'])} seed {describe(seed)}")
    if type(raw["epochs"]) is not int or raw["epochs"] != trial.epochs:
        trial.refuse(f"epochs is {describe(raw['epochs'])}, not {trial.epochs}")
    config = raw["arch_config"]
    if not isinstance(config, dict) or not _CONFIG_KEYS.issuperset(config) or config.get("arch_str") != trial.text:
        trial.refuse("arch_config is of another architecture")
    if config.get("class_num") != NUM_CLASSES[trial.dataset]:
        trial.refuse(f"arch_config has {describe(config.get('class_num'))} classes")
    latency = [] if raw["latency"] is None else raw["latency"]
    if not isinstance(latency, list):
        trial.refuse(f"latency is {describe(latency)}, not a list")
    return Trial(
        trial.dataset,
        trial.seed,
        trial.epochs,
        _curve(raw["train_acc1es"], "train_acc1es", trial),
        _curve(raw["train_losses"], "train_losses", trial),
        None if raw["train_times"] is None else _curve(raw["train_times"], "train_times", trial),
        _evaluations(raw, trial),
        float(_floats([raw["params"]], "params", trial)[0]),
        float(_floats([raw["flop"]], "flop", trial)[0]),
        tuple(_floats(latency, "latency", trial).tolist()),
    )


def _curve(raw: Any, name: str, trial: _Trial) -> Floats:
    if not isinstance(raw, dict) or len(raw) != trial.epochs or set(map(type, raw)) != {int}:
        trial.refuse(f"{name} is {describe(raw)} whose keys are not the epochs 0..{trial.epochs - 1}")
    try:
        values = [raw[epoch] for epoch in range(trial.epochs)]
    except KeyError as error:
        trial.refuse(f"{name} lacks epoch {error}")
    return _floats(values, name, trial)


def _floats(values: Sequence[Any], name: str, trial: _Trial) -> Floats:
    for kind in set(map(type, values)):
        if not issubclass(kind, float | int) or kind is bool:
            trial.refuse(f"{name} holds a {kind.__name__} where a number is expected")
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        trial.refuse(f"{name} holds a number that is too large")


@lru_cache(maxsize=64)
def _evaluation_keys(name: str, epochs: int) -> tuple[str, ...]:
    return tuple(f"{name}@{epoch}" for epoch in range(epochs))


def _evaluations(raw: Mapping[str, Any], trial: _Trial) -> dict[str, EvaluationCurve]:
    names, accuracies, losses, times = (raw[f"eval_{field}"] for field in ("names", "acc1es", "losses", "times"))
    if not isinstance(names, list) or not all(isinstance(table, dict) for table in (accuracies, losses, times)):
        trial.refuse("the evaluations are not a list of names and three dicts")
    evaluations: dict[str, EvaluationCurve] = {}
    timed = 0
    for name in names:
        if type(name) is not str or name not in SETS or name in evaluations:
            trial.refuse(f"eval_names holds {describe(name)}; known once each: {', '.join(SETS)}")
        keys = _evaluation_keys(name, trial.epochs)
        stored = [epoch for epoch, key in enumerate(keys) if key in accuracies]
        here = keys if len(stored) == trial.epochs else [keys[epoch] for epoch in stored]
        if not here or not all(key in losses for key in here):
            trial.refuse(f"{name} lacks accuracies or losses")
        seconds = [times[key] for key in keys if key in times]
        if seconds and len(seconds) != trial.epochs:
            trial.refuse(f"eval_times has {len(seconds)} of the {trial.epochs} epochs of {name}")
        timed += len(seconds)
        evaluations[name] = EvaluationCurve(
            np.array(stored, dtype=np.int64),
            _floats([accuracies[key] for key in here], "eval_acc1es", trial),
            _floats([losses[key] for key in here], "eval_losses", trial),
            _floats(seconds, "eval_times", trial) if seconds else None,
        )
        if np.isnan(evaluations[name].accuracy).any():
            trial.refuse(f"{name} has an accuracy that is not a number")
    known = sum(len(curve.epochs) for curve in evaluations.values())
    for table, field, count in (
        (accuracies, "eval_acc1es", known),
        (losses, "eval_losses", known),
        (times, "eval_times", timed),
    ):
        if len(table) != count:
            trial.refuse(
                f"{field} holds {_stranger(table, names, trial.epochs)}, which is not 'set@epoch' of an evaluation"
            )
    return evaluations


def _stranger(table: Iterable[Any], names: list[str], epochs: int) -> str:
    known = {key for name in names for key in _evaluation_keys(name, epochs)}
    return next((describe(key) for key in table if key not in known), "an epoch")
