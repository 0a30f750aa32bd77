"""Properties of a message from AMQP's bytes, those included that no specification allows.

Any publisher that writes Latin-1 does so by accident, and its message must not cost more than itself: text that is not
UTF-8 is read as Latin-1, a time that cannot be is left out, headers that cannot be read leave a note in their place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pamqp import decode

#: Stands in the place of headers that cannot be read.
UNREADABLE_HEADERS: Final = "x-unreadable-headers"
#: The end of the year 9999, Unix time: behind it lies what somebody wrote in milliseconds.
_END_OF_TIME_S: Final = 253_402_300_800
#: Deeply nested headers exhaust the decoder's stack.
_UNREADABLE: Final = (ValueError, OverflowError, OSError, RecursionError, LookupError)

_Read: TypeAlias = tuple[Any, int]
"""A value, and where the next one begins."""


@dataclass(slots=True)
class Properties:
    """basic's properties; None for one that is not there."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: dict[str, Any] | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp_s: float | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None


def read_properties(raw: bytes) -> Properties:
    """Read the flags and the values behind them; what is cut short is empty."""
    properties = Properties()
    flags = int.from_bytes(raw[:2], "big")
    position = 2
    for flag, name, read in _FIELDS:
        if flags & flag:
            value, position = read(raw, position)
            setattr(properties, name, value)
    return properties


def _text(raw: bytes, position: int) -> _Read:
    begin = position + 1
    end = begin + int.from_bytes(raw[position:begin], "big")
    text = raw[begin:end]
    try:
        return text.decode(), end
    except UnicodeDecodeError:
        return text.decode("latin-1"), end


def _octet(raw: bytes, position: int) -> _Read:
    return int.from_bytes(raw[position : position + 1], "big"), position + 1


def _time(raw: bytes, position: int) -> _Read:
    end = position + 8
    seconds = int.from_bytes(raw[position:end], "big")
    return (float(seconds) if seconds < _END_OF_TIME_S else None), end


def _table(raw: bytes, position: int) -> _Read:
    begin = position + 4
    end = begin + int.from_bytes(raw[position:begin], "big")
    if end == begin:
        return {}, end
    try:
        return decode.field_table(raw[position:end])[1], end
    except _UNREADABLE:
        return {UNREADABLE_HEADERS: True}, end


#: In the order of their flags, from the highest bit (AMQP 0-9-1, section 4.2.6.1).
_FIELDS: Final[tuple[tuple[int, str, Callable[[bytes, int], _Read]], ...]] = tuple(
    (1 << (15 - place), name, read)
    for place, (name, read) in enumerate(
        (
            ("content_type", _text),
            ("content_encoding", _text),
            ("headers", _table),
            ("delivery_mode", _octet),
            ("priority", _octet),
            ("correlation_id", _text),
            ("reply_to", _text),
            ("expiration", _text),
            ("message_id", _text),
            ("timestamp_s", _time),
            ("type", _text),
            ("user_id", _text),
            ("app_id", _text),
        )
    )
)
