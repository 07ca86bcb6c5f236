"""A benchmark that looks its answers up in a table of trained networks.

The file is one safetensors file. Architectures that are the same network share a row (a class):

    class_of        int16 or int32 (space ranks,)          class of the architecture at each lexicographic rank
    train_loss, train_accuracy, val_loss, val_accuracy     float32 (classes, seeds, epochs)
    seconds         float32 (classes, seeds, epochs)       cumulative training plus validation seconds
    test_loss, test_accuracy                               float32 (classes, seeds), after the last epoch
    params, flops   int64 (classes,)

The metadata is one JSON object under the key "nasharness": schema version, sha256 of the columns' bytes, space, how it was
made.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Benchmark, Curve, Evaluation, Evaluations, Final, Info
from .columns import SCHEMA_VERSION, TableError
from .spaces.base import Architecture, InvalidArchitecture, SearchSpace

_CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")
_ENDS = ("test_loss", "test_accuracy")
_COUNTS = ("params", "flops")


def write_table(
    path: Path,
    *,
    class_of: npt.NDArray[np.integer],
    columns: Mapping[str, npt.NDArray[Any]],
    metadata: Mapping[str, Any],
) -> None:
    """Write a table under a temporary name and move it to `path` when it is complete.

    Raises:
        TableError: a column is missing, or has another shape than the layout asks for.
    """
    from safetensors.numpy import save

    tensors = {"class_of": np.ascontiguousarray(class_of), **{k: np.ascontiguousarray(v) for k, v in columns.items()}}
    _check_layout(tensors, str(path))
    data_sha256 = hashlib.sha256(_data(save(tensors))).hexdigest()
    text = json.dumps({**metadata, "schema": SCHEMA_VERSION, "data_sha256": data_sha256}, sort_keys=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(save(tensors, metadata={"nasharness": text}))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_table(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any], str]:
    """Columns, metadata and sha256 of a table file.

    Raises:
        TableError: see there.
    """
    import safetensors
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
    except OSError as error:
        unfinished = path.with_name(path.name + ".journal").exists()
        hint = (
            " (its build is unfinished: give the same `nasharness build` again, without --limit)" if unfinished else ""
        )
        raise TableError(f"cannot read the benchmark file {path}: {error.strerror or error}{hint}") from error
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length]) if 2 <= length <= len(content) - 8 else {}
        text = header.get("__metadata__", {}).get("nasharness")
        tensors = load(content) if text is not None else {}
    except (safetensors.SafetensorError, ValueError, KeyError, AttributeError) as error:
        raise TableError(f"{path} is damaged or no safetensors file: {error}") from error
    if text is None:
        raise TableError(f"{path} is not a nasharness benchmark file (`nasharness build` makes one)")
    try:
        metadata = json.loads(text)
        newer = metadata["schema"] > SCHEMA_VERSION
    except (ValueError, KeyError, TypeError) as error:
        raise TableError(f"{path} is damaged: its metadata cannot be read ({error})") from error
    if newer:
        raise TableError(
            f"{path} has schema {metadata['schema']}, this version of nasharness reads up to {SCHEMA_VERSION}: upgrade nasharness"
        )
    _check_layout(tensors, str(path))
    if hashlib.sha256(_data(content)).hexdigest() != metadata.get("data_sha256"):
        raise TableError(f"{path} is damaged: its columns are not those that were written")
    return tensors, metadata, hashlib.sha256(content).hexdigest()


def _data(content: bytes) -> bytes:
    """The part of a safetensors file behind its header."""
    return content[8 + int.from_bytes(content[:8], "little") :]


def _columns_sha256(columns: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(columns):
        digest.update(f"{name} {columns[name].dtype} {columns[name].shape}".encode())
        digest.update(np.ascontiguousarray(columns[name]).tobytes())
    return digest.hexdigest()


def _check_layout(tensors: Mapping[str, npt.NDArray[Any]], where: str) -> None:
    if missing := {"class_of", *_CURVES, *_ENDS, *_COUNTS} - set(tensors):
        raise TableError(f"{where}: columns are missing: {', '.join(sorted(missing))}")
    for name in ("class_of", *_CURVES, *_ENDS, *_COUNTS):
        if tensors[name].dtype.kind not in ("f" if name in (*_CURVES, *_ENDS) else "iu"):
            raise TableError(f"{where}: column {name} is of type {tensors[name].dtype}")
    shape = tensors["val_accuracy"].shape
    expected = {"class_of": tensors["class_of"].shape[:1]}
    expected |= dict.fromkeys(_CURVES, shape) | dict.fromkeys(_ENDS, shape[:2]) | dict.fromkeys(_COUNTS, shape[:1])
    for name, wanted in expected.items():
        if tensors[name].shape != wanted or len(shape) != 3 or 0 in shape:
            raise TableError(f"{where}: column {name} has shape {tensors[name].shape}, expected {wanted}")
    if not tensors["class_of"].size:
        raise TableError(f"{where}: class_of is empty")
    if tensors["class_of"].min() < 0 or tensors["class_of"].max() >= shape[0]:
        raise TableError(f"{where}: class_of points outside the {shape[0]} classes")


class TableBenchmark(Benchmark):
    """A benchmark over a table.

    Args:
        id: versioned id.
        space: the space whose ranks the table's `class_of` follows.
        columns: `class_of` `(ranks,)` int; `train_loss`, `train_accuracy`, `val_loss`, `val_accuracy`, `seconds` (cumulative)
            `(classes, seeds, epochs)` float; `test_loss`, `test_accuracy` `(classes, seeds)` float; `params`, `flops`
            `(classes,)` int. `class_of` names the row of each architecture in the order of iteration over an unconstrained
            space.
        info: where the numbers come from.

    A query without `epochs` returns the validation accuracy after the last epoch and costs the whole run. A benchmark
    subclass that has networks and images overrides `network` and `images`.
    """

    def __init__(self, id: str, space: SearchSpace, columns: Mapping[str, npt.NDArray[Any]], info: Info) -> None:
        _check_layout(columns, id)
        self.id = id
        self.space = space
        self.info = info if info.sha256 else replace(info, sha256=_columns_sha256(columns))
        self._columns = dict(columns)
        for array in self._columns.values():
            array.flags.writeable = False  # `curve` hands out views
        _, self.n_seeds, self.max_epochs = columns["val_accuracy"].shape
        self._val_accuracy = columns["val_accuracy"]
        # Plain lists: one look-up is several times faster than indexing an array.
        self._class_of: list[int] = columns["class_of"].tolist()
        self._values: list[list[float]] = columns["val_accuracy"][:, :, -1].tolist()
        self._costs: list[list[float]] = columns["seconds"][:, :, -1].tolist()
        self._weights = [
            int(np.prod(space.cardinalities[d + 1 :], dtype=np.int64)) for d in range(len(space.cardinalities))
        ]
        if len(self._class_of) != int(np.prod(space.cardinalities, dtype=np.int64)):
            raise TableError(f"{id}: the table has {len(self._class_of)} ranks, {space.name} has another number")

    def _row(self, arch: Architecture) -> int:
        rank = 0
        for choice, weight in zip(arch, self._weights, strict=True):
            rank += choice * weight
        return self._class_of[rank]

    def query(
        self, arch: Architecture, epochs: int | None = None, rng: np.random.Generator | None = None
    ) -> Evaluation:
        try:
            if not self.space.is_valid(arch):
                raise InvalidArchitecture(f"{arch!r} is not an architecture of {self.space.name}")
            row = self._row(arch)
        except (InvalidArchitecture, TypeError, IndexError):
            self.space.check(arch)  # says what is wrong with it
            raise
        seed = int(rng.random() * self.n_seeds) if rng is not None and self.n_seeds > 1 else 0
        # A curve is a copy: a view would lead, by its `base`, to epochs and architectures that nobody has trained yet.
        if epochs is None:
            curve = self._val_accuracy[row, seed].copy()
            curve.flags.writeable = False
            return Evaluation(self._values[row][seed], self._costs[row][seed], self.max_epochs, curve)
        self._check_epochs(epochs)
        curve = self._val_accuracy[row, seed, :epochs].copy()
        curve.flags.writeable = False
        return Evaluation(float(curve[-1]), float(self._columns["seconds"][row, seed, epochs - 1]), int(epochs), curve)

    def _check_epochs(self, epochs: int) -> None:
        if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer) or not 1 <= epochs <= self.max_epochs:
            raise ValueError(f"epochs must be a whole number in 1..{self.max_epochs} for {self.id}, not {epochs!r}")

    def _rows(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
        rows: npt.NDArray[np.intp] = self._columns["class_of"][self.space.ranks(archs)].astype(np.intp)
        return rows

    def query_many(
        self,
        archs: Sequence[Architecture] | npt.NDArray[np.integer],
        epochs: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> Evaluations:
        epochs = self.max_epochs if epochs is None else epochs
        self._check_epochs(epochs)
        rows = self._rows(archs)
        many = rng is not None and self.n_seeds > 1
        seeds = (
            (rng.random(len(rows)) * self.n_seeds).astype(np.intp) if many and rng is not None else np.zeros_like(rows)
        )
        cells = (rows, seeds, epochs - 1)
        values, costs = self._columns["val_accuracy"][cells], self._columns["seconds"][cells]
        return Evaluations(values.astype(float), costs.astype(float))

    def curve(self, arch: Architecture, seed: int | None = None) -> Curve:
        if seed is not None and not 0 <= seed < self.n_seeds:
            raise ValueError(f"{self.id} has the training runs 0..{self.n_seeds - 1}, not {seed!r}")
        row = self._row(self.space.check(arch))
        runs = (self._columns[name][row] for name in _CURVES)
        return Curve(*(run.mean(axis=0) if seed is None else run[seed] for run in runs))

    @functools.cached_property
    def _finals(self) -> Final:
        """`Final` of every class, each field float64 `(classes,)`."""
        c = self._columns
        return Final(
            c["val_accuracy"][:, :, -1].mean(axis=1, dtype=float),
            c["test_accuracy"].mean(axis=1, dtype=float),
            c["seconds"][:, :, -1].mean(axis=1, dtype=float),
            c["params"].astype(float),
            c["flops"].astype(float),
        )

    def final_many(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> Final:
        rows = self._rows(archs)
        return Final(*(column[rows] for column in self._finals))

    @functools.cached_property
    def _optimum(self) -> Final:
        f = self._finals
        known = [c[~np.isnan(c)] for c in f]  # of a column without any number the best is unknown, too
        best = [c.max(initial=-np.inf) for c in known[:2]] + [c.min(initial=np.inf) for c in known[2:]]
        return Final(*(float(b) if np.isfinite(b) else float("nan") for b in best))

    @property
    def optimum(self) -> Final:
        return self._optimum
