"""TFRecord: a plain sequence of records, each with its length and two checksums.

A record is its length (uint64), the masked CRC-32C of these eight bytes (uint32), the payload, and the payload's masked
CRC-32C (uint32); everything is little-endian, there is no header, no footer and (here) no compression.
https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import google_crc32c
import numpy as np

from .errors import FormatError

MAX_LENGTH = 1 << 20
"""Bytes that a payload may have unless the caller says otherwise."""
_HEADER, _FOOTER = 12, 4
_MASK = 0xA282EAD8


def masked_crc32c(data: bytes) -> int:
    """The checksum as it stands in the file: CRC-32C (Castagnoli), rotated right by 15 bits, plus a constant."""
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """One record: `payload` with its length and checksums."""
    length = len(payload).to_bytes(8, "little")
    checks = [masked_crc32c(part).to_bytes(4, "little") for part in (length, payload)]
    return length + checks[0] + payload + checks[1]


def read_records(chunks: Iterable[bytes], *, where: str, max_length: int = MAX_LENGTH) -> Iterator[list[bytes]]:
    """The payloads of a file, a list for each chunk of it: those of the records that end in the chunk.

    Memory is bounded by the chunk plus one record.

    Args:
        chunks: the bytes of the file from its start, cut anywhere.
        where: names the file in errors.
        max_length: a record that claims a longer payload is refused.

    Raises:
        FormatError: a checksum does not fit, a length is absurd, or the file ends inside a record. The message names the
            record's byte offset. No list is yielded that holds a record behind the damage.
    """
    lengths: dict[bytes, int] = {}  # checked headers: a file has few different lengths
    crc32c = google_crc32c.value
    rest, base = b"", 0  # what is left of the chunks so far, and its offset in the file
    for chunk in chunks:
        data = rest + chunk if rest else chunk
        payloads: list[bytes] = []
        ends: list[int] = []
        start, size = 0, len(data)
        while (body := start + _HEADER) <= size:
            header = data[start:body]
            length = lengths.get(header)
            if length is None:
                length = lengths[header] = _length(header, base + start, where, max_length)
                if len(lengths) > 4096:
                    lengths.clear()
            end = body + length
            if end + _FOOTER > size:
                break
            payloads.append(data[body:end])
            ends.append(end)
            start = end + _FOOTER
        if payloads:
            crcs = np.fromiter(map(crc32c, payloads), dtype=np.uint32, count=len(payloads))
            masked = (crcs >> 15 | crcs << 17) + np.uint32(_MASK)
            places = np.array(ends)[:, None] + np.arange(_FOOTER)
            stored = np.frombuffer(data, dtype=np.uint8)[places].view("<u4")[:, 0]
            if (wrong := np.flatnonzero(masked != stored)).size:
                first = int(wrong[0])
                offset = base + ends[first] - len(payloads[first]) - _HEADER
                raise FormatError(
                    f"{where} is damaged: the checksum of the record at byte {offset} does not fit its"
                    f" {len(payloads[first])} bytes; download or copy the file again"
                )
            yield payloads
        rest = data[start:]
        base += start
    if rest:
        raise FormatError(
            f"{where} is cut off: it ends {len(rest)} bytes into the record at byte {base}; download or copy it again"
        )


def _length(header: bytes, offset: int, where: str, max_length: int) -> int:
    if masked_crc32c(header[:8]) != int.from_bytes(header[8:], "little"):
        raise FormatError(
            f"{where} is damaged or no TFRecord file: the checksum of the length at byte {offset} does not fit"
            + ("" if offset else " (a compressed file must be unpacked first)")
        )
    length = int.from_bytes(header[:8], "little")
    if length > max_length:
        raise FormatError(f"{where}: the record at byte {offset} claims {length} bytes; at most {max_length} are read")
    return length
