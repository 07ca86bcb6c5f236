"""The one way in which nasharness reads a pickle: with a list of the globals that it may ask for.

A pickle is a program for a small stack machine. It becomes dangerous through one instruction family only: those that fetch
a global by name, such as `os.system`. Here every such name is looked up in the reader's own list, whose values are our own
stand-ins: nothing is ever imported because a file says so. Anything else is refused with the global's name.
"""

from __future__ import annotations

import codecs
import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from .errors import FormatError

Globals = Mapping[str, Any]
"""From "module.name" to what stands in for it."""


class _Dtype:
    """Stands in for numpy.dtype: remembers the type's code and byte order, and accepts little-endian scalars only."""

    def __init__(self, code: str, *_: object) -> None:
        self.format = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i"}.get(code if isinstance(code, str) else "")
        if self.format is None:
            raise FormatError(f"the pickle holds a NumPy scalar of the unknown type {code!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if not (isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", "|", "=")):
            raise FormatError(f"the pickle holds a NumPy scalar of unknown byte order: {state!r}")


def _scalar(dtype: object, data: object = b"") -> float | int:
    if not (isinstance(dtype, _Dtype) and isinstance(data, bytes) and dtype.format is not None):
        raise FormatError("the pickle holds a NumPy scalar of a form that is not read")
    if len(data) != struct.calcsize(dtype.format):
        raise FormatError(f"the pickle holds a NumPy scalar of {len(data)} bytes")
    number: float | int = struct.unpack(dtype.format, data)[0]
    return number


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Stands in for _codecs.encode, by which protocol 2 spells bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise FormatError("the pickle holds bytes in an encoding that is not read")
    return codecs.encode(text, "latin1")


PLAIN: Globals = {
    "collections.OrderedDict": OrderedDict,
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "_codecs.encode": _encode,
}
"""What plain data needs. NumPy scalars become Python numbers."""


class _Restricted:
    """The two hooks of an unpickler, shared by the fast and the streaming one."""

    allowed: Globals
    where: str
    persistent: Callable[[Any], Any] | None = None

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[f"{module}.{name}"]
        except KeyError:
            raise FormatError(
                f"{self.where}: refused, because the pickle asks for {module}.{name},"
                f" which is none of {', '.join(sorted(self.allowed)) or 'nothing'}"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        if self.persistent is None:
            raise FormatError(f"{self.where}: refused, because the pickle refers to data outside itself")
        return self.persistent(pid)


class FastUnpickler(_Restricted, pickle.Unpickler):
    """The C unpickler with our list. For small files: what a hostile pickle can make it allocate is not bounded."""


class StreamingUnpickler(_Restricted, pickle._Unpickler):  # type: ignore[misc, name-defined]
    """The pure Python unpickler with our list: slower, but its memo is a dict, and subclasses can follow what it builds."""


_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    MemoryError,
    ImportError,
    AssertionError,
    RecursionError,
    struct.error,
    UnicodeError,
)
"""Everything that a damaged or hostile pickle was seen to raise."""


def restricted_loads(
    source: bytes | BinaryIO,
    allowed: Globals = PLAIN,
    *,
    where: str,
    persistent: Callable[[Any], Any] | None = None,
    fast: bool = False,
) -> Any:
    """Read one pickle.

    Args:
        source: the pickle, or a binary file that stands at its start; it is left right behind its end.
        allowed: the globals that it may ask for, and what stands in for each.
        where: names the file in errors.
        persistent: what answers persistent ids; without it they are refused.
        fast: use the C implementation.

    Raises:
        FormatError: the pickle is damaged or cut off, or asks for anything that is not in `allowed`.
    """
    file = io.BytesIO(source) if isinstance(source, bytes | bytearray) else source
    unpickler: Any = (FastUnpickler if fast else StreamingUnpickler)(file, encoding="latin1")
    unpickler.allowed, unpickler.where, unpickler.persistent = allowed, where, persistent
    return guarded(unpickler.load, where)


def guarded(load: Callable[[], Any], where: str) -> Any:
    """Run `load`, turning whatever damage raises into a FormatError that names the file."""
    try:
        return load()
    except FormatError:
        raise
    except _DAMAGE as error:
        raise FormatError(f"{where} is damaged or cut off: {type(error).__name__}: {error}") from error
