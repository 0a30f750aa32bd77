"""Rows on their way out: packed in pieces on the thread that reads them, never longer than a frame.

Encoding happens there because a large result would hold up the loop, and in pieces because one call into the
encoder holds the interpreter's lock for as long as it lasts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

import msgspec
from msgspec import Raw, Struct

from penstock.channels.db.exact import arrived
from penstock.errors import DatabaseError

_PIECE_BYTES: Final = 64 * 1024
_MOST_ROWS: Final = 1024
#: msgpack's words around the pieces: the answer's array, a header each.
_AROUND_BYTES: Final = 64
_HEADER_BYTES: Final = 5

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_rows: Final = msgspec.msgpack.Decoder(list[list[Any]], ext_hook=arrived).decode

#: Makes the rows of one piece.
Unpacker: TypeAlias = Callable[[Raw], list[dict[str, Any]]]


class Shape(Protocol):
    """What a statement knows of its rows."""

    def of(self, arrived: Sequence[str]) -> tuple[list[str], list[Callable[[Any], Any] | None]]:
        """For the columns that came: their names, and what makes each one's value."""
        ...


class Rows(Struct, frozen=True, array_like=True):
    """A result: the columns' names and the rows, packed."""

    columns: list[str]
    pieces: list[Raw]


def pack(cursor: sqlite3.Cursor, *, first_only: bool, limit_bytes: int) -> Rows:
    """A cursor's rows, or its first row, the rest unread.

    Raises `DatabaseError` when they exceed `limit_bytes`; little more than that is ever held.
    """
    columns = [column[0] for column in cursor.description or ()]
    left = limit_bytes - _AROUND_BYTES - len(_encode(columns))
    pieces: list[Raw] = []
    wanted = 1
    while rows := cursor.fetchmany(wanted):
        piece = _encode(rows)
        left -= len(piece) + _HEADER_BYTES
        if left < 0:
            raise too_large(limit_bytes)
        pieces.append(Raw(piece))
        if first_only:
            break
        # One row first, then as many as fit a piece: a row may be a megabyte.
        fitting = _PIECE_BYTES * len(rows) // len(piece)
        wanted = max(1, min(fitting, wanted * 8, _MOST_ROWS))
    return Rows(columns, pieces)


def fitting(rows: list[Any], room_bytes: int) -> tuple[int, bytes]:
    """How many of the rows fit, and those, encoded; mostly all do."""
    count = len(rows)
    while count:
        encoded = _encode(rows[:count])
        if len(encoded) <= room_bytes:
            return count, encoded
        count //= 2
    return 0, b""


def unpacker(columns: Sequence[str], shape: Shape | None) -> Unpacker:
    """What makes plain dicts of a piece's rows; of two columns with one name the last wins, so name them apart with AS."""
    names, processors = (columns, []) if shape is None else shape.of(columns)
    makers = [(place, make) for place, make in enumerate(processors) if make is not None]

    def unpack(piece: Raw) -> list[dict[str, Any]]:
        rows = _decode_rows(piece)
        for place, make in makers:
            for row in rows:
                row[place] = make(row[place])
        return [dict(zip(names, row, strict=True)) for row in rows]

    return unpack


def too_large(limit_bytes: int) -> DatabaseError:
    """For a result that no frame can carry."""
    return DatabaseError(
        f"the result is larger than a frame ({limit_bytes} bytes, limits.frame_bytes): read it with ctx.db.stream, which "
        "brings it in pieces, or ask for less at once with LIMIT and a condition on the last key seen; nothing was changed",
        "DataError",
    )
