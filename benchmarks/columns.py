"""Arrays by column in one safetensors file, opened by memory map.

This is the form in which every converted or imported benchmark lies on disk. A safetensors file is eight bytes of length, a
JSON header with the dtype, shape and place of each array, then the arrays. It holds no pickle, needs no parsing, and what is
not looked at is not read. The header's metadata carries one JSON object under the key "nasharness": schema version, kind of
table, sha256 of the arrays' bytes, and whatever the writer adds.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SCHEMA_VERSION = 1
BUILT_KIND = "built"
"""The kind of a file that does not name one: `nasharness build` wrote it, see `benchmarks/table.py`."""
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
_CHUNK = 1 << 24


class TableError(ValueError):
    """A benchmark file that cannot be used: missing, foreign, corrupt, or written by a newer version."""


class Columns(Mapping[str, npt.NDArray[Any]]):
    """An opened file: a mapping from column names to read-only arrays that are read from disk when they are used.

    Attributes:
        path: the file.
        metadata: what the writer said, with `kind`, `schema` and `data_sha256`.
        sha256: digest of the arrays as recorded in the header; `verify` recomputes it.
    """

    def __init__(self, path: Path, metadata: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.path = path
        self.metadata = metadata
        self.sha256: str = metadata["data_sha256"]
        self._arrays = arrays

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def verify(self) -> None:
        """Read the whole file and compare its digest with the recorded one.

        Raises:
            TableError: they differ.
        """
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            file.seek(8 + int.from_bytes(file.read(8), "little"))
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != self.sha256:
            raise TableError(f"{self.path} is damaged: its columns are not those that were written")


def write_columns(
    path: Path, columns: Mapping[str, npt.NDArray[Any]], *, kind: str, metadata: Mapping[str, Any]
) -> None:
    """Write a file under a temporary name and move it to `path` when it is complete.

    Columns may be memory maps: they are copied in pieces, so a table larger than memory can be written.

    Args:
        path: where to; an existing file is replaced at the very end.
        columns: arrays of any of the usual numeric dtypes.
        kind: what sort of table this is; `open_columns` checks it.
        metadata: anything that JSON can hold.

    Raises:
        TableError: a column has a dtype that the format does not know.
    """
    for name, column in columns.items():
        if column.dtype.newbyteorder("<") not in _CODES:
            raise TableError(f"{path}: column {name} is of type {column.dtype}")
    names = sorted(columns, key=lambda name: (-columns[name].dtype.itemsize, name))  # keeps every array aligned
    header: dict[str, Any] = {}
    offset = 0
    for name in names:
        column = columns[name]
        code = _CODES[column.dtype.newbyteorder("<")]
        header[name] = {"dtype": code, "shape": list(column.shape), "data_offsets": [offset, offset + column.nbytes]}
        offset += column.nbytes

    def head(data_sha256: str) -> bytes:
        text = {**metadata, "kind": kind, "schema": SCHEMA_VERSION, "data_sha256": data_sha256}
        full = {"__metadata__": {"nasharness": json.dumps(text, sort_keys=True)}, **header}
        encoded = json.dumps(full, separators=(",", ":")).encode()
        encoded += b" " * (-len(encoded) % 8)
        return len(encoded).to_bytes(8, "little") + encoded

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    digest = hashlib.sha256()
    try:
        with temporary.open("wb") as file:
            file.write(head("0" * 64))
            for name in names:
                for piece in _pieces(columns[name]):
                    data = np.ascontiguousarray(piece).astype(piece.dtype.newbyteorder("<"), copy=False).tobytes()
                    digest.update(data)
                    file.write(data)
            file.seek(0)
            file.write(head(digest.hexdigest()))  # of the same length: only the digest differs
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _pieces(column: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    if column.ndim == 0 or not column.size:
        yield column
        return
    rows = max(1, _CHUNK // max(1, column.nbytes // len(column)))
    for start in range(0, len(column), rows):
        yield column[start : start + rows]


def open_columns(path: Path, *, kind: str | None = None) -> Columns:
    """Open a file by memory map; nothing but its header is read.

    Raises:
        TableError: it is missing, cut off, foreign, of another kind, or written by a newer version.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            content = file.read(length) if 2 <= length <= size - 8 else b""
            if len(content) < 2:
                raise TableError(f"{path} is damaged or no safetensors file")
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise TableError(f"cannot read the benchmark file {path}: {error.strerror or error}") from error
    try:
        header = json.loads(content)
        text = header.pop("__metadata__", {}).get("nasharness")
        if text is None:
            raise TableError(f"{path} is not a nasharness file")
        metadata = json.loads(text)
        schema, found_kind = metadata["schema"], metadata.setdefault("kind", BUILT_KIND)
        if schema > SCHEMA_VERSION:
            raise TableError(
                f"{path} has schema {schema}, this version of nasharness reads up to {SCHEMA_VERSION}: upgrade nasharness"
            )
        metadata["data_sha256"][:64]
        arrays = {}
        end_of_data = 0
        for name, entry in header.items():
            dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
            start, end = entry["data_offsets"]
            if end - start != math.prod(shape) * dtype.itemsize or start < 0 or 8 + length + end > size:
                raise TableError(f"{path} is damaged or cut off: column {name} lies outside the file")
            end_of_data = max(end_of_data, end)
            arrays[name] = np.frombuffer(whole, dtype=dtype, count=math.prod(shape), offset=8 + length + start).reshape(
                shape
            )
        if 8 + length + end_of_data != size:
            raise TableError(f"{path} is damaged: it is longer than its columns")
    except TableError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{path} is damaged or no safetensors file: {error}") from error
    if kind is not None and found_kind != kind:
        raise TableError(f"{path} holds a table of kind {found_kind!r}, not {kind!r}")
    return Columns(path, metadata, arrays)
