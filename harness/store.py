"""The SQLite file that keeps a study: its specification and one row per finished run.

A run is written in one transaction when it has finished, so a study that is killed loses nothing that was finished, and
what is in the file is always whole. One process writes; workers hand it their results.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .run import COLUMNS, Run, Trials

STORE_VERSION = 1
FILE_NAME = "study.sqlite"
_MAGIC = 0x4E415348  # "NASH", the file's application id


class StoreError(RuntimeError):
    """A results file that cannot be opened, read or written; the message says what to do."""


class Store:
    """The results of one study in one folder.

    Args:
        folder: where `study.sqlite` lies.
        create: make folder and file where they do not exist; False refuses a folder without a study.

    Raises:
        StoreError: no study here, a foreign or damaged file, one written by a newer version, or no right to write.
    """

    def __init__(self, folder: Path, *, create: bool) -> None:
        self.path = Path(folder) / FILE_NAME
        if not create and not self.path.is_file():
            raise StoreError(
                f"there is no study in {folder}: expected {self.path} (`nasharness compare --out {folder}` makes one)"
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the folder {self.path.parent}: {error.strerror or error}") from error
        with self._translated("open"):
            # "rw" also where it is only read: after a kill SQLite must roll the last transaction back before it can read. A
            # file that may not be written is opened for reading.
            uri = f"{self.path.resolve().as_uri()}?mode={'rwc' if create else 'rw'}"
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
        try:
            with self._translated("open"):
                self._check_or_create(create)
        except BaseException:
            self._db.close()
            raise

    def _check_or_create(self, create: bool) -> None:
        magic = self._db.execute("PRAGMA application_id").fetchone()[0]
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and magic != _MAGIC:
            raise StoreError(f"{self.path} is a database of something else; it was left as it is. Choose another --out")
        if version > STORE_VERSION:
            raise StoreError(
                f"{self.path} was written by a newer nasharness (store version {version}, this one reads up to {STORE_VERSION}):"
                " upgrade nasharness, or choose another --out"
            )
        if create:
            # One writer, and a transaction per run: a rollback journal that is truncated is the cheapest durable mode
            # that also works on network file systems, where WAL does not.
            self._db.execute("PRAGMA journal_mode=TRUNCATE")
            self._db.execute("PRAGMA synchronous=NORMAL")
        if not tables:
            if not create:
                raise StoreError(f"{self.path} holds no study")
            with self._transaction():
                if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    return  # another process was quicker
                self._db.execute(f"PRAGMA application_id={_MAGIC}")
                self._db.execute(f"PRAGMA user_version={STORE_VERSION}")
                self._db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
                self._db.execute(
                    "CREATE TABLE runs (optimizer TEXT, repetition INTEGER, benchmark TEXT, seed INTEGER,"
                    " finished_early INTEGER, charged INTEGER, trials BLOB, measured TEXT, PRIMARY KEY (optimizer, repetition))"
                )

    @contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            reason = str(error)
            advice = (
                "Finished runs are kept; run the same command again to go on."
                if action == "write"
                else "Choose another --out."
            )
            if "not a database" in reason or "malformed" in reason:
                reason += " (the file is foreign or damaged)"
            raise StoreError(f"cannot {action} {self.path}: {reason}. {advice}") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def specification(self) -> dict[str, Any] | None:
        """The study's specification, None in a new store."""
        with self._translated("read"):
            row = self._db.execute("SELECT value FROM meta WHERE key = 'specification'").fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def update_specification(
        self, change: Callable[[dict[str, Any] | None, set[tuple[str, int]]], Mapping[str, Any]]
    ) -> set[tuple[str, int]]:
        """Replace the specification by `change(it, finished runs)` in one transaction; returns the finished runs.

        Read and write are one transaction, so that two studies started at once on one folder cannot both find it empty.
        """
        with self._translated("write"), self._transaction():
            old, finished = self.specification(), self.finished()
            new = change(old, finished)
            if new != old:
                self._db.execute("INSERT OR REPLACE INTO meta VALUES ('specification', ?)", (json.dumps(new),))
        return finished

    def finished(self) -> set[tuple[str, int]]:
        """(optimizer, repetition) of every run in the file."""
        with self._translated("read"):
            return set(self._db.execute("SELECT optimizer, repetition FROM runs"))

    def write(self, run: Run, measured: Mapping[str, Any]) -> None:
        """Add a finished run in one transaction.

        Args:
            run: the run.
            measured: where it ran and for how long (host, wall and CPU seconds); never part of a result.
        """
        from safetensors.numpy import save

        blob = save({name: np.ascontiguousarray(getattr(run.trials, name)) for name in COLUMNS})
        with self._translated("write"), self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run.optimizer,
                    run.repetition,
                    run.benchmark,
                    run.seed,
                    run.finished_early,
                    run.charged,
                    blob,
                    json.dumps(dict(measured)),
                ),
            )

    def runs(self) -> Iterator[tuple[Run, dict[str, Any]]]:
        """Every run with what was measured about it, by optimizer and repetition."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        query = (
            "SELECT optimizer, benchmark, seed, repetition, trials, finished_early, charged, measured FROM runs"
            " ORDER BY optimizer, repetition"
        )
        with self._translated("read"):
            for optimizer, benchmark, seed, repetition, blob, early, charged, measured in self._db.execute(query):
                try:
                    trials = Trials(**load(blob))
                except (SafetensorError, TypeError) as error:
                    raise StoreError(f"{self.path}: run {repetition} of {optimizer} is damaged: {error}") from error
                yield (
                    Run(optimizer, benchmark, seed, repetition, trials, bool(early), bool(charged)),
                    json.loads(measured),
                )

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
