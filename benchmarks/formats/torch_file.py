"""Files of torch.save, read without torch and without running what they say.

There are two containers. The legacy one (torch up to 1.5) is a stream of five pickles: a magic number, a version, facts about
the writing machine, the object, and the list of storage keys, which the storages' raw bytes follow. The other one is a zip
archive, never compressed, of `data.pkl` and one file per storage.

`plain_stream` gives the object's pickle of a file without tensors, however large. `load_state_dict` reads a small dict of
tensors as arrays.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .errors import FormatError
from .unpickle import PLAIN, Globals, StreamingUnpickler, Window, describe, guarded

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


@contextmanager
def plain_stream(path: Path, *, limit: int | None = None) -> Iterator[Window]:
    """A file without tensors, opened at the pickle of its object; a streaming unpickler takes it from there.

    On leaving without an error the rest of the file is checked: no storages, nothing after the end.

    Args:
        path: either container.
        limit: see `Window`.

    Raises:
        FormatError: it is neither container, written on a big-endian machine, damaged, or holds tensors.
    """
    where = path.name
    with path.open("rb") as file:
        if _is_zip(file):
            with guarded(lambda: zipfile.ZipFile(file), where) as archive:
                root = _root(archive, where)
                if tensors := [name for name in archive.namelist() if name.startswith(f"{root}data/")]:
                    raise FormatError(f"{where} holds {len(tensors)} tensors; only plain data is read here")
                with guarded(partial(archive.open, f"{root}data.pkl"), where) as stream:
                    window = Window(stream.read, limit=limit, where=where)
                    yield window
                    _check_end(window, where)
        else:
            window = Window(file.read, limit=limit, where=where)
            _read_preamble(window, where)
            yield window
            keys = _load(window, {}, where)
            if keys != []:
                raise FormatError(f"{where} holds tensors; only plain data is read here")
            _check_end(window, where)


def load_state_dict(path: Path) -> dict[str, npt.NDArray[Any]]:
    """A state dict as arrays of their own, in the order of the file.

    Args:
        path: either container; parameters and buffers of the usual dtypes, stored on any device.

    Raises:
        FormatError: it is no state dict, damaged, of an unknown dtype, or asks for anything but tensors.
    """
    where = path.name
    storages: dict[str, _Storage] = {}

    def persistent(pid: Any) -> _Storage:
        storage = _storage(pid)
        if storages.setdefault(storage.key, storage) != storage:
            raise FormatError(f"storage {storage.key!r} is described twice")
        return storages[storage.key]

    with path.open("rb") as file:
        if _is_zip(file):
            with guarded(lambda: zipfile.ZipFile(file), where) as archive:
                root = _root(archive, where)
                with guarded(partial(archive.open, f"{root}data.pkl"), where) as stream:
                    window = Window(stream.read, where=where)
                    state = _load(window, _TENSORS, where, persistent)
                for key, storage in storages.items():
                    storage.fill(guarded(partial(archive.read, f"{root}data/{key}"), where), where)
        else:
            window = Window(file.read, where=where)
            _read_preamble(window, where)
            state = _load(window, _TENSORS, where, persistent)
            keys = _load(window, {}, where)
            if type(keys) is not list or {*map(type, keys)} - {str} or sorted(keys) != sorted(storages):
                raise FormatError(f"{where}: the list of storages does not fit the tensors")
            for key in keys:
                storage = storages[key]
                count = int.from_bytes(guarded(partial(window.read, 8), where), "little")
                if count != storage.count:
                    raise FormatError(f"{where}: storage {key!r} has {count} elements, not {storage.count}")
                storage.fill(guarded(partial(window.read, storage.nbytes), where), where)
            _check_end(window, where)
    if not isinstance(state, Mapping):
        raise FormatError(f"{where} holds {describe(state)}, not a state dict")
    arrays = {}
    for name, tensor in state.items():
        if type(name) is not str or not isinstance(tensor, _Tensor):
            raise FormatError(f"{where} is no state dict: {describe(name)} is {describe(tensor)}")
        arrays[name] = tensor.array()
    return arrays


@dataclass
class _Storage:
    """A flat run of numbers; `data` comes after the pickle that refers to it."""

    key: str
    dtype: np.dtype[Any]
    count: int
    data: bytes = b""

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    def fill(self, data: bytes, where: str) -> None:
        if len(data) != self.nbytes:
            raise FormatError(f"{where}: storage {self.key!r} has {len(data)} bytes, not {self.nbytes}")
        self.data = data


@dataclass
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __setstate__(self, state: object) -> None:
        raise FormatError("the pickle tries to alter a tensor")

    def array(self) -> npt.NDArray[Any]:
        flat = np.frombuffer(self.storage.data, self.storage.dtype)
        if not math.prod(self.shape):
            return np.empty(self.shape, self.storage.dtype)
        size = self.storage.dtype.itemsize
        view = np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, [step * size for step in self.strides], writeable=False
        )
        return view.copy(order="C")


@dataclass(frozen=True)
class _StorageType:
    """Stands in for a class such as torch.FloatStorage, which is named in persistent ids and never called."""

    dtype: str

    def __call__(self, *_: object) -> Any:
        raise FormatError("the pickle calls a storage type")


def _rebuild_tensor(storage: object, offset: Any, shape: object, strides: object, *_: object) -> _Tensor:
    """Stands in for torch._utils._rebuild_tensor and _rebuild_tensor_v2; gradients and hooks are left out."""
    if not (isinstance(storage, _Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise FormatError("the pickle holds a tensor of a form that is not read")
    numbers = (offset, *shape, *strides)
    if (
        len(shape) != len(strides)
        or len(shape) > 16
        or any(type(x) is not int or not 0 <= x < 1 << 48 for x in numbers)
    ):
        raise FormatError("the pickle holds a tensor of an impossible shape")
    last = sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if math.prod(shape) and (offset + last >= storage.count or math.prod(shape) > storage.count):
        raise FormatError(f"the pickle holds a tensor of shape {shape} in a storage of {storage.count} elements")
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor: object, *_: object) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise FormatError("the pickle holds a parameter that is no tensor")
    return tensor


_TENSORS: Globals = {
    "collections.OrderedDict": PLAIN["collections.OrderedDict"],
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    **{f"torch.{name}": _StorageType(dtype) for name, dtype in _STORAGES.items()},
}


def _storage(pid: object) -> _Storage:
    """The storage that a persistent id names: ("storage", type, key, device, elements) and, in legacy files, a view."""
    if not (
        isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage" and (len(pid) == 5 or pid[5] is None)
    ):
        raise FormatError(f"the pickle refers to {describe(pid)}, which is no storage")
    kind, key, count = getattr(pid[1], "stands_for", None), pid[2], pid[4]
    if not isinstance(kind, _StorageType):
        raise FormatError("the pickle refers to a storage of unknown type")
    if (
        type(key) is not str
        or not key.isascii()
        or not key.isalnum()
        or type(count) is not int
        or not 0 <= count < 1 << 48
    ):
        raise FormatError(
            f"the pickle refers to an impossible storage, {describe(key)} with {describe(count)} elements"
        )
    return _Storage(key, np.dtype(kind.dtype), count)


def _load(window: Window, allowed: Globals, where: str, persistent: Any = None) -> Any:
    unpickler = StreamingUnpickler(window, encoding="latin1")
    unpickler.allowed, unpickler.where, unpickler.persistent = allowed, where, persistent
    return guarded(unpickler.load, where)


def _is_zip(file: BinaryIO) -> bool:
    start = file.read(4)
    file.seek(0)
    return start == b"PK\x03\x04"


def _root(archive: zipfile.ZipFile, where: str) -> str:
    """The folder inside the archive, with its slash."""
    names = archive.namelist()
    pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise FormatError(f"{where} is no file of torch.save: its archive has {len(pickles)} pickles named data.pkl")
    if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
        raise FormatError(f"{where} is no file of torch.save: its archive is compressed")
    if len(set(names)) != len(names):
        raise FormatError(f"{where} is no file of torch.save: its archive has one name twice")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in names and guarded(lambda: archive.read(f"{root}byteorder"), where) != b"little":
        raise FormatError(f"{where} was written on a big-endian machine; save it again on another")
    return root


def _read_preamble(window: Window, where: str) -> None:
    magic, version = _load(window, {}, where), None
    if magic == _MAGIC and type(magic) is int:
        version = _load(window, {}, where)
    if version != _VERSION:
        raise FormatError(f"{where} is no file of torch.save: it starts with {describe(magic)}, {describe(version)}")
    system = _load(window, {}, where)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise FormatError(f"{where} was written on a big-endian machine; save it again on another")


def _check_end(window: Window, where: str) -> None:
    if guarded(lambda: window.ahead(1), where):
        raise FormatError(f"{where} goes on after its end")
