"""Train every network class of a space on an image task and write the benchmark file.

A *cell* of the build is one class of networks under one training seed. Finished cells go into a SQLite journal next to the
output (`OUT.journal`), one transaction each, so that a build that was killed at any moment goes on where it stopped. The
output itself is written once, at the end, under a temporary name.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .images import image_task
from .schedule import Schedule
from .spaces.base import Architecture
from .spaces.nasbench201 import NASBench201Space, network_classes
from .workers import GLOBAL_GENERATOR, in_flight, set_up_worker

JOURNAL_VERSION = 1
_SPACE = NASBench201Space()


class BuildError(RuntimeError):
    """A build cannot start or go on; the message says why and what to do."""


@dataclass(frozen=True)
class BuildSpec:
    """Everything that decides the numbers of a benchmark file.

    Attributes:
        images: id of an image task (see `image_task`).
        seeds: training seeds; every class is trained once per seed.
        channels, cells: size of the network (see `NASBench201Network`).
        schedule: how it is trained.
        space: only "nasbench201" can be built so far.
    """

    images: str = "cluttered-digits"
    seeds: tuple[int, ...] = (0,)
    channels: int = 8
    cells: int = 1
    schedule: Schedule = field(default_factory=Schedule)
    space: str = "nasbench201"

    def __post_init__(self) -> None:
        if self.space != "nasbench201":
            raise BuildError(f"space {self.space!r} cannot be built; only 'nasbench201' can so far")
        numbers = {"channels": (self.channels,), "cells": (self.cells,), "seeds": self.seeds}
        for name, values in numbers.items():
            lowest = 0 if name == "seeds" else 1
            if any(isinstance(v, bool) or not isinstance(v, int) or v < lowest for v in values):
                raise BuildError(f"{name} must be whole numbers from {lowest}, not {getattr(self, name)!r}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise BuildError(f"seeds must be distinct, and at least one: {self.seeds}")
        try:
            image_task(self.images)
        except ValueError as error:
            raise BuildError(str(error)) from error

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> BuildSpec:
        fields = json.loads(text)
        return cls(**{**fields, "seeds": tuple(fields["seeds"]), "schedule": Schedule(**fields["schedule"])})


def representatives() -> list[Architecture]:
    """One pruned architecture per network class, in class order."""
    found: dict[int, Architecture] = {}
    for arch, number in zip(_SPACE, network_classes(), strict=True):
        found.setdefault(number, _SPACE.prune(arch))
    return [found[number] for number in range(len(found))]


# ---------------------------------------------------------------------------------------------------------- one cell


def train_cell(spec_json: str, arch: Architecture, seed: int) -> dict[str, Any]:
    """Build and train one network: a pure function of its arguments, but for the measured seconds."""
    import torch

    from .networks.cost import count_flops, count_parameters
    from .networks.nasbench201 import NASBench201Network
    from .training import train

    torch.set_num_threads(1)
    spec = BuildSpec.from_json(spec_json)
    task = image_task(spec.images)
    weights, shuffling = np.random.SeedSequence((seed, _SPACE.rank(arch))).spawn(2)
    with GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):  # torch's initialisers know no other generator
        torch.manual_seed(int(weights.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        network = NASBench201Network(
            arch,
            num_classes=task.num_classes,
            channels=spec.channels,
            cells=spec.cells,
            input_channels=task.shape[0],
            prune=True,
        )
    params, flops = count_parameters(network), count_flops(network, task.shape)
    result = train(network, task, spec.schedule, seed=seed, rng=np.random.default_rng(shuffling))
    return {**result.as_dict(), "params": params, "flops": flops}


def _train_block(
    spec_json: str, cells: Sequence[tuple[int, Architecture, int]]
) -> list[tuple[int, int, Any, str | None]]:
    """Worker: train a few cells; a failure is an answer, not an end. Returns (class, seed, result, error) each."""
    results: list[tuple[int, int, Any, str | None]] = []
    for number, arch, seed in cells:
        try:
            results.append((number, seed, train_cell(spec_json, arch, seed), None))
        except Exception as error:
            results.append((number, seed, None, f"{type(error).__name__}: {error}"))
    return results


# ------------------------------------------------------------------------------------------------------------ journal

_COLUMNS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")
_SCALARS = ("test_loss", "test_accuracy", "params", "flops")


class Journal:
    """The finished cells of a build, in SQLite: `cells(class, seed, payload, error, tries)`.

    Args:
        path: the file; made if it is not there.
        spec: the build that it must belong to; None takes any.

    Raises:
        BuildError: the file belongs to a build with another specification, or is no journal.
    """

    def __init__(self, path: Path, spec: BuildSpec | None) -> None:
        self.path = path
        if spec is None and not path.is_file():
            raise BuildError(f"there is no build journal {path}")
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
        except sqlite3.Error as error:
            raise BuildError(f"cannot use {path} as a build journal: {error}") from error
        try:
            self._check_or_create(spec)
        except sqlite3.Error as error:
            self._db.close()
            raise BuildError(f"cannot use {path} as a build journal: {error}") from error
        except BaseException:
            self._db.close()
            raise

    def _check_or_create(self, spec: BuildSpec | None) -> None:
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables <= {"meta", "cells"}:
            raise BuildError(f"{self.path} is a database of something else; it was left as it is. Choose another --out")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS cells (class INTEGER, seed INTEGER, payload TEXT, error TEXT, tries INTEGER,"
            " PRIMARY KEY (class, seed))"
        )
        found = dict(self._db.execute("SELECT key, value FROM meta"))
        if not found and spec is not None:
            entries = [("version", str(JOURNAL_VERSION)), ("spec", spec.to_json())]
            self._db.execute("BEGIN")
            self._db.executemany("INSERT INTO meta VALUES (?, ?)", entries)
            self._db.execute("COMMIT")
            self.spec = spec
            return
        if found.get("version") != str(JOURNAL_VERSION):
            raise BuildError(
                f"{self.path} was written by another version of nasharness (journal {found.get('version')})"
            )
        if spec is not None and found["spec"] != spec.to_json():
            raise BuildError(
                f"{self.path} belongs to a build with another specification:\n  there: {found['spec']}\n"
                f"  here:  {spec.to_json()}\nUse the same options to go on with it, or another --out."
            )
        self.spec = BuildSpec.from_json(found["spec"])

    def done(self) -> set[tuple[int, int]]:
        return set(self._db.execute("SELECT class, seed FROM cells WHERE error IS NULL"))

    def failures(self) -> list[tuple[int, int, int, str]]:
        """(class, seed, tries, error) of the cells that failed."""
        return list(self._db.execute("SELECT class, seed, tries, error FROM cells WHERE error IS NOT NULL"))

    def write(self, number: int, seed: int, result: dict[str, Any] | None, error: str | None) -> None:
        payload = None
        if result is not None:
            payload = json.dumps(
                {name: [float(x) for x in result[name]] for name in _COLUMNS}
                | {name: result[name] for name in _SCALARS}
            )
        self._db.execute(
            "INSERT INTO cells VALUES (?, ?, ?, ?, 1) ON CONFLICT (class, seed) DO UPDATE SET"
            " payload = excluded.payload, error = excluded.error, tries = tries + 1",
            (number, seed, payload, error),
        )

    def results(self) -> Iterable[tuple[int, int, dict[str, Any]]]:
        for number, seed, payload in self._db.execute("SELECT class, seed, payload FROM cells WHERE error IS NULL"):
            yield number, seed, json.loads(payload)

    def close(self) -> None:
        self._db.close()


# -------------------------------------------------------------------------------------------------------------- build


def build(
    spec: BuildSpec,
    out: Path,
    executor: Executor,
    *,
    jobs: int,
    limit: int | None = None,
    retries: int = 2,
    block: int = 4,
    progress: Callable[[int, int, int], None] = lambda done, total, failed: None,
) -> Path | None:
    """Train what the journal does not hold yet; write `out` once everything is there.

    Args:
        spec: what to build.
        out: the benchmark file; the journal stands beside it as `out.journal`.
        executor: where cells are trained, by any `concurrent.futures` executor. Its workers need no state; the measured
            seconds mean something in processes only.
        jobs: cells in flight are kept to twice this number.
        limit: train only the first so many classes (in a fixed shuffled order) and write no file: a trial run.
        retries: how often a failed cell is tried again in this call.
        block: cells per task.
        progress: called with (cells done, cells in all, cells failed) after every block.

    Returns:
        `out`, or None where `limit` left the table incomplete.

    Raises:
        BuildError: the journal does not fit, or cells still fail after the retries. Finished cells are kept.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        raise BuildError(f"cannot make the folder {out.parent}: {reason.strerror or reason}") from reason
    if out.is_dir():
        raise BuildError(f"{out} is a folder; name a file for the benchmark")
    archs = representatives()
    # In a shuffled order, so that any part of a build is a fair sample of the space.
    order = np.random.default_rng(0).permutation(len(archs))[:limit]
    wanted = [(int(number), seed) for seed in spec.seeds for number in order]
    with closing(Journal(out.with_name(out.name + ".journal"), spec)) as journal:
        for _ in range(retries + 1):
            done = journal.done()
            todo = [cell for cell in wanted if cell not in done]
            if not todo:
                break
            tasks = [[(n, archs[n], seed) for n, seed in todo[i : i + block]] for i in range(0, len(todo), block)]
            finished, failed = len(wanted) - len(todo), 0
            try:
                for results in in_flight(executor, _train_block, [(spec.to_json(), task) for task in tasks], 2 * jobs):
                    for number, seed, result, error in results:
                        journal.write(number, seed, result, error)
                        finished += error is None
                        failed += error is not None
                    progress(finished, len(wanted), failed)
            except BrokenExecutor as reason:
                raise BuildError(
                    "a worker process died, killed for its memory perhaps. Finished networks are kept; run the same command"
                    " again to go on, with fewer --jobs if memory is short."
                ) from reason
            except sqlite3.Error as reason:
                raise BuildError(f"cannot write {journal.path}: {reason}. Finished networks are kept.") from reason
        wanted_set = set(wanted)
        if failures := [f for f in journal.failures() if (f[0], f[1]) in wanted_set]:
            number, seed, tries, error = failures[0]
            raise BuildError(
                f"{len(failures)} cells failed, the first: class {number} {_SPACE.to_string(archs[number])}, seed {seed}, after"
                f" {tries} tries: {error}. Finished cells are kept; run the same command again to retry the failed ones."
            )
        if limit is not None and limit < len(archs):
            return None
        _write_table(spec, archs, journal, out)
    return out


def build_locally(
    spec: BuildSpec,
    out: Path,
    *,
    jobs: int,
    limit: int | None = None,
    progress: Callable[[int, int, int], None] = lambda done, total, failed: None,
) -> Path | None:
    """`build` on this machine: one process per job, one torch thread each. See there for arguments and errors."""
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's thread pool in an unknown state
    executor = ProcessPoolExecutor(
        jobs, mp_context=context, initializer=set_up_worker, initargs=(list(sys.path), os.getpid())
    )
    try:
        path = build(spec, out, executor, jobs=jobs, limit=limit, progress=progress)
    except BaseException:
        for process in list((executor._processes or {}).values()):
            process.terminate()  # a network in training is not finished, and not missed
        executor.shutdown(wait=True, cancel_futures=True)
        raise
    executor.shutdown(wait=True)
    return path


def _write_table(spec: BuildSpec, archs: list[Architecture], journal: Journal, out: Path) -> None:
    """Gather the journal into the columns of `benchmarks/table.py` and write them atomically."""
    from .table import write_table

    shape = (len(archs), len(spec.seeds), spec.schedule.epochs)
    position = {seed: i for i, seed in enumerate(spec.seeds)}
    columns: dict[str, npt.NDArray[Any]] = {name: np.full(shape, np.nan, np.float32) for name in _COLUMNS}
    columns |= {name: np.full(shape[:2], np.nan, np.float32) for name in ("test_loss", "test_accuracy")}
    columns |= {name: np.zeros(shape[0], np.int64) for name in ("params", "flops")}
    for number, seed, result in journal.results():
        if seed in position:
            for name in (*_COLUMNS, "test_loss", "test_accuracy"):
                columns[name][number, position[seed]] = result[name]
            for name in ("params", "flops"):
                columns[name][number] = result[name]
    import torch

    write_table(
        out,
        class_of=np.asarray(network_classes(), dtype=np.int16),
        columns=columns,
        metadata={
            "space": spec.space,
            "spec": json.loads(spec.to_json()),
            "made_with": {
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread per network",
            },
            "made_on": time.strftime("%Y-%m-%d", time.gmtime()),
        },
    )
