"""The records of NAS-Bench-101's official files (`nasbench_full.tfrecord`, `nasbench_only108.tfrecord`).

Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019. https://arxiv.org/abs/1902.09635

The payload of a record is a JSON array of five: the module's hash, the epochs of the run, the adjacency matrix row by row
as '0' and '1', the operations joined by commas, and the metrics: a Protocol Buffers message in base64 with a newline after
every 76 characters. The message has three evaluations (before, half way through and after training) and the number of
trainable parameters.

There are two readers. `decode_record` reads one record of any legal layout with the means of the standard library.
`decode_records` reads thousands at once and expects the layout that the official files have throughout: the metrics then
fill the last 216 bytes of the payload, so they can be decoded as the rows of one array. Whatever does not look like this,
byte for byte, it leaves to `decode_record`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..spaces.nasbench101 import OPERATIONS
from .errors import FormatError

METRICS = ("training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
"""What is known of each evaluation; times in seconds, accuracies in [0, 1]."""
MAX_VERTICES = 7


class Module(NamedTuple):
    """Which network was trained, and for how long: the part that the repeats of a run share.

    Attributes:
        hash: the 16 bytes of the module hash.
        epochs: epochs of the training run.
        vertices: number of vertices, 2..7.
        adjacency: the adjacency matrix as a binary number, row by row, the first entry in the highest bit.
        labels: index into `OPERATIONS` of each interior vertex.
    """

    hash: bytes
    epochs: int
    vertices: int
    adjacency: int
    labels: tuple[int, ...]


class Record(NamedTuple):
    """One training run.

    Attributes:
        module: which network, and for how long.
        parameters: trainable parameters.
        metrics: `METRICS` half way, then `METRICS` at the end: 8 numbers.
    """

    module: Module
    parameters: int
    metrics: tuple[float, ...]


class Records(NamedTuple):
    """Many training runs, by column.

    Attributes:
        modules: the different modules of these runs in order of first appearance.
        module: intp `(n,)`, index into `modules`.
        parameters: int64 `(n,)`.
        metrics: float64 `(n, 2, 4)`: half way and at the end, `METRICS`.
    """

    modules: list[Module]
    module: npt.NDArray[np.intp]
    parameters: npt.NDArray[np.int64]
    metrics: npt.NDArray[np.float64]


# ---------------------------------------------------------------------------------------------- one record, any layout


def decode_record(payload: bytes, *, where: str) -> Record:
    """Read one payload of any legal layout.

    Raises:
        FormatError: it is not what a record of NAS-Bench-101 should be; the message says what is wrong with it.
    """
    try:
        content = json.loads(payload.decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: a record is not JSON: {error}") from None
    if not (isinstance(content, list) and len(content) == 5):
        raise FormatError(f"{where}: a record is not a JSON array of five")
    module_hash, epochs, adjacency, operations, metrics = content
    if not all(isinstance(text, str) for text in (module_hash, adjacency, operations, metrics)):
        raise FormatError(f"{where}: hash, adjacency, operations and metrics of a record must be strings")
    if isinstance(epochs, bool) or not isinstance(epochs, int) or not 0 < epochs < 2**31:
        raise FormatError(f"{where}: a record has {epochs!r} epochs")
    if not _HASH.fullmatch(module_hash):
        raise FormatError(f"{where}: {module_hash!r} is not a module hash of 32 lower-case hexadecimal digits")
    if not _BITS.fullmatch(adjacency):
        raise FormatError(f"{where}: {adjacency!r} is not the adjacency matrix of 2 to {MAX_VERTICES} vertices")
    module = _module(module_hash, epochs, adjacency, operations, where)
    try:
        message = base64.b64decode("".join(metrics.split()), validate=True)
    except ValueError as error:
        raise FormatError(f"{where}: the metrics of {module_hash} are not base64: {error}") from None
    parameters, values = _decode_metrics(message, f"{where}: the metrics of {module_hash}")
    return Record(module, parameters, values)


def encode_record(
    module_hash: str,
    epochs: int,
    adjacency: str,
    operations: str,
    parameters: int,
    total_time: float,
    evaluations: Sequence[Sequence[float]],
) -> bytes:
    """The payload of one record in the layout of the official files.

    Args:
        module_hash: 32 hexadecimal digits.
        epochs: epochs of the run.
        adjacency: the matrix row by row as '0' and '1'.
        operations: joined by commas, from "input" to "output".
        parameters: trainable parameters.
        total_time: seconds of training and evaluations together.
        evaluations: epoch, then `METRICS`, of each evaluation.
    """
    message = b""
    for evaluation in evaluations:
        fields = b"".join(bytes([number << 3 | 1]) + struct.pack("<d", x) for number, x in enumerate(evaluation, 1))
        message += b"\x0a" + bytes([len(fields)]) + fields
    message += b"\x10" + _varint(parameters) + b"\x19" + struct.pack("<d", total_time)
    metrics = base64.encodebytes(message).decode()
    return json.dumps([module_hash, epochs, adjacency, operations, metrics]).encode()


def _varint(number: int) -> bytes:
    number &= 2**64 - 1
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


_HASH = re.compile("[0-9a-f]{32}")
_BITS = re.compile("[01]+")
_VERTICES = {v * v: v for v in range(2, MAX_VERTICES + 1)}


def _module(module_hash: str, epochs: int, adjacency: str, operations: str, where: str) -> Module:
    """Both readers' common part, on strings that are known to be hexadecimal and binary digits."""
    vertices = _VERTICES.get(len(adjacency))
    if vertices is None:
        raise FormatError(f"{where}: {adjacency!r} is not the adjacency matrix of 2 to {MAX_VERTICES} vertices")
    matrix = int(adjacency, 2)
    if matrix & _LOWER[vertices]:
        raise FormatError(f"{where}: the adjacency matrix {adjacency} is not strictly upper triangular")
    labels = _labels(operations)
    if labels is None or len(labels) != vertices - 2:
        raise FormatError(
            f"{where}: {operations!r} is not a list of {vertices} operations: input,"
            f" {vertices - 2} of {'/'.join(OPERATIONS)}, output"
        )
    return Module(bytes.fromhex(module_hash), epochs, vertices, matrix, labels)


_LOWER = [
    sum(1 << (v * v - 1 - (row * v + column)) for row in range(v) for column in range(row + 1))
    for v in range(MAX_VERTICES + 1)
]
"""For each number of vertices, the bits of the entries that must be 0: the diagonal and below."""


@lru_cache(maxsize=4096)
def _labels(operations: str) -> tuple[int, ...] | None:
    names = operations.split(",")
    if len(names) < 2 or names[0] != "input" or names[-1] != "output" or not set(names[1:-1]) <= set(OPERATIONS):
        return None
    return tuple(OPERATIONS.index(name) for name in names[1:-1])


def _decode_metrics(message: bytes, where: str) -> tuple[int, tuple[float, ...]]:
    """Parameters and the metrics of the second and third evaluation; a missing field is 0, as in proto2."""
    parameters = 0
    evaluations: list[tuple[float, ...]] = []
    for number, value in _fields(message, where):
        if number == 1 and isinstance(value, bytes):
            numbers = [0.0] * len(METRICS)
            for inner, x in _fields(value, where):
                if 2 <= inner <= 5 and isinstance(x, float):  # 1 is the epoch, 6 a path
                    numbers[inner - 2] = x
            evaluations.append(tuple(numbers))
        elif number == 2 and isinstance(value, int):
            parameters = (value + 2**31) % 2**32 - 2**31  # an int32 travels as 64 bits
    if len(evaluations) != 3:
        raise FormatError(f"{where} hold {len(evaluations)} evaluations instead of 3 (start, half way, end)")
    return parameters, evaluations[1] + evaluations[2]


def _fields(message: bytes, where: str) -> list[tuple[int, int | float | bytes]]:
    """Field numbers and values of a Protocol Buffers message: varints as int, doubles as float, everything else as bytes."""
    fields: list[tuple[int, int | float | bytes]] = []
    position = 0

    def varint() -> int:
        nonlocal position
        number = 0
        for shift in range(0, 70, 7):
            if position >= len(message):
                break
            byte = message[position]
            position += 1
            number |= (byte & 127) << shift
            if byte < 128:
                return number & (2**64 - 1)
        raise FormatError(f"{where} are cut off or damaged: a number in them has no end")

    while position < len(message):
        number, wire = divmod(varint(), 8)
        if number == 0 or wire not in (0, 1, 2, 5):
            raise FormatError(f"{where} are damaged: field {number} of wire type {wire}")
        if wire == 0:
            fields.append((number, varint()))
            continue
        length = 8 if wire == 1 else 4 if wire == 5 else varint()
        value = message[position : position + length]
        position += length
        if len(value) != length:
            raise FormatError(f"{where} are cut off: field {number} has {len(value)} of {length} bytes")
        if wire != 5:  # nothing in these messages is a float or fixed32
            fields.append((number, struct.unpack("<d", value)[0] if wire == 1 else value))
    return fields


# ------------------------------------------------------------------------------------ many records, the official layout

_TAIL = 216  # lines of 76, 76 and 56 characters, each followed by a JSON-escaped newline, then `"]`
_LINES = ((0, 76), (78, 154), (156, 212))  # where the tail has base64: 208 characters
_FRAME = np.array([76, 77, 154, 155, 212, 213, 214, 215])
_FRAME_BYTES = np.frombuffer(b'\\n\\n\\n"]', dtype=np.uint8)
_HEAD = re.compile(r'\["([0-9a-f]{32})", ([1-9][0-9]{0,8}), "([01]{4,49})", "([a-z0-9,-]+)", "')
_ALPHABET = np.zeros(256, dtype=bool)
_ALPHABET[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")] = True

_MESSAGE = 156  # bytes that 208 characters make; the last one or two are padding
_EVALUATION = 47  # three of these, with a tag before each value, then the parameters (3 or 4 bytes) and the total time
_TAGS = np.array([_EVALUATION * e + at for e in range(3) for at in (0, 1, 2, 11, 20, 29, 38)] + [3 * _EVALUATION])
_TAG_BYTES = np.frombuffer(b"\x0a\x2d\x09\x11\x19\x21\x29" * 3 + b"\x10", dtype=np.uint8)
_DOUBLES = np.array([_EVALUATION * e + at + byte for e in (1, 2) for at in (12, 21, 30, 39) for byte in range(8)])


def decode_records(payloads: Sequence[bytes], *, where: str) -> Records:
    """Read many payloads at once; the result is what `decode_record` says about each.

    Raises:
        FormatError: see `decode_record`.
    """
    usual, parameters, metrics = _decode_tails(payloads)
    modules: dict[Module, int] = {}
    heads = [payload[:-_TAIL] for payload in payloads]
    places = {head: _place(head, modules, where) for head in dict.fromkeys(heads)}
    module = np.fromiter(map(places.__getitem__, heads), dtype=np.intp, count=len(heads))
    unusual = np.flatnonzero(~usual | (module < 0)).tolist()
    for i in unusual:
        record = decode_record(payloads[i], where=where)
        module[i] = modules.setdefault(record.module, len(modules))
        parameters[i], metrics[i] = record.parameters, np.reshape(record.metrics, (2, -1))
    listed = list(modules)
    if unusual:  # their modules may be listed too late
        numbers, first, inverse = np.unique(module, return_index=True, return_inverse=True)
        order = np.argsort(first)
        listed = [listed[number] for number in numbers[order]]
        module = np.argsort(order)[inverse]
    return Records(listed, module, parameters, metrics)


def _place(head: bytes, modules: dict[Module, int], where: str) -> int:
    """The number of the module that `head` names; -1 if its layout is not the usual one."""
    match = _HEAD.fullmatch(head.decode("latin1"))
    if match is None:
        return -1
    module_hash, epochs, adjacency, operations = match.groups()
    return modules.setdefault(_module(module_hash, int(epochs), adjacency, operations, where), len(modules))


def _decode_tails(
    payloads: Sequence[bytes],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Which payloads end in metrics of the official layout, and these records' parameters and metrics (others: 0)."""
    n = len(payloads)
    tails = b"".join([payload[-_TAIL:] for payload in payloads])
    if len(tails) != n * _TAIL:  # a payload is shorter than that
        tails = b"".join([payload[-_TAIL:].rjust(_TAIL) for payload in payloads])
    tail = np.frombuffer(tails, dtype=np.uint8).reshape(n, _TAIL)
    characters = np.concatenate([tail[:, start:end] for start, end in _LINES], axis=1)
    padding = characters[:, -2:] == ord("=")
    characters[:, -2:][padding] = ord("A")  # so that the rows decode to equally many bytes
    usual = (tail[:, _FRAME] == _FRAME_BYTES).all(axis=1) & padding[:, 1]
    rows = np.flatnonzero(usual)
    if len(rows) < n:
        characters, padding = characters[rows], padding[rows]
    try:
        decoded = binascii.a2b_base64(characters.tobytes(), strict_mode=True)
    except binascii.Error:  # some row holds another character
        known = _ALPHABET[characters].all(axis=1)
        rows, characters, padding = rows[known], characters[known], padding[known]
        decoded = binascii.a2b_base64(characters.tobytes(), strict_mode=True)
    message = np.frombuffer(decoded, dtype=np.uint8).reshape(-1, _MESSAGE)

    fits = (message[:, _TAGS] == _TAG_BYTES).all(axis=1)
    varint = message[:, 3 * _EVALUATION + 1 : 3 * _EVALUATION + 6].astype(np.int64)
    is_short = padding[:, 0]  # a byte less, hence 3 bytes of parameters
    more = varint > 127
    fits &= more[:, 0] & more[:, 1] & (more[:, 2] != is_short) & (is_short | ~more[:, 3])
    fits &= np.where(is_short, varint[:, 3], varint[:, 4]) == 0x19  # the tag of the total time
    number = (varint[:, :4] & 127) << np.array([0, 7, 14, 21])
    number[is_short, 3] = 0
    doubles = np.ascontiguousarray(message[:, _DOUBLES]).view("<f8").reshape(-1, 2, len(METRICS))

    usual = np.zeros(n, dtype=bool)
    usual[rows] = fits
    parameters = np.zeros(n, dtype=np.int64)
    parameters[rows] = number.sum(axis=1)
    metrics = np.zeros((n, 2, len(METRICS)))
    metrics[rows] = doubles
    return usual, parameters, metrics
