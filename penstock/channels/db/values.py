"""Parameters on their way into SQLite: what it stores, as SQLAlchemy's SQLite dialect would write it.

So that a handler may change between `ctx.connection` and `ctx.db` and find the same text in its columns:

| Python | stored |
|---|---|
| None, int (64 bits), float, str, bytes | as they are; bytearray and memoryview as bytes |
| bool | 0 or 1 |
| Decimal | its text (a NUMERIC column makes a number of it) |
| datetime | `2026-01-31 13:05:00.000000`; with an offset `2026-01-31 13:05:00+02:00`, as `sqlite3` does, because without it the moment is lost |
| date, time | `2026-01-31`, `13:05:00.000000`, and the offset of a time that has one |
| UUID | 32 hexadecimal digits |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final, TypeAlias
from uuid import UUID

from penstock.errors import DatabaseError

#: What SQLite knows; anything else would be guessed at.
Stored: TypeAlias = int | float | str | bytes | None

_PLAIN: Final = frozenset({float, bytes, type(None)})
_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**63 - 1


def stored_parameters(parameters: object) -> dict[str, Stored] | list[Stored] | None:
    """Each parameter as SQLite stores it, by name (`:name`) or by position (`?`).

    Raises `DatabaseError` naming the parameter that cannot be stored.
    """
    if parameters is None:
        return None
    if isinstance(parameters, Mapping):
        return {check_name(name): stored(value, f":{name}") for name, value in parameters.items()}
    if isinstance(parameters, Sequence) and not isinstance(parameters, str | bytes | bytearray | memoryview):
        return [stored(value, f"number {position}") for position, value in enumerate(parameters, start=1)]
    msg = (
        f"parameters are a mapping for :name or a sequence for ?, not {_type(parameters)}; "
        "a single one is written (value,); nothing was run"
    )
    raise DatabaseError(msg, "ProgrammingError")


def stored(value: Any, which: str) -> Stored:  # noqa: C901, PLR0911 - one line a type, as in the table above
    """One value as SQLite stores it; `which` names it in the `DatabaseError` that refuses it."""
    kind = type(value)
    if kind in _PLAIN:
        return value  # type: ignore[no-any-return]
    if isinstance(value, int):
        if _SMALLEST <= value <= _LARGEST:
            return int(value)
        msg = (
            f"parameter {which} is an integer of {value.bit_length()} bits, SQLite stores those from -2**63 to 2**63-1; "
            "pass it as text; nothing was run"
        )
        raise DatabaseError(msg, "OverflowError")
    if isinstance(value, str):
        return check_writable(value, which)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Decimal):
        return str(value)
    # datetime is a date too, so it comes first.
    if isinstance(value, datetime):
        # Not the value's own method: a subclass may write it another way.
        return datetime.isoformat(value, " ", "microseconds" if value.utcoffset() is None else "auto")
    if isinstance(value, date):
        return date.isoformat(value)
    if isinstance(value, time):
        return time.isoformat(value, "microseconds")
    if isinstance(value, UUID):
        return value.hex
    msg = (
        f"parameter {which} is {_type(value)}, which SQLite cannot store; pass a number, text, bytes, a date or time, "
        "a Decimal, a UUID or None, one value a parameter; nothing was run"
    )
    raise DatabaseError(msg, "InterfaceError")


def check_name(name: Any) -> str:
    """A parameter's name. Raises `DatabaseError` when it is none."""
    if isinstance(name, str):
        return check_writable(name, f"named {name!a}")
    msg = f"parameters are named by str, not by {_type(name)}; nothing was run"
    raise DatabaseError(msg, "ProgrammingError")


def check_writable(value: str, which: str) -> str:
    """The text, as a plain str. Raises `DatabaseError` when it has no UTF-8."""
    # An exact str also of a StrEnum member, whose str() may say something else.
    text = str.__str__(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            msg = f"parameter {which} holds a lone surrogate at character {error.start}, which is no text; nothing was run"
            raise DatabaseError(msg, "UnicodeEncodeError") from error
    return text


def _type(value: object) -> str:
    name = type(value).__qualname__
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"
