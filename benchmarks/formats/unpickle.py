"""The one way in which nasharness reads a pickle: with a list of the globals that it may ask for.

A pickle is a program for a small stack machine. It becomes dangerous through one instruction family only: those that fetch
a global by name, such as `os.system`. Here every such name is looked up, spelled as the file spells it, in the reader's own
list, whose values are our own stand-ins: nothing is ever imported because a file says so. Anything else is refused with the
global's name.

What remains is that a file may try to change the stand-ins (BUILD sets attributes), to take memory (a length that it does
not have, one string copied a million times) or to take time (keys that hash for ever). `StreamingUnpickler` refuses all of
these: its memory is a small multiple of the bytes it has read. `FastUnpickler`, in C, cannot: one instruction can make it
allocate a memo of any size, so it is for files that a checksum vouches for.
"""

from __future__ import annotations

import codecs
import errno
import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, BinaryIO, ClassVar, NoReturn

import numpy as np
import numpy.typing as npt

from .errors import FormatError

Globals = Mapping[str, Any]
"""From "module.name" to what stands in for it."""

_CHUNK = 1 << 18
_MAX_LINE = 1 << 20


def describe(value: object) -> str:
    """A value of a file for an error message: never long, and never an expansion of what a small pickle can nest."""
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if abs(value) < 1 << 64 else f"an int of {value.bit_length()} bits"
    if isinstance(value, str | bytes):
        return repr(value) if len(value) <= 120 else f"{value[:120]!r}..."
    if isinstance(value, tuple) and len(value) <= 4 and not any(isinstance(part, tuple) for part in value):
        return f"({', '.join(describe(part) for part in value)})"
    return f"a {type(value).__name__}"


class _Dtype:
    """Stands in for numpy.dtype: remembers the type's code and byte order, and accepts little-endian scalars only."""

    def __init__(self, code: str, *_: object) -> None:
        self.format = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i"}.get(code if isinstance(code, str) else "")
        if self.format is None:
            raise FormatError(f"the pickle holds a NumPy scalar of the unknown type {describe(code)}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if not (isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", "|", "=")):
            raise FormatError(f"the pickle holds a NumPy scalar of unknown byte order: {describe(state)}")


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


def _ordered_dict(*items: object) -> OrderedDict[Any, Any]:
    """Stands in for collections.OrderedDict, which is pickled empty and then filled."""
    if items:
        raise FormatError("the pickle holds an OrderedDict of a form that is not read")
    return OrderedDict()


PLAIN: Globals = {
    "collections.OrderedDict": _ordered_dict,
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "_codecs.encode": _encode,
}
"""What plain data needs. NumPy scalars become Python numbers."""


class _Sealed:
    """A stand-in function that no instruction can alter: a plain function's defaults could be set by BUILD."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    @property
    def stands_for(self) -> Any:
        """What is sealed."""
        return self._function

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FormatError("the pickle tries to alter a function")

    def __setstate__(self, state: object) -> NoReturn:
        raise FormatError("the pickle tries to alter a function")


class _Restricted:
    """The two hooks of an unpickler, shared by the fast and the streaming one."""

    allowed: Globals
    where: str
    persistent: Callable[[Any], Any] | None = None

    def find_class(self, module: str, name: str) -> Any:
        if "." not in name:  # a dotted name would walk through attributes
            try:
                value = self.allowed[f"{module}.{name}"]
            except KeyError:
                pass
            else:
                return value if isinstance(value, type) else _Sealed(value)
        raise FormatError(
            f"{self.where}: refused, because the pickle asks for {f'{module}.{name}'[:200]},"
            f" which is none of {', '.join(sorted(self.allowed)) or 'nothing'}"
        )

    def persistent_load(self, pid: Any) -> Any:
        if self.persistent is None:
            raise FormatError(f"{self.where}: refused, because the pickle refers to data outside itself")
        return self.persistent(pid)


class FastUnpickler(_Restricted, pickle.Unpickler):
    """The C unpickler with our list, for small files that a checksum vouches for: its memory and time are not bounded.

    A class among `allowed` must say by `__setstate__` which state it takes.
    """

    def find_class(self, module: str, name: str) -> Any:
        value = super().find_class(module, name)
        if isinstance(value, type) and value.__flags__ & _HEAP_TYPE and not hasattr(value, "__setstate__"):
            raise TypeError(f"the stand-in {value.__name__} needs a __setstate__ to be used with the C unpickler")
        return value


_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: its attributes can be set


class _Exact:
    """Reads a file exactly as far as it is asked to; what a length promises is not allocated before it is there."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.taken = 0

    def read(self, n: int) -> bytes:
        data: bytes = self._file.read(n if n <= _CHUNK else _CHUNK)
        if len(data) < n:
            parts = [data]
            missing = n - len(data)
            while missing and (part := self._file.read(min(missing, _CHUNK))):
                parts.append(part)
                missing -= len(part)
            if missing:
                raise EOFError(f"{n} bytes are announced, {n - missing} are there")
            data = b"".join(parts)
        self.taken += n
        return data

    def readline(self) -> bytes:
        line: bytes = self._file.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise EOFError("a line has no end")
        self.taken += len(line)
        return line


class Window:
    """Reads a file in blocks and lets what is ahead be looked at.

    Args:
        read: gives up to n bytes, b"" at the end of the file.
        limit: at most so many bytes between two calls of `renew`, None for any: the guard against small files that
            decompress into huge ones.
        where: names the file in errors.

    Attributes:
        data, pos: the block, and how much of it is used.
    """

    def __init__(self, read: Callable[[int], bytes], *, limit: int | None = None, where: str = "the file") -> None:
        self._read, self._limit, self._where = read, limit, where
        self.data, self.pos = b"", 0
        self._before = self._renewed = 0

    @property
    def taken(self) -> int:
        """Bytes used so far."""
        return self._before + self.pos

    def renew(self) -> None:
        """Start to count towards `limit` again."""
        self._renewed = self.taken

    def ahead(self, n: int) -> int:
        """Have n more bytes in `data` if the file has them; returns how many bytes are ahead."""
        have = len(self.data) - self.pos
        if have >= n:
            return have
        if self._limit is not None and self.taken - self._renewed + n > self._limit + _CHUNK:
            raise FormatError(f"{self._where}: an item is larger than {self._limit} bytes; refused")
        parts = [self.data[self.pos :]]
        while have < n and (part := self._read(_CHUNK)):
            parts.append(part)
            have += len(part)
        self._before += self.pos
        self.data, self.pos = b"".join(parts), 0
        return have

    def read(self, n: int) -> bytes:
        end = self.pos + n
        if end > len(self.data):
            if (have := self.ahead(n)) < n:
                raise EOFError(f"{n} bytes are announced, {have} are there")
            end = n
        data = self.data[self.pos : end]
        self.pos = end
        return data

    def readline(self) -> bytes:
        if (end := self.data.find(b"\n", self.pos)) < 0:
            self.ahead(_MAX_LINE)
            if (end := self.data.find(b"\n", self.pos)) < 0:
                raise EOFError("a line has no end")
        return self.read(end + 1 - self.pos)


class StreamingUnpickler(_Restricted, pickle._Unpickler):
    """The pure Python unpickler with our list: slower, but its memo is a dict, and subclasses can follow what it builds.

    Beyond the list it refuses what plain data never needs: attributes set on anything but instances of the allowed classes
    (and there, on names that the class has itself), keys other than strings, bytes, numbers and flat tuples of these,
    extension codes, and calls that copy more bytes than were read.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    memo: dict[int, Any]

    def __init__(self, file: Any, **options: Any) -> None:
        super().__init__(file, **options)
        self.reader: Any = file if isinstance(file, Window) else _Exact(file)
        self._copied = 0

    def load(self) -> Any:
        self.metastack: list[list[Any]] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.proto = 0
        read = self.read = self.reader.read
        self.readline = self.reader.readline
        dispatch = self.dispatch
        try:
            while True:
                dispatch[read(1)[0]](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            return stop.value

    def pop_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.metastack.pop()
        self.append = self.stack.append
        return items

    def load_frame(self) -> None:
        self.read(8)  # frames are hints for buffering

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def load_reduce(self) -> None:
        args = self.stack.pop()
        if type(args) is not tuple:
            raise FormatError(f"{self.where}: refused, because the pickle calls with {describe(args)} as arguments")
        self.stack[-1] = self._call(self.stack[-1], args)

    def _instantiate(self, function: Any, args: list[Any]) -> None:
        self.append(self._call(function, args))  # what INST and OBJ do

    def _call(self, function: Any, args: Iterable[Any]) -> Any:
        if not isinstance(function, _Sealed | type):
            raise FormatError(f"{self.where}: refused, because the pickle calls {describe(function)}")
        value = function(*args)
        if isinstance(value, str | bytes | bytearray | list | dict | tuple | set):
            self._copied += len(value)
            if self._copied > 4 * self.reader.taken + _CHUNK:
                raise FormatError(f"{self.where}: refused, because the pickle makes copies of its own strings")
        return value

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        kind = type(target)
        if kind is not OrderedDict and not any(kind is value for value in self.allowed.values()):
            raise FormatError(f"{self.where}: refused, because the pickle sets attributes of {describe(target)}")
        if hasattr(target, "__setstate__"):
            target.__setstate__(state)
            return
        if type(state) is not dict or not all(
            type(name) is str and name.isidentifier() and not name.startswith("__") and not hasattr(kind, name)
            for name in state
        ):
            raise FormatError(f"{self.where}: refused, because the pickle sets attributes that are not plain data")
        target.__dict__.update(state)

    def get_extension(self, code: int) -> NoReturn:
        raise FormatError(f"{self.where}: refused, because the pickle asks for extension {code}")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.store(self.stack[-1], [key], [value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self.store(self.stack[-1], items[::2], items[1::2])

    def load_dict(self) -> None:
        items = self.pop_mark()
        made: dict[Any, Any] = {}
        self.store(made, items[::2], items[1::2])
        self.append(made)

    def store(self, target: Any, keys: list[Any], values: list[Any]) -> None:
        """Set items of a dict; subclasses look here."""
        if not isinstance(target, dict):
            raise FormatError(f"{self.where}: refused, because the pickle sets items of {describe(target)}")
        self._check_keys(keys)
        target.update(zip(keys, values, strict=True))

    def load_additems(self) -> None:
        items = self.pop_mark()
        self._check_keys(items)
        self.stack[-1].update(items) if type(self.stack[-1]) is set else self.stack[-1].extend(items)

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self._check_keys(items)
        self.append(frozenset(items))

    def _check_keys(self, keys: list[Any]) -> None:
        """Hashing must be quick: no nesting, whose hash can take for ever, and no ints that share one hash."""
        kinds = set(map(type, keys))
        if kinds <= {str, bytes} or (kinds == {int} and min(keys) > -_MAX_KEY and max(keys) < _MAX_KEY):
            return
        for key in keys:
            for part in key if type(key) is tuple else (key,):
                if type(part) not in _KEYS or (type(part) is int and not -_MAX_KEY < part < _MAX_KEY):
                    raise FormatError(f"{self.where}: refused, because the pickle has {describe(part)} as a key")

    for _opcode, _method in (
        (pickle.FRAME, load_frame),
        (pickle.BYTEARRAY8, load_bytearray8),
        (pickle.REDUCE, load_reduce),
        (pickle.BUILD, load_build),
        (pickle.SETITEM, load_setitem),
        (pickle.SETITEMS, load_setitems),
        (pickle.DICT, load_dict),
        (pickle.ADDITEMS, load_additems),
        (pickle.FROZENSET, load_frozenset),
    ):
        dispatch[_opcode[0]] = _method
    del _opcode, _method


_KEYS = (str, bytes, int, float, bool, type(None))
_MAX_KEY = 1 << 60


class BulkUnpickler(StreamingUnpickler):
    """A streaming unpickler that takes long runs of `key, float` in one step; reads a `Window`.

    Tables of curves are pickled as dicts from epochs or short strings to floats, nine tenths of all instructions. Such runs
    have records of one size, so NumPy reads them from the block. Everything else goes the slow way, and a run may end
    anywhere: the step only pushes what the single instructions would have pushed.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(StreamingUnpickler.dispatch)
    reader: Window
    dropped = 0
    """Entries that a subclass removed from the memo: MEMOIZE counts them."""

    def load_mark(self) -> None:
        self.metastack.append(self.stack)
        self.stack = []
        self.append = self.stack.append
        self._take_runs()

    def load_frame(self) -> None:
        self.read(8)
        self._take_runs()

    def load_memoize(self) -> None:
        self.memo[len(self.memo) + self.dropped] = self.stack[-1]

    for _opcode, _method in ((pickle.MARK, load_mark), (pickle.FRAME, load_frame), (pickle.MEMOIZE, load_memoize)):
        dispatch[_opcode[0]] = _method
    del _opcode, _method

    def _take_runs(self) -> None:
        while self._take_run():
            pass

    def _take_run(self) -> bool:
        window = self.reader
        have = window.ahead(1 << 13)
        data, pos = window.data, window.pos
        if have < 64:
            return False
        length, put = 0, 0
        opcode = data[pos]
        if opcode == _BINUNICODE:
            length = int.from_bytes(data[pos + 1 : pos + 5], "little")
            put = data[pos + 5 + length] if length <= 32 else 0
            if not length or put not in (_BINPUT, _LONG_BINPUT):
                return False
        elif opcode == _SHORT_BINUNICODE:
            length = data[pos + 1]
            if not 0 < length <= 32:
                return False
        elif opcode not in (_BININT1, _BINGET, _LONG_BINGET):
            return False
        layout, constants = _record(opcode, length, put)
        size = layout.itemsize
        # Most marks open something else: the fourth record must look like one before NumPy is asked.
        if have < 4 * size or data[pos + 3 * size] != opcode or data[pos + 4 * size - 9] != _BINFLOAT:
            return False
        records: npt.NDArray[Any] = np.frombuffer(data, layout, min(have // size, 256), pos)
        same = records["opcode"] == opcode
        for name, value in constants:
            same &= records[name] == value
        n = len(records) if (first := int(same.argmin())) == 0 and same[0] else first
        if n < 4:
            return False
        records = records[:n]
        keys: list[Any]
        if length:
            try:
                text = records["text"].tobytes().decode("ascii")
            except UnicodeDecodeError:
                return False
            keys = [text[i : i + length] for i in range(0, n * length, length)]
            if put:
                self.memo.update(zip(records["id"].tolist(), keys, strict=True))
            else:
                start = len(self.memo) + self.dropped
                self.memo.update(zip(range(start, start + n), keys, strict=True))
        else:
            keys = records["id"].tolist()
            if opcode != _BININT1:
                memo = self.memo
                keys = [memo[i] for i in keys]
        items = [None] * (2 * n)
        items[::2], items[1::2] = keys, records["value"].tolist()
        self.stack += items
        window.pos = pos + n * size
        return True


_BININT1, _BINFLOAT = pickle.BININT1[0], pickle.BINFLOAT[0]
_BINUNICODE, _SHORT_BINUNICODE = pickle.BINUNICODE[0], pickle.SHORT_BINUNICODE[0]
_BINGET, _LONG_BINGET = pickle.BINGET[0], pickle.LONG_BINGET[0]
_BINPUT, _LONG_BINPUT, _MEMOIZE = pickle.BINPUT[0], pickle.LONG_BINPUT[0], pickle.MEMOIZE[0]


@lru_cache(maxsize=256)
def _record(opcode: int, length: int, put: int) -> tuple[np.dtype[Any], tuple[tuple[str, int], ...]]:
    """The layout of one `key, float`, and the fields that must be alike in all records of a run."""
    fields: list[Any] = [("opcode", "u1")]
    constants = [("float", _BINFLOAT)]
    if length:
        wide = opcode == _BINUNICODE
        fields += [("length", "<u4" if wide else "u1"), ("text", "u1", (length,)), ("put", "u1")]
        constants += [("length", length), ("put", put if wide else _MEMOIZE)]
        if wide:
            fields.append(("id", "<u4" if put == _LONG_BINPUT else "u1"))
    else:
        fields.append(("id", "<u4" if opcode == _LONG_BINGET else "u1"))
    return np.dtype([*fields, ("float", "u1"), ("value", ">f8")]), tuple(constants)


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
        fast: use the C implementation (see `FastUnpickler` for when).

    Raises:
        FormatError: the pickle is damaged or cut off, or asks for anything that is not in `allowed`.
    """
    file = io.BytesIO(source) if isinstance(source, bytes | bytearray) else source
    unpickler: Any = (FastUnpickler if fast else StreamingUnpickler)(file, encoding="latin1")
    unpickler.allowed, unpickler.where, unpickler.persistent = allowed, where, persistent
    return guarded(unpickler.load, where)


def guarded(load: Callable[[], Any], where: str) -> Any:
    """Run `load`, turning whatever damage raises into a FormatError that names the file.

    An error of the operating system stays what it is, but for EINVAL, by which it answers an archive that points before its
    own start. Everything else that reading can raise is the file's doing: its bytes choose which instruction meets which
    object.
    """
    try:
        return load()
    except FormatError as error:
        if where in str(error):
            raise
        raise FormatError(f"{where}: {error}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise FormatError(f"{where} is damaged or cut off: {type(error).__name__}: {str(error)[:300]}") from error
