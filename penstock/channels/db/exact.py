"""Values of a database server on the wire: what msgpack does not know travels as a type number and a text, and arrives as it was.

SQLite's five kinds of values need none of it; see `values.py`.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec.msgpack import Ext

from penstock.channels.db.values import check_name, check_writable
from penstock.config.database import DatabaseSection
from penstock.errors import DatabaseError

_DECIMAL, _DATETIME, _DATE, _TIME, _DURATION, _UUID, _INTEGER = range(2, 9)
_ADDRESS, _TUPLE, _SET, _RANGE, _MULTIRANGE, _JSON, _JSONB, _NUMBER = range(9, 17)
_PLAIN: Final = frozenset({bool, float, bytes, type(None)})
_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**64 - 1


def is_server(section: DatabaseSection) -> bool:
    """True for a database server, whose values keep their types; False for SQLite, and without a database."""
    scheme, mark, _ = ("" if section.url is None else section.url.get_secret_value()).partition("://")
    return bool(mark) and not scheme.startswith("sqlite")


def exact_parameters(parameters: object) -> dict[str, Any] | None:
    """Each parameter as it crosses, by name. Raises `DatabaseError` for what cannot, and for parameters without names."""
    if parameters is None:
        return None
    if isinstance(parameters, Mapping):
        return {check_name(name): _parameter(value, f":{name}") for name, value in parameters.items()}
    msg = (
        "parameters of a database server go by name: write :name in the statement and give a mapping; "
        "nothing was run"
    )
    raise DatabaseError(msg, "ProgrammingError")


def crossing(value: Any, which: str) -> Any:
    """One value as it crosses; `which` names it in the `DatabaseError` that refuses it."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    cross = _KNOWN.get(kind) or _of_driver(kind) or _of_base(value)
    if cross is not None:
        return cross(value, which)
    msg = f"{which} is of type {kind.__qualname__}, which does not cross the database channel: CAST it to text in the statement"
    raise DatabaseError(msg, "NotSupportedError")


def arrived(code: int, data: memoryview) -> Any:
    """The value again; msgspec calls it for what `crossing` made an Ext of."""
    return _ARRIVED[code](bytes(data))


def _parameter(value: Any, which: str) -> Any:
    if isinstance(value, Mapping):
        # JSON is written as text; what becomes of it is the column's.
        return crossing(json.dumps(value), which)
    return [crossing(item, which) for item in value] if isinstance(value, tuple) else crossing(value, which)


def _integer(value: int, _which: str) -> Any:
    return int(value) if _SMALLEST <= value <= _LARGEST else Ext(_INTEGER, hex(value).encode())


def _crossing_datetime(value: dt.datetime, _which: str) -> Ext:
    zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    return Ext(_DATETIME, f"{value.isoformat()}|{zone or ''}".encode())


def _crossing_time(value: dt.time, which: str) -> Ext:
    if value.tzinfo is not None and value.utcoffset() is None:
        msg = (
            f"{which} is a time of day in {value.tzinfo}, whose offset depends on the day: give it a fixed one "
            "(datetime.timezone), or a datetime; nothing was run"
        )
        raise DatabaseError(msg, "DataError")
    return Ext(_TIME, value.isoformat().encode())


def _items(code: int) -> Callable[[Any, str], Ext]:
    return lambda value, which: Ext(code, _encode([crossing(item, which) for item in value]))


def _of_base(value: Any) -> Callable[[Any, str], Any] | None:
    return next((cross for base, cross in _KNOWN.items() if isinstance(value, base)), None)


def _of_driver(kind: type) -> Callable[[Any, str], Any] | None:
    """PostgreSQL's ranges, and the wrappers that say what a parameter is; told by their names, to load no driver."""
    return _OF_DRIVER.get(kind.__name__) if kind.__module__.startswith("psycopg.types.") else None


def _crossing_range(value: Any, which: str) -> Ext:
    ends = [crossing(value.lower, which), crossing(value.upper, which), value.bounds or None]
    return Ext(_RANGE, _encode(ends))


def _crossing_json(value: Any, _which: str) -> Ext:
    text = (value.dumps or json.dumps)(value.obj)
    data = text if isinstance(text, bytes) else text.encode()
    return Ext(_JSONB if type(value).__name__ == "Jsonb" else _JSON, data)


def _crossing_number(value: Any, _which: str) -> Ext:
    kind = type(value)
    # It calls itself Int4(5), and what it is made of 5.
    plain: Any = kind.__base__
    return Ext(_NUMBER, _encode([kind.__name__, plain.__repr__(value)]))


def _range(data: bytes) -> Any:
    # Late: only PostgreSQL has them.
    from psycopg.types.range import Range

    lower, upper, bounds = _decode(data)
    return Range(lower, upper, bounds) if bounds else Range(empty=True)


def _multirange(data: bytes) -> Any:
    from psycopg.types.multirange import Multirange

    return Multirange(_decode(data))


def _json(name: str) -> Callable[[bytes], Any]:
    def wrapped(data: bytes) -> Any:
        from psycopg.types import json as wrappers

        return getattr(wrappers, name)(data.decode(), dumps=str)

    return wrapped


def _number(data: bytes) -> Any:
    from psycopg.types import numeric

    name, text = _decode(data)
    return getattr(numeric, name)(text)


def _crossing_address(value: Any, _which: str) -> Ext:
    return Ext(_ADDRESS, f"{type(value).__name__} {value}".encode())


def _address(data: bytes) -> Any:
    name, _, text = data.decode().partition(" ")
    # An interface is an address too, so types go by their names.
    return _ADDRESSES[name](text)


def _datetime(data: bytes) -> dt.datetime:
    text, _, zone = data.decode().partition("|")
    found = dt.datetime.fromisoformat(text)
    return _placed(found, zone) if zone else found


def _placed(moment: dt.datetime, zone: str) -> dt.datetime:
    # Not by astimezone(): on its way it leaves the calendar near its ends.
    try:
        there = moment.replace(tzinfo=ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError):
        # Read from somebody's own file; the offset says the same moment.
        return moment
    offsets = (there.utcoffset(), there.replace(fold=1).utcoffset())
    if moment.utcoffset() not in offsets:
        return moment
    return there.replace(fold=offsets.index(moment.utcoffset()))


def _duration(data: bytes) -> dt.timedelta:
    days, seconds, microseconds = map(int, data.decode().split())
    return dt.timedelta(days, seconds, microseconds)


_ADDRESSES: Final[dict[str, type]] = {
    kind.__name__: kind
    for kind in (
        ipaddress.IPv4Interface,
        ipaddress.IPv6Interface,
        ipaddress.IPv4Address,
        ipaddress.IPv6Address,
        ipaddress.IPv4Network,
        ipaddress.IPv6Network,
    )
}

# In this order for those that are more than one: True is an integer, a datetime is a date.
_KNOWN: Final[dict[type, Callable[[Any, str], Any]]] = {
    bool: lambda value, _: bool(value),
    int: _integer,
    str: check_writable,
    float: lambda value, _: float(value),
    bytes: lambda value, _: bytes(value),
    bytearray: lambda value, _: bytes(value),
    Decimal: lambda value, _: Ext(_DECIMAL, str(value).encode()),
    dt.datetime: _crossing_datetime,
    dt.date: lambda value, _: Ext(_DATE, value.isoformat().encode()),
    dt.time: _crossing_time,
    dt.timedelta: lambda value, _: Ext(
        _DURATION, f"{value.days} {value.seconds} {value.microseconds}".encode()
    ),
    UUID: lambda value, _: Ext(_UUID, value.bytes),
    list: lambda value, which: [crossing(item, which) for item in value],
    tuple: _items(_TUPLE),
    set: _items(_SET),
    frozenset: _items(_SET),
    **dict.fromkeys(_ADDRESSES.values(), _crossing_address),
    memoryview: lambda value, _: bytes(value),
    Mapping: lambda value, which: {str(name): crossing(item, which) for name, item in value.items()},
    Sequence: lambda value, which: [crossing(item, which) for item in value],
}
_OF_DRIVER: Final[dict[str, Callable[[Any, str], Any]]] = {
    "Range": _crossing_range,
    "Multirange": _items(_MULTIRANGE),
    **dict.fromkeys(("Json", "Jsonb"), _crossing_json),
    **dict.fromkeys(("Int2", "Int4", "Int8", "IntNumeric", "Oid", "Float4", "Float8"), _crossing_number),
}

_ARRIVED: Final[dict[int, Callable[[bytes], Any]]] = {
    _DECIMAL: lambda data: Decimal(data.decode()),
    _DATETIME: _datetime,
    _DATE: lambda data: dt.date.fromisoformat(data.decode()),
    _TIME: lambda data: dt.time.fromisoformat(data.decode()),
    _DURATION: _duration,
    _UUID: lambda data: UUID(bytes=data),
    _INTEGER: lambda data: int(data.decode(), 16),
    _ADDRESS: _address,
    _TUPLE: lambda data: tuple(_decode(data)),
    _SET: lambda data: set(_decode(data)),
    _RANGE: _range,
    _MULTIRANGE: _multirange,
    _JSON: _json("Json"),
    _JSONB: _json("Jsonb"),
    _NUMBER: _number,
}
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final[Callable[[bytes], Any]] = msgspec.msgpack.Decoder(ext_hook=arrived).decode
