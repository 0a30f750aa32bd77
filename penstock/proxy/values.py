"""Values on the wire with their exact types: what msgpack has not is an extension of its own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec.msgpack import Ext

_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**64 - 1
_PLAIN: Final = frozenset({type(None), bool, float, str, bytes})

_encode: Final = msgspec.msgpack.Encoder().encode

# Exact types, first come first served: datetime is a date too.
_WRITERS: Final[tuple[tuple[int, type, Callable[[Any], bytes]], ...]] = (
    (1, Decimal, lambda value: str(value).encode()),
    (
        2,
        datetime,
        lambda value: f"{value.isoformat()}|{value.fold}|{getattr(value.tzinfo, 'key', '')}".encode(),
    ),
    (3, date, lambda value: str(value.isoformat()).encode()),
    (4, time, lambda value: f"{value.isoformat()}|{value.fold}".encode()),
    (5, timedelta, lambda value: f"{value.days},{value.seconds},{value.microseconds}".encode()),
    (6, UUID, lambda value: bytes(value.bytes)),
)
_BIG_INT: Final = 7
_TUPLE: Final = 8


def _read_datetime(data: bytes) -> datetime:
    text, fold, zone = data.decode().split("|")
    value = datetime.fromisoformat(text).replace(fold=int(fold))
    # Of a zone by name the offset alone would be true for this moment only.
    return value.replace(tzinfo=ZoneInfo(zone)) if zone else value


def _read_time(data: bytes) -> time:
    text, _, fold = data.decode().partition("|")
    return time.fromisoformat(text).replace(fold=int(fold))


_READERS: Final[dict[int, Callable[[bytes], Any]]] = {
    1: lambda data: Decimal(data.decode()),
    2: _read_datetime,
    3: lambda data: date.fromisoformat(data.decode()),
    4: _read_time,
    5: lambda data: timedelta(*map(int, data.decode().split(","))),
    6: lambda data: UUID(bytes=data),
    _BIG_INT: lambda data: int.from_bytes(data, signed=True),
    _TUPLE: lambda data: tuple(_decode(data)),
}


def packed(value: Any) -> Any:  # noqa: PLR0911 - one line a type
    """The value as msgpack can write it. Raises `TypeError` naming a type that cannot cross."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        if _SMALLEST <= value <= _LARGEST:
            return value
        return Ext(_BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, signed=True))
    if kind is list:
        return [packed(item) for item in value]
    if kind is tuple:
        return Ext(_TUPLE, _encode([packed(item) for item in value]))
    if kind is dict:
        return {_packed_key(key): packed(item) for key, item in value.items()}
    return _packed_rare(value)


def _packed_key(key: Any) -> Any:
    found = packed(key)
    if isinstance(found, Ext):
        msg = (
            f"a dict with the key {key!r} cannot cross between processes: its keys may be text, bytes, None and numbers of "
            "up to 64 bits, but no Decimal"
        )
        raise TypeError(msg)
    return found


def packed_row(row: Any) -> Any:
    """The row of a result, which is read as a tuple on the other side. Raises `TypeError` as `packed` does."""
    return [packed(value) for value in row]


def packed_parameters(parameters: Any) -> Any:
    """Parameters of a statement, by name or by position. Raises `TypeError` as `packed` does."""
    if isinstance(parameters, dict):
        return {str(name): packed(value) for name, value in parameters.items()}
    return [packed(value) for value in parameters]


def extension(code: int, data: memoryview) -> Any:
    """What msgspec calls for each extension that it reads."""
    return _READERS[code](bytes(data))


def _packed_rare(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    for code, kind, write in _WRITERS:
        if isinstance(value, kind):
            if isinstance(value, datetime | time) and value.tzinfo is not None and value.utcoffset() is None:
                break
            return Ext(code, write(value))
    if isinstance(value, int):
        return packed(int(value))
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float(value)
    msg = (
        f"a {type(value).__module__}.{type(value).__qualname__} cannot cross between processes: numbers, text, bytes, None, "
        "Decimal, dates and times, UUID, and lists, tuples and dicts of them can"
    )
    raise TypeError(msg)


_decode: Final[Callable[[bytes], Any]] = msgspec.msgpack.Decoder(ext_hook=extension).decode
