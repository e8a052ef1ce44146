# SPDX-License-Identifier: Apache-2.0
"""Protobuf messages without protobuf: the fields of one, in the order they lie.

What a field means is its reader's business; nested messages are read by reading a field's bytes.

Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["fields", "varint", "varints"]

_FIXED: Final = {1: 8, 5: 4}  # bytes of a value, by wire type
_VARINT, _BYTES = 0, 2


def fields(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(number, wire type, raw value) of every field; a varint's value is still encoded.

    Raises ValueError, or IndexError where a number is cut off.

    >>> [(number, value) for number, _, value in fields(bytes((8, 150, 1, 18, 2)) + b"hi")]
    [(1, b'\\x96\\x01'), (2, b'hi')]
    """
    at, end = 0, len(message)
    while at < end:
        key, at = varint(message, at)
        wire = key & 7
        length = _FIXED.get(wire, 0)
        if wire == _VARINT:
            length = varint(message, at)[1] - at
        elif wire == _BYTES:
            length, at = varint(message, at)
        elif not length:
            raise ValueError(f"protobuf wire type {wire}")
        if at + length > end:
            raise ValueError("a message is cut off")
        yield key >> 3, wire, message[at : at + length]
        at += length


def varint(message: bytes, at: int = 0) -> tuple[int, int]:
    """The number at `at` and where it ends.

    >>> varint(bytes((150, 1)))
    (150, 2)
    """
    value = message[at]
    if value < 0x80:
        return value, at + 1
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")


def varints(values: bytes) -> Iterator[int]:
    """Numbers that lie one after another: a single one, or a packed field of them."""
    at = 0
    while at < len(values):
        value, at = varint(values, at)
        yield value
