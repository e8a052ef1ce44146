# SPDX-License-Identifier: Apache-2.0
"""TFRecord files without TensorFlow: framing and checksums.

A record is its length (8 bytes, little-endian), the masked CRC32C of those bytes (4), the data, the
masked CRC32C of the data (4). CRC32C has no vector form in numpy, but many records do: one table
look-up a byte is made for thousands of records at once, records sorted by length and aligned at
their ends, so that the ones still running are a prefix.

Source: tensorflow/core/lib/io/record_writer.h; RFC 3720, appendix B.4 (CRC32C).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["crc32c", "masked", "read_records"]

_POLYNOMIAL: Final = 0x82F63B78  # Castagnoli, bits reversed
_MASK_DELTA: Final = 0xA282EAD8
_HEADER: Final = struct.Struct("<QI")
_FOOTER: Final = struct.Struct("<I")
_LONGEST: Final = 1 << 26  # of one record; those of the benchmarks have a few hundred bytes
_BATCH: Final = 4096


def _make_table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


_TABLE: Final = _make_table()


def crc32c(messages: Sequence[bytes]) -> NDArray[np.uint32]:
    """CRC32C of each message, uint32 [n]. A few nanoseconds a byte where there are many.

    >>> hex(int(crc32c([b"123456789"])[0]))
    '0xe3069283'
    """
    lengths = np.array([len(message) for message in messages], np.int64)
    order = np.argsort(-lengths, kind="stable")
    longest = int(lengths.max(initial=0))
    aligned = np.zeros((len(messages), longest), np.uint8)
    filled = np.arange(longest) >= longest - lengths[order, None]
    aligned[filled] = np.frombuffer(b"".join([messages[index] for index in order]), np.uint8)
    frame = np.ascontiguousarray(aligned.T)  # byte after byte of all messages
    running = np.searchsorted(-lengths[order], np.arange(longest) - longest, side="right")
    state = np.full(len(messages), 0xFFFFFFFF, np.uint32)
    for row, count in zip(frame, running.tolist()):
        active = state[:count]
        active[:] = _TABLE.take((active ^ row[:count]).astype(np.uint8)) ^ (active >> 8)
    result = np.empty_like(state)
    result[order] = state ^ np.uint32(0xFFFFFFFF)
    return result


def masked(checksums: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Checksums as the format stores them: rotated, plus a constant."""
    rotated = (checksums >> np.uint32(15)) | (checksums << np.uint32(17))
    return rotated + np.uint32(_MASK_DELTA)


def read_records(file: BinaryIO, path: Path) -> Iterator[list[bytes]]:
    """The data of all records of `file`, in batches; `path` is for messages.

    Both checksums of every record are verified before its batch is given out. Memory is that of a
    batch, a few megabytes. Raises ValueError, naming the first record (from 0) that is damaged or
    cut off.
    """
    done = 0
    while True:
        headers, data, footers, fault = _read_batch(file)
        lengths = masked(crc32c([header[:8] for header in headers]))
        wanted = [_HEADER.unpack(header)[1] for header in headers]
        bad = np.flatnonzero(lengths != np.array(wanted, np.uint32))
        if len(bad):
            raise ValueError(
                f"{path}: record {done + int(bad[0])} is damaged (checksum of its length); "
                "download the file again"
            )
        stored = np.array(footers, np.uint32)
        bad = np.flatnonzero(masked(crc32c(data)) != stored)
        if len(bad):
            raise ValueError(
                f"{path}: record {done + int(bad[0])} is damaged (checksum of its data); "
                "download the file again"
            )
        if data:
            yield data
        done += len(data)
        if fault:
            raise ValueError(f"{path}: record {done} {fault}; download the file again")
        if len(data) < _BATCH:
            return


def _read_batch(file: BinaryIO) -> tuple[list[bytes], list[bytes], list[int], str]:
    """Headers, data and stored checksums of up to `_BATCH` records, and what stopped it early.

    The header of a record that could not be read whole comes along, to tell a damaged length from
    a file that was cut off.
    """
    headers: list[bytes] = []
    data: list[bytes] = []
    footers: list[int] = []
    while len(data) < _BATCH:
        header = file.read(_HEADER.size)
        if not header:
            return headers, data, footers, ""
        if len(header) < _HEADER.size:
            return headers, data, footers, "is cut off: the file ends inside it"
        headers.append(header)
        length = _HEADER.unpack(header)[0]
        if length > _LONGEST:
            return headers, data, footers, f"claims {length} bytes: not a benchmark's record"
        body = file.read(length + _FOOTER.size)
        if len(body) < length + _FOOTER.size:
            return headers, data, footers, "is cut off: the file ends inside it"
        data.append(body[:length])
        footers.append(_FOOTER.unpack_from(body, length)[0])
    return headers, data, footers, ""
