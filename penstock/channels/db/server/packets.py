"""Rows out of MySQL's packets: many at once from what has arrived, where the driver awaits each twice.

A packet is its length (3 bytes, little-endian), its number (1 byte) and its body; a row's body is one field after the
other, each a length and bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

_HEADER: Final = 4
#: A body of this length goes on in the next packet.
_FULL: Final = 0xFFFFFF
_NULL: Final = 0xFB
#: A longer field says in how many bytes its length is written.
_WIDTHS: Final = {0xFC: 2, 0xFD: 3, 0xFE: 8}

Converter = tuple[str | None, Callable[[Any], Any] | None]


def split(data: bytes) -> tuple[list[bytes], int]:
    """The bodies that have arrived whole, and how many bytes they took."""
    bodies: list[bytes] = []
    at = 0
    while True:
        body, end = _body(data, at)
        if body is None:
            return bodies, at
        bodies.append(body)
        at = end


def row(body: bytes, converters: Sequence[Converter]) -> tuple[Any, ...]:
    """The fields of a row; the driver's converters say what of."""
    found: list[Any] = []
    at = 0
    for encoding, convert in converters:
        length = body[at]
        at += 1
        if length == _NULL:
            found.append(None)
            continue
        if length > _NULL:
            width = _WIDTHS[length]
            length = int.from_bytes(body[at : at + width], "little")
            at += width
        value: Any = body[at : at + length]
        at += length
        if encoding is not None:
            value = value.decode(encoding)
        found.append(value if convert is None else convert(value))
    return tuple(found)


def _body(data: bytes, at: int) -> tuple[bytes | None, int]:
    parts: list[bytes] = []
    while True:
        start = at + _HEADER
        if len(data) < start:
            return None, at
        length = data[at] | data[at + 1] << 8 | data[at + 2] << 16
        at = start + length
        if len(data) < at:
            return None, at
        if not parts and length < _FULL:
            return data[start:at], at
        parts.append(data[start:at])
        if length < _FULL:
            return b"".join(parts), at
