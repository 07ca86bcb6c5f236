"""From the official files of NAS-Bench-201 and NATS-Bench to columns.

A group is a schedule and a dataset, such as "200/cifar10-valid". Its trials (training runs) are the rows of its columns, by
architecture, and within one in the order of the file's list of seeds:

    g/first                     int32 (architectures of the space + 1,): those of i are rows first[i] .. first[i+1]-1
    g/seed                      int32 (rows,)
    g/params, g/flops           float (rows,): millions, as in the file
    g/latency                   float (rows,): mean seconds of a batch; NaN where there is none
    g/train/accuracy, .../loss  float (rows, epochs): accuracies here and below are percent, as in the file
    g/train/seconds             float (rows, epochs), or (rows, 1) where each row is constant; NaN where there are none
    g/SET/accuracy, .../loss    float (rows, stored epochs) for x-valid, x-test, ori-test; NaN accuracy: not stored
    g/SET/seconds               as g/train/seconds

Floats are float64 unless float32 holds a whole column exactly. The metadata gives `space`, `source` and `source_sha256` (of a
folder: over its sorted lines "name sha256"), the number of `architectures` present, and for each of `groups` its `epochs`
and the stored epochs of its `sets`. Top-5 accuracies are dropped: the official API never shows them.

A conversion works in a folder beside the target, which it needs twice the target's size in (about 1.1 GB for the full
topology space). It holds one log with a checksum per architecture, so whatever was interrupted, the log is good up to some
architecture. The conversion of a folder of files goes on from there; that of a single file starts again, because a pickle
cannot be entered in the middle.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import math
import os
import shutil
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..columns import Columns, write_columns
from ..formats.errors import FormatError
from ..formats.nats import (
    NUM_CLASSES,
    SETS,
    SPACES,
    State,
    Trial,
    find_form,
    list_folder,
    parse_states,
    read_architecture,
    read_meta,
    stream_architectures,
)
from ..spaces import nasbench201, nats_size
from ..workers import set_up_worker

_Floats = npt.NDArray[np.float64]
_META = "meta.pickle.pbz2"
_BATCH = 8  # files per task: 0.2 s of work
_WORKER_MEMORY = 2 << 30  # bytes that a worker may take beyond what it starts with


def convert(source: Path, target: Path, *, jobs: int = 1, progress: Callable[[int, int], None] | None = None) -> None:
    """Convert a benchmark, in memory that does not grow with it.

    Args:
        source: a folder of `NNNNNN.pickle.pbz2` files, of all architectures or some (with `meta.pickle.pbz2` or without); a
            `NATS-*.pickle.pbz2`; or a `NAS-Bench-201-*.pth`.
        target: the file to write; its folder is created. What was interrupted is kept in the folder `<target>.part`.
        jobs: processes that decode the files of a folder; the result does not depend on it. A single file has one.
        progress: called with the number of architectures that are done and that there are (for a single file: that the
            space has).

    Raises:
        FormatError: the source is damaged or not as expected, or has changed since an interrupted conversion.
        OSError: the source cannot be read or the target not be written.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}")
    source = source.absolute()
    form = find_form(source)
    with Spool(target.with_name(target.name + ".part"), source={"form": form, "name": source.name}) as spool:
        if form == "folder":
            digest = _convert_folder(source, spool, jobs, progress)
        else:
            spool.clear()
            digest = _convert_stream(source, spool, progress)
        spool.finish(target, {"source": source.name, "source_sha256": digest})


def _convert_folder(source: Path, spool: Spool, jobs: int, progress: Callable[[int, int], None] | None) -> str:
    files = list_folder(source)
    digests: dict[str, str] = {}
    meta = None
    if (path := source / _META).exists():
        meta = read_meta(path)
        digests[_META] = hashlib.sha256(path.read_bytes()).hexdigest()
    for index, digest in spool.present.items():
        if index not in files or hashlib.sha256(files[index].read_bytes()).hexdigest() != digest:
            raise FormatError(
                f"architecture {index} of {source.name} has changed since its conversion was interrupted;"
                f" delete {spool.folder} to start again"
            )
    pending = [path for index, path in files.items() if index not in spool.present]
    for done, record in enumerate(_decode(pending, jobs), start=len(files) - len(pending) + 1):
        spool.append(record)
        if meta is not None and spool.space != meta.space:
            raise FormatError(f"{source.name} mixes two spaces: {_META} is of {meta.space}, the files of {spool.space}")
        if progress:
            progress(done, len(files))
    digests |= {files[index].name: digest for index, digest in spool.present.items()}
    return hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


def _convert_stream(source: Path, spool: Spool, progress: Callable[[int, int], None] | None) -> str:
    def visit(states: dict[str, State]) -> None:
        state = next(iter(states.values()))
        spool.append(_encode(states))
        if progress:
            progress(len(spool.present), SPACES[state.space].size)

    stream_architectures(source, visit)
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decode(paths: Sequence[Path], jobs: int) -> Iterator[bytes]:
    """Records of the files, in order."""
    batches = [list(paths[start : start + _BATCH]) for start in range(0, len(paths), _BATCH)]
    if jobs == 1 or len(batches) == 1:
        for path in paths:
            yield _decode_file(path)
        return
    import loky  # here: it is a matter of 0.1 s

    executor = loky.ProcessPoolExecutor(
        min(jobs, len(batches)), initializer=_set_up_decoder, initargs=(sys.path, os.getpid(), _WORKER_MEMORY)
    )
    waiting: deque[concurrent.futures.Future[list[bytes]]] = deque()
    try:
        for batch in batches:
            waiting.append(executor.submit(_decode_files, batch))
            if len(waiting) > 3 * jobs:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, kill_workers=bool(waiting))


def _set_up_decoder(path: Sequence[str], parent: int, memory: int) -> None:
    set_up_worker(path, parent)
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):  # no such limit on this system; the readers bound their memory themselves
        return
    limit = pages * resource.getpagesize() + memory
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _decode_files(paths: Iterable[Path]) -> list[bytes]:
    return [_decode_file(path) for path in paths]


def _decode_file(path: Path) -> bytes:
    data = path.read_bytes()
    return _encode(read_architecture(path, data), hashlib.sha256(data).hexdigest())


# A record holds one architecture: four bytes of name, length of the header, length of the numbers, CRC-32 of both, then the
# header in JSON and the numbers as little-endian doubles, one row per trial. A layout says what a row is made of.

_MAGIC = b"NATS"
_FRAME = len(_MAGIC) + 3 * 4

Layout = tuple[int, int, tuple[tuple[str, tuple[int, ...], int], ...]]
"""Epochs, seconds stored (0, 1 or epochs), and for each evaluation set its name, stored epochs, seconds stored."""


def _encode(states: Mapping[str, State], digest: str = "") -> bytes:
    state = next(iter(states.values()))
    blocks: list[tuple[str, Any, list[int]]] = []
    rows: list[bytes] = []
    for state in states.values():
        for dataset, trials in state.trials.items():
            for trial in trials:
                layout, row = _row(trial)
                group = f"{state.schedule}/{dataset}"
                if blocks and blocks[-1][:2] == (group, layout):
                    blocks[-1][2].append(trial.seed)
                else:
                    blocks.append((group, layout, [trial.seed]))
                rows.append(row.astype("<f8", copy=False).tobytes())
    packed = [
        (group, [*layout[:2], [[s, _spans(e), w] for s, e, w in layout[2]]], seeds) for group, layout, seeds in blocks
    ]
    header = json.dumps([state.index, state.space, digest, packed], separators=(",", ":")).encode()
    content = header + b"".join(rows)
    sizes = (len(header), len(content) - len(header), zlib.crc32(content))
    return _MAGIC + b"".join(n.to_bytes(4, "little") for n in sizes) + content


def _row(trial: Trial) -> tuple[Layout, _Floats]:
    seconds = _seconds(trial.train_seconds)
    latency = sum(trial.latency) / len(trial.latency) if trial.latency else math.nan
    parts = [np.array([trial.params, trial.flops, latency]), trial.train_accuracy, trial.train_loss, seconds]
    sets = []
    for name in SETS:
        if (curve := trial.evaluations.get(name)) is not None:
            eval_seconds = _seconds(curve.seconds)
            parts += [curve.accuracy, curve.loss, eval_seconds]
            sets.append((name, tuple(curve.epochs.tolist()), len(eval_seconds)))
    return (trial.epochs, len(seconds), tuple(sets)), np.concatenate(parts)


def _seconds(values: _Floats | None) -> _Floats:
    if values is None:
        return np.empty(0)
    return values[:1] if (values == values[0]).all() else values


def _spans(epochs: Sequence[int]) -> list[int]:
    """[0, 1, 2, 5] as [0, 3, 5, 6]: starts and ends of runs."""
    spans: list[int] = []
    for epoch in epochs:
        if spans and spans[-1] == epoch:
            spans[-1] += 1
        else:
            spans += [epoch, epoch + 1]
    return spans


@dataclass
class _Block:
    """Trials of one group of one architecture that have one layout."""

    group: str
    layout: Layout
    seeds: list[int]

    def segments(self) -> Iterator[tuple[str, int, tuple[int, ...] | None]]:
        """Column, width, and the stored epochs of an evaluation's accuracy and loss, in the order of a row."""
        epochs, seconds, sets = self.layout
        for column in ("params", "flops", "latency"):
            yield column, 1, None
        yield from (("train/accuracy", epochs, None), ("train/loss", epochs, None), ("train/seconds", seconds, None))
        for name, stored, width in sets:
            yield f"{name}/accuracy", len(stored), stored
            yield f"{name}/loss", len(stored), stored
            yield f"{name}/seconds", width, None

    @property
    def width(self) -> int:
        return sum(width for _, width, _ in self.segments())


@dataclass
class _Header:
    index: int
    space: str
    digest: str
    blocks: list[_Block]


def _read_header(text: bytes) -> _Header:
    index, space, digest, packed = json.loads(text)
    blocks = []
    for group, (epochs, seconds, sets), seeds in packed:
        unpacked = tuple(
            (
                name,
                tuple(e for start, end in zip(spans[::2], spans[1::2], strict=True) for e in range(start, end)),
                width,
            )
            for name, spans, width in sets
        )
        blocks.append(_Block(group, (epochs, seconds, unpacked), seeds))
    return _Header(index, space, digest, blocks)


@dataclass
class _Group:
    """What the columns of a group must have room for."""

    epochs: int
    rows: dict[int, int] = field(default_factory=dict)  # trials by architecture
    train_seconds: int = 1
    stored: dict[str, set[int]] = field(default_factory=dict)
    set_seconds: dict[str, int] = field(default_factory=dict)

    def add(self, index: int, block: _Block) -> None:
        self.rows[index] = self.rows.get(index, 0) + len(block.seeds)
        _, seconds, sets = block.layout
        self.train_seconds = max(self.train_seconds, seconds)
        for name, epochs, width in sets:
            self.stored.setdefault(name, set()).update(epochs)
            self.set_seconds[name] = max(self.set_seconds.get(name, 1), width)

    def widths(self) -> dict[str, int]:
        """Of the float columns; 0 for a column without a second dimension."""
        widths = {"params": 0, "flops": 0, "latency": 0}
        widths |= {"train/accuracy": self.epochs, "train/loss": self.epochs, "train/seconds": self.train_seconds}
        for name in self.sets():
            stored = len(self.stored[name])
            widths |= {f"{name}/accuracy": stored, f"{name}/loss": stored, f"{name}/seconds": self.set_seconds[name]}
        return widths

    def sets(self) -> list[str]:
        return [name for name in SETS if name in self.stored]


class Spool:
    """Architectures on their way to columns, in a log that survives any interruption.

    Args:
        folder: where; created, or continued if it exists. `finish` removes it.
        source: what is converted, in words that JSON can hold; an existing folder of another source is refused.

    Attributes:
        present: the architectures in the log, with the digests of their files ("" where there are none).
        space: name of the search space; None while the log is empty.

    Raises:
        FormatError: the folder belongs to another source.
    """

    def __init__(self, folder: Path, *, source: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        description = folder / "source.json"
        wanted = dict(source or {})
        if not description.exists():
            temporary = folder / "source.json.tmp"
            temporary.write_text(json.dumps(wanted))
            temporary.replace(description)
        elif (found := json.loads(description.read_text())) != wanted:
            raise FormatError(
                f"{folder} belongs to the conversion of {found}, not of {wanted}; delete it to start again"
            )
        path = folder / "architectures.log"
        path.touch()
        self._log: BinaryIO = path.open("r+b")
        self._reset()
        self._recover()

    def _reset(self) -> None:
        self.present: dict[int, str] = {}
        self.space: str | None = None
        self._places: dict[int, int] = {}
        self._groups: dict[str, _Group] = {}

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Leave the log as it is, to be continued."""
        self._log.close()

    def clear(self) -> None:
        """Forget everything."""
        self._log.truncate(0)
        self._log.seek(0)
        self._reset()

    def add(self, index: int, states: Mapping[str, Any]) -> None:
        """Add an architecture as the official files hold it: {schedule: architecture state}.

        Raises:
            FormatError: it is not as expected, or there already.
        """
        self.append(_encode(parse_states(dict(states), str(self.folder), index=index)))

    def append(self, record: bytes) -> None:
        """Add what a decoding process made of an architecture."""
        header_size = int.from_bytes(record[4:8], "little")
        place = self._log.seek(0, os.SEEK_END)
        self._account(_read_header(record[_FRAME : _FRAME + header_size]), place)
        self._log.write(record)

    def _account(self, header: _Header, place: int) -> None:
        if header.index in self.present:
            raise FormatError(f"architecture {header.index} comes twice")
        if self.space is not None and header.space != self.space:
            raise FormatError(f"architecture {header.index} is of {header.space}, those before are of {self.space}")
        self.space = header.space
        self.present[header.index] = header.digest
        self._places[header.index] = place
        for block in header.blocks:
            self._groups.setdefault(block.group, _Group(block.layout[0])).add(header.index, block)

    def _recover(self) -> None:
        """Read the log and cut off what was not written completely."""
        place = 0
        while (record := self._read_record()) is not None:
            self._account(record[0], place)
            place = self._log.tell()
        self._log.seek(place)
        self._log.truncate()

    def _read_record(self) -> tuple[_Header, bytes] | None:
        """The record at the log's position; None where there is no complete one."""
        frame = self._log.read(_FRAME)
        if len(frame) < _FRAME or not frame.startswith(_MAGIC):
            return None
        header_size, size, checksum = (int.from_bytes(frame[i : i + 4], "little") for i in (4, 8, 12))
        content = self._log.read(header_size + size)
        if len(content) != header_size + size or zlib.crc32(content) != checksum:
            return None
        return _read_header(content[:header_size]), content[header_size:]

    def finish(self, target: Path, metadata: Mapping[str, Any]) -> None:
        """Write the columns and remove the folder.

        Args:
            target: the file to write.
            metadata: `source`, `source_sha256` and anything else to record.

        Raises:
            FormatError: there are no architectures, or the log was damaged.
        """
        if self.space is None:
            raise FormatError(f"there are no architectures to write to {target}")
        self._log.flush()
        folder = self.folder / "columns"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        columns = _ColumnFiles(folder)
        total = SPACES[self.space].size
        for name, group in self._groups.items():
            counts = np.zeros(total + 1, dtype=np.int64)
            for index, rows in group.rows.items():
                counts[index + 1] = rows
            columns.add(f"{name}/first", np.cumsum(counts).astype(np.int32))
        with ExitStack() as stack:
            writers = {name: _GroupWriter(columns, name, group, stack) for name, group in sorted(self._groups.items())}
            for index in sorted(self._places):
                self._log.seek(self._places[index])
                record = self._read_record()
                if record is None:
                    raise FormatError(f"{self.folder} is damaged; delete it to start again")
                numbers = np.frombuffer(record[1], dtype="<f8")
                start = 0
                for block in record[0].blocks:
                    size = len(block.seeds) * block.width
                    writers[block.group].write(block, numbers[start : start + size].reshape(len(block.seeds), -1))
                    start += size
        for writer in writers.values():
            writer.register()
        groups = {
            name: {"epochs": group.epochs, "sets": {key: sorted(group.stored[key]) for key in group.sets()}}
            for name, group in sorted(self._groups.items())
        }
        own = {"space": self.space, "architectures": len(self.present), "groups": groups}
        write_columns(target, columns, kind="nats", metadata={**metadata, **own})
        self._log.close()
        shutil.rmtree(self.folder)


class _GroupWriter:
    """Writes the rows of a group to one raw file per column."""

    def __init__(self, columns: _ColumnFiles, name: str, group: _Group, stack: ExitStack) -> None:
        self._columns, self._name = columns, name
        self._rows = sum(group.rows.values())
        self._widths = group.widths()
        self._stored = {key: sorted(epochs) for key, epochs in group.stored.items()}
        self._exact = dict.fromkeys(self._widths, True)
        self._files = {
            column: stack.enter_context(columns.path(f"{name}/{column}").open("wb"))
            for column in ("seed", *self._widths)
        }

    def write(self, block: _Block, numbers: _Floats) -> None:
        self._files["seed"].write(np.array(block.seeds, dtype="<i4").tobytes())
        with np.errstate(over="ignore"):
            exact = ((numbers.astype(np.float32) == numbers) | np.isnan(numbers)).all(axis=0)
        pieces: dict[str, tuple[_Floats, tuple[int, ...] | None]] = {}
        start = 0
        for column, width, stored in block.segments():
            pieces[column] = numbers[:, start : start + width], stored
            self._exact[column] &= bool(exact[start : start + width].all())
            start += width
        for column, width in self._widths.items():
            piece, stored = pieces.get(column, (numbers[:, :0], None))
            rows = np.full((len(numbers), max(1, width)), np.nan, dtype="<f8")
            if stored is None:
                if piece.shape[1]:
                    rows[:] = piece  # one value for all epochs, or one for each
            elif len(stored) == width:
                rows[:] = piece
            else:
                rows[:, np.searchsorted(self._stored[column.partition("/")[0]], stored)] = piece
            self._files[column].write(rows.tobytes())

    def register(self) -> None:
        """Offer the finished files as columns."""
        self._columns.register(f"{self._name}/seed", (self._rows,), "<i4")
        for column, width in self._widths.items():
            shape = (self._rows, width) if width else (self._rows,)
            self._columns.register(f"{self._name}/{column}", shape, "<f8")
            if self._exact[column]:
                self._columns.narrow(f"{self._name}/{column}")


class _ColumnFiles(Mapping[str, npt.NDArray[Any]]):
    """Raw files as arrays, each mapped anew when it is asked for, so that none stays in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: dict[str, tuple[tuple[int, ...], str]] = {}

    def path(self, name: str) -> Path:
        return self._folder / name.replace("/", "_")

    def add(self, name: str, array: npt.NDArray[Any]) -> None:
        array.astype(array.dtype.newbyteorder("<")).tofile(self.path(name))
        self.register(name, array.shape, array.dtype.str)

    def register(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self._entries[name] = shape, dtype

    def narrow(self, name: str) -> None:
        """Turn a column of doubles into one of single floats."""
        shape, _ = self._entries[name]
        np.fromfile(self.path(name), dtype="<f8").astype("<f4").tofile(self.path(name))
        self.register(name, shape, "<f4")

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        shape, dtype = self._entries[name]
        return np.memmap(self.path(name), dtype, "r", shape=shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


_SEED_COUNTS = {
    "NAS-Bench-201-v1_0-e61699.pth": {1: 6219, 2: 1621, 3: 7785},
    "NAS-Bench-201-v1_1-096897.pth": {1: 2225, 2: 5439, 3: 7961},
}
"""How many architectures were trained once, twice and three times for 200 epochs, by the official README."""
_IMAGE_SIDE = {"ImageNet16-120": 16}


def verify(columns: Columns) -> Iterator[tuple[str, bool]]:
    """Compare a converted table with what is published about the benchmark.

    Yields each fact and whether it holds. Facts about single architectures are checked where these are present, facts about
    whole files where the source's name says which file it was.
    """
    metadata = columns.metadata
    space, source, groups = metadata["space"], metadata["source"], metadata["groups"]
    complete = metadata["architectures"] == SPACES[space].size
    yield f"all {SPACES[space].size:,} architectures of {space} are present", complete
    for name in groups:
        yield from _verify_group(columns, name)
    yield from _verify_costs(columns, space)
    if complete and source in _SEED_COUNTS:
        for name in (name for name in groups if name.startswith("200/")):
            trials = np.diff(columns[f"{name}/first"])
            for count, expected in _SEED_COUNTS[source].items():
                found = int((trials == count).sum())
                yield f"{name}: {expected:,} architectures have {count} trial(s) (found {found:,})", found == expected
    old = source == "NAS-Bench-201-v1_0-e61699.pth"
    if old:
        yield (
            "12/: version 1.0 has cifar10-valid only",
            {n for n in groups if n.startswith("12/")} == {"12/cifar10-valid"},
        )
    elif space == "nasbench201":
        yield from _verify_anchors(columns, complete)


def _verify_group(columns: Columns, name: str) -> Iterator[tuple[str, bool]]:
    schedule, _, dataset = name.partition("/")
    first, seeds = columns[f"{name}/first"], columns[f"{name}/seed"]
    yield f"{name}: rows are in order", bool(first[0] == 0 and (np.diff(first) >= 0).all() and first[-1] == len(seeds))
    yield (
        f"{name}: seeds are the published ones",
        _seeds_are_known(columns.metadata["space"], schedule, dataset, first, seeds),
    )
    prefix = f"{name}/"
    for key in (key for key in columns if key.startswith(prefix)):
        column = columns[key]
        if column.dtype.kind != "f":
            continue
        stored = column[~np.isnan(column)]
        if key.endswith("/accuracy"):
            yield f"{key}: from 0 to 100 percent", bool((stored >= 0).all() and (stored <= 100.001).all())
        elif key.endswith("/loss"):
            accuracy = columns[key.removesuffix("loss") + "accuracy"]
            yield f"{key}: finite where there is an accuracy", bool(np.isfinite(column[~np.isnan(accuracy)]).all())
        else:
            yield f"{key}: positive and finite", bool((stored > 0).all() and np.isfinite(stored).all())
    yield f"{name}/train/accuracy: nothing is missing", not np.isnan(columns[f"{name}/train/accuracy"]).any()


def _seeds_are_known(space: str, schedule: str, dataset: str, first: npt.NDArray[Any], seeds: npt.NDArray[Any]) -> bool:
    if (space, schedule) == ("nasbench201", "200"):
        return bool(np.isin(seeds, (777, 888, 999)).all())
    if space == "nasbench201":
        expected = [111, 777] if dataset == "cifar10-valid" else [111]
    else:
        expected = [777, 888, 999] if schedule == "12" else [777]
    present = np.diff(first) > 0
    return bool(
        (np.diff(first)[present] == len(expected)).all() and (seeds.reshape(-1, len(expected)) == expected).all()
    )


def _verify_costs(columns: Columns, space: str) -> Iterator[tuple[str, bool]]:
    """Parameters and FLOPs of up to 100 architectures against the networks'.

    In the topology space's schedule "200" some trials carry wrong numbers, so "12" is asked there.
    """
    for name in columns.metadata["groups"]:
        schedule, _, dataset = name.partition("/")
        if schedule != "12":
            continue
        first = columns[f"{name}/first"]
        present = np.flatnonzero(np.diff(first))
        sample = present[:: max(1, len(present) // 100)]
        wrong = 0
        for index in sample.tolist():
            arch, side = SPACES[space].from_index(index), _IMAGE_SIDE.get(dataset, 32)
            if space == "nasbench201":
                counted = nasbench201.count_cost(arch, num_classes=NUM_CLASSES[dataset], image_size=side)
            else:
                counted = nats_size.count_cost(arch, NUM_CLASSES[dataset], side)
            row = first[index]
            found = columns[f"{name}/params"][row], columns[f"{name}/flops"][row]
            wrong += not np.allclose(found, np.array(counted) / 1e6, rtol=1e-9, atol=0)
        yield f"{name}: parameters and FLOPs of {len(sample)} networks ({wrong} differ)", not wrong


def _verify_anchors(columns: Columns, complete: bool) -> Iterator[tuple[str, bool]]:
    """Numbers that the benchmark's author published in notebooks."""
    name = "200/cifar100"
    if (
        name in columns.metadata["groups"]
        and np.diff(columns[f"{name}/first"])[2]
        and f"{name}/x-valid/accuracy" in columns
    ):
        row = columns[f"{name}/first"][2]
        seconds = columns[f"{name}/train/seconds"][row][0] * 200 + columns[f"{name}/x-valid/seconds"][row][0]
        yield "architecture 2 costs 4,535.15 s on cifar100", math.isclose(seconds, 4535.150203704834, rel_tol=1e-9)
        latency = float(columns[f"{name}/latency"][row])
        yield (
            "architecture 2 has a latency of 14.03 ms on cifar100",
            math.isclose(latency, 0.01402865074299, rel_tol=1e-9),
        )
    name = "200/ImageNet16-120"
    if not complete or f"{name}/x-test/accuracy" not in columns:
        return
    first = columns[f"{name}/first"]
    trials = np.diff(first)
    means = {}
    for key in ("x-valid", "x-test"):
        last = np.asarray(columns[f"{name}/{key}/accuracy"][:, -1], dtype=np.float64)
        means[key] = np.add.reduceat(last, first[:-1]) / trials if trials.all() else np.full(len(trials), np.nan)
    for key, index, valid, test in (("x-valid", 10676, 46.73, 46.20), ("x-test", 857, 46.38, 47.31)):
        right = trials.all() and int(means[key].argmax()) == index
        right = right and round(means["x-valid"][index], 2) == valid and round(means["x-test"][index], 2) == test
        yield f"{name}: best {key} is architecture {index} with {valid} / {test} %", bool(right)
