"""Properties that no specification allows, read all the same: one foreign message must not cost the connection.

pamqp raises on a property that is not UTF-8, a timestamp beyond the year 9999 or a header of an unknown type; it raises
in aiormq's reader, which takes the connection of *all* queues down, and the broker hands the message out again: for ever.
Any publisher that writes Latin-1 does so by accident.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from pamqp import decode

#: Stands in the place of a header table that cannot be read.
UNREADABLE_HEADERS: Final = "x-unreadable-headers"

_Decoder: TypeAlias = Callable[[bytes], tuple[int, Any]]
_TIMESTAMP_BYTES: Final = 8
_LENGTH_BYTES: Final = 4


def read_tolerantly() -> None:
    """Make pamqp read such properties, in this process; harmless when repeated.

    Text that is not UTF-8 is read as Latin-1, a time that cannot be is left out, a table that cannot be read is empty
    but for a note.
    """
    if getattr(decode.METHODS["shortstr"], "is_tolerant", False):
        return
    text, time, table = (
        _tolerant(decode.short_str, _latin_1),
        _tolerant(decode.timestamp, lambda _: (_TIMESTAMP_BYTES, None)),
        _tolerant(decode.field_table, _without_headers),
    )
    decode.METHODS.update(shortstr=text, timestamp=time, table=table)
    decode.TABLE_MAPPING.update({b"T": time, b"F": table})


def _tolerant(strict: _Decoder, otherwise: _Decoder) -> _Decoder:
    def read(value: bytes) -> tuple[int, Any]:
        try:
            return strict(value)
        except (ValueError, OverflowError, OSError):
            return otherwise(value)

    read.is_tolerant = True  # type: ignore[attr-defined]
    return read


def _latin_1(value: bytes) -> tuple[int, str]:
    length = value[0]
    return length + 1, value[1 : length + 1].decode("latin-1")


def _without_headers(value: bytes) -> tuple[int, dict[str, Any]]:
    return _LENGTH_BYTES + int.from_bytes(value[:_LENGTH_BYTES], "big"), {UNREADABLE_HEADERS: True}
