"""Parameters on their way to MySQL, by PyMySQL's own rules: what it knows by its exact type, anything else as its text."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping
from typing import Any, Final

from pymysql import err
from pymysql.converters import encoders, escape_item

from penstock.channels.db.exact import crossing
from penstock.errors import DatabaseError

_CROSSING: Final = frozenset(
    {
        bool,
        int,
        str,
        bytes,
        type(None),
        dt.date,
        dt.datetime,
        dt.time,
        dt.timedelta,
    }
)
_SEQUENCES: Final = frozenset({list, tuple, set, frozenset})


def bound(parameters: Any) -> list[Any] | dict[str, Any]:
    """By name or by position. Raises what PyMySQL raises for what cannot be bound."""
    try:
        if isinstance(parameters, Mapping):
            return {str(name): _value(value, f"parameter {name}") for name, value in parameters.items()}
        if isinstance(parameters, list | tuple):
            return [_value(value, f"parameter {number}") for number, value in enumerate(parameters, 1)]
        return [_value(parameters, "the parameter")]
    except DatabaseError as error:
        raise getattr(err, error.kind, err.DataError)(str(error)) from error


def _value(value: Any, which: str) -> Any:
    kind = type(value)
    if kind in _CROSSING:
        return crossing(value, which)
    if kind in _SEQUENCES:
        # The loop writes it out as the driver does: `IN %s`.
        return [_value(item, which) for item in value]
    return _of_base(value, kind, which)


def _of_base(value: Any, kind: type, which: str) -> Any:
    if isinstance(value, str):
        return crossing(str.__str__(value), which)
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if kind is time.struct_time:
        return crossing(dt.datetime(*value[:6]), which)  # noqa: DTZ001 - as the driver writes it
    if kind in encoders:
        # Raises for what the driver knows to refuse: a mapping, a number that is none.
        escape_item(value, None, encoders)
        return crossing(value, which)
    return crossing(str(value), which)
