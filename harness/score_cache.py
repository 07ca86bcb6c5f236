"""What was scored before: one SQLite file in the data folder, shared by every study on this machine.

A score is kept under the digest of everything that it depends on (`scorer.Scoring.key`), so nothing ever has to be thrown
away by hand; deleting the file costs computing time only. One process writes at a time, others wait for it.
"""

from __future__ import annotations

import math
import os
import sqlite3
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

_SCHEMA = 1
_CHUNK = 900  # SQLite takes 999 parameters in a statement


class CacheError(RuntimeError):
    """The file of kept scores cannot be read or written; the message names it."""


class Known(NamedTuple):
    """What was measured of one network by one proxy.

    Attributes:
        values: the proxy's parts; -inf where a number was not finite.
        seconds: what it took, with building the network.
    """

    values: tuple[float, ...]
    seconds: float


class ScoreCache:
    """Kept scores. `ScoreCache(None)` keeps them in memory only.

    Raises:
        CacheError: the file is not one of kept scores, or cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = c = sqlite3.connect(":memory:" if path is None else path, timeout=60)
            if c.execute("PRAGMA user_version").fetchone()[0] == 0:
                c.execute("BEGIN IMMEDIATE")  # another process may be making the same file
                if c.execute("PRAGMA user_version").fetchone()[0] == 0:
                    if c.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                        raise CacheError(f"{path} is not a file of kept scores; move it away")
                    c.execute("CREATE TABLE scores (key BLOB PRIMARY KEY, numbers BLOB NOT NULL) WITHOUT ROWID")
                    c.execute(f"PRAGMA user_version = {_SCHEMA}")
                c.commit()
            if c.execute("PRAGMA user_version").fetchone()[0] != _SCHEMA:
                raise CacheError(f"{path} is a file of kept scores of another version; move it away")
        except (sqlite3.Error, OSError) as error:
            raise CacheError(
                f"cannot keep scores in {path}: {error}. Use another data folder (NASHARNESS_DATA), or no cache"
            ) from error

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Known]:
        """What is known, by key."""
        found: dict[bytes, Known] = {}
        try:
            for i in range(0, len(keys), _CHUNK):
                part = keys[i : i + _CHUNK]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, numbers FROM scores WHERE key IN ({marks})"  # noqa: S608  question marks only
                for key, blob in self._connection.execute(query, part):
                    seconds, *values = struct.unpack(f"<{len(blob) // 8}d", blob)
                    found[key] = Known(tuple(values), seconds)
        except (sqlite3.Error, struct.error) as error:
            raise CacheError(f"cannot read the kept scores in {self.path}: {error}; move the file away") from error
        return found

    def keep(self, items: Mapping[bytes, Known] | Iterable[tuple[bytes, Known]]) -> None:
        """Write scores; what is there already is replaced. A number that is NaN is refused: no proxy gives one."""
        pairs = items.items() if isinstance(items, Mapping) else items
        rows = [(key, struct.pack(f"<{1 + len(known.values)}d", known.seconds, *known.values)) for key, known in pairs]
        for _, blob in rows:
            if any(math.isnan(x) for x in struct.unpack(f"<{len(blob) // 8}d", blob)):
                raise ValueError("a score is NaN")
        try:
            with self._connection as c:
                c.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise CacheError(f"cannot keep scores in {self.path}: {error}; what was kept before is safe") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> ScoreCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_cache(use: bool = True) -> ScoreCache:
    """The kept scores of this user, or, if they are not to be used or the data folder cannot be written, none."""
    from ..benchmarks.library import data_folder

    if use:
        folder = data_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return ScoreCache(None)
        if os.access(folder, os.W_OK):
            return ScoreCache(folder / "scores.sqlite")
    return ScoreCache(None)
