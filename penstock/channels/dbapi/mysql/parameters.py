"""Parameters on their way to MySQL, by PyMySQL's own rules: what it knows by its exact type, anything else as its text."""

from __future__ import annotations

import datetime as dt
import re
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
SEQUENCES: Final = frozenset({list, tuple, set, frozenset})

_PLACE: Final = re.compile(r"%(?:%|s|\((?P<name>[^)]*)\)s)")


def spread(statement: str, parameters: Any) -> tuple[str, Any]:
    """Lists written out, as the driver writes them, each item a parameter of its own: `IN %s` becomes `IN (%s, %s)`."""
    is_named = isinstance(parameters, Mapping)
    given = parameters.values() if is_named else parameters if isinstance(parameters, list | tuple) else ()
    if not any(type(value) in SEQUENCES for value in given):
        return statement, parameters
    positions = iter(parameters)
    items: list[Any] = []

    def place(value: Any) -> str:
        if type(value) in SEQUENCES:
            return f"({', '.join(map(place, value))})"
        items.append(value)
        return "%s"

    def written(found: re.Match[str]) -> str:
        name = found["name"]
        if found[0] == "%%" or (name is None) is is_named:
            return found[0]
        return place(parameters[name] if is_named else next(positions))

    try:
        return _PLACE.sub(written, statement), [*items, *(() if is_named else positions)]
    except StopIteration:
        raise err.ProgrammingError("not enough arguments for format string") from None


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
    if isinstance(value, str):
        return crossing(str.__str__(value), which)
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if kind in SEQUENCES:
        msg = f"{which} is a {kind.__name__}, which crosses with execute() only: write its items as parameters of their own"
        raise DatabaseError(msg, "NotSupportedError")
    if kind is time.struct_time:
        return crossing(dt.datetime(*value[:6]), which)  # noqa: DTZ001 - as the driver writes it
    if kind in encoders:
        # Raises for what the driver knows to refuse: a mapping, a number that is none.
        escape_item(value, None, encoders)
        return crossing(value, which)
    return crossing(str(value), which)
