"""Parameters on their way to SQLite, made into what it stores by the driver's own rules and adapters."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final, NoReturn

_PLAIN: Final = frozenset({float, bytes, type(None)})
_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**63 - 1


def bound(parameters: object) -> dict[str, Any] | list[Any]:
    """By name or by position. Raises what `sqlite3` raises for what cannot be bound."""
    if isinstance(parameters, list | tuple):
        return [_value(value, position) for position, value in enumerate(parameters)]
    if isinstance(parameters, Mapping):
        return {name: _value(value, 0) for name, value in parameters.items()}
    if isinstance(parameters, Sequence):
        return [_value(value, position) for position, value in enumerate(parameters)]
    raise sqlite3.ProgrammingError("parameters are of unsupported type")


def _value(value: Any, position: int) -> Any:  # noqa: PLR0911 - one line a type
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        return _number(value)
    if kind is str:
        return _text(value)
    if kind is bytearray:
        return bytes(value)
    adapted = sqlite3.adapt(value, sqlite3.PrepareProtocol, value)
    match adapted:
        case None | float() | bytes():
            return (
                adapted
                if adapted is None
                else float(adapted)
                if isinstance(adapted, float)
                else bytes(adapted)
            )
        case int():
            return _number(int(adapted))
        case str():
            return _text(str.__str__(adapted))
        case bytearray() | memoryview():
            return bytes(adapted)
    try:
        return bytes(memoryview(adapted))
    except TypeError:
        _refuse(adapted, position)


def _number(value: int) -> int:
    if _SMALLEST <= value <= _LARGEST:
        return value
    raise OverflowError("Python int too large to convert to SQLite INTEGER")


def _text(value: str) -> str:
    if not value.isascii():
        # Raises for a lone surrogate, as the driver does.
        value.encode()
    return value


def _refuse(value: Any, position: int) -> NoReturn:
    # In the driver's own words, which differ between versions.
    with closing(sqlite3.connect(":memory:")) as driver:
        driver.execute(f"SELECT {','.join('?' * (position + 1))}", (*[None] * position, value))
    raise sqlite3.ProgrammingError(f"type {type(value).__name__!r} is not supported")
