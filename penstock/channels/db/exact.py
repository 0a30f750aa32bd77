"""Values of a database server on the wire: what msgpack does not know travels as a type number and a text, and arrives as it was.

SQLite's five kinds of values need none of it; see `values.py`.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec.msgpack import Ext

from penstock.channels.db.values import check_name, check_writable
from penstock.config.database import DatabaseSection
from penstock.errors import DatabaseError

_DECIMAL, _DATETIME, _DATE, _TIME, _DURATION, _UUID, _INTEGER = range(2, 9)
_PLAIN: Final = frozenset({bool, float, bytes, type(None)})
_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**64 - 1


def has_exact_values(section: DatabaseSection) -> bool:
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


def crossing(value: Any, which: str) -> Any:  # noqa: C901, PLR0911, PLR0912 - one line a type
    """One value as it crosses; `which` names it in the `DatabaseError` that refuses it."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, bool):
        return bool(value)
    if isinstance(value, int):
        return int(value) if _SMALLEST <= value <= _LARGEST else Ext(_INTEGER, hex(value).encode())
    if isinstance(value, str):
        return check_writable(value, which)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Decimal):
        return Ext(_DECIMAL, str(value).encode())
    if isinstance(value, dt.datetime):
        zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else ""
        return Ext(_DATETIME, f"{value.isoformat()}|{zone}".encode())
    if isinstance(value, dt.date):
        return Ext(_DATE, value.isoformat().encode())
    if isinstance(value, dt.time):
        return Ext(_TIME, value.isoformat().encode())
    if isinstance(value, dt.timedelta):
        return Ext(_DURATION, f"{value.days} {value.seconds} {value.microseconds}".encode())
    if isinstance(value, UUID):
        return Ext(_UUID, value.bytes)
    if isinstance(value, Mapping):
        return {str(name): crossing(item, which) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [crossing(item, which) for item in value]
    msg = f"{which} is of type {kind.__qualname__}, which does not cross the database channel: CAST it to text in the statement"
    raise DatabaseError(msg, "NotSupportedError")


def arrived(code: int, data: memoryview) -> Any:
    """The value again; msgspec calls it for what `crossing` made an Ext of."""
    return _ARRIVED[code](bytes(data))


def _parameter(value: Any, which: str) -> Any:
    # JSON is written as text; what becomes of it is the column's.
    return crossing(json.dumps(value) if isinstance(value, Mapping) else value, which)


def _datetime(data: bytes) -> dt.datetime:
    text, _, zone = data.decode().partition("|")
    found = dt.datetime.fromisoformat(text)
    return found.astimezone(ZoneInfo(zone)) if zone else found


def _duration(data: bytes) -> dt.timedelta:
    days, seconds, microseconds = map(int, data.decode().split())
    return dt.timedelta(days, seconds, microseconds)


_ARRIVED: Final[dict[int, Callable[[bytes], Any]]] = {
    _DECIMAL: lambda data: Decimal(data.decode()),
    _DATETIME: _datetime,
    _DATE: lambda data: dt.date.fromisoformat(data.decode()),
    _TIME: lambda data: dt.time.fromisoformat(data.decode()),
    _DURATION: _duration,
    _UUID: lambda data: UUID(bytes=data),
    _INTEGER: lambda data: int(data.decode(), 16),
}
