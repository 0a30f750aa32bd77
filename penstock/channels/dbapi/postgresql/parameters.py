"""Parameters on their way to PostgreSQL: whatever psycopg knows and the wire carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import psycopg
from psycopg.adapt import PyFormat

from penstock.channels.db.exact import crossing
from penstock.errors import DatabaseError


def bound(parameters: Any) -> list[Any] | dict[str, Any]:
    """By name or by position. Raises what psycopg raises for what cannot be bound."""
    if isinstance(parameters, Mapping):
        return {str(name): _value(value, f"parameter {name}") for name, value in parameters.items()}
    if isinstance(parameters, Sequence) and not isinstance(parameters, str | bytes):
        return [_value(value, f"parameter {number}") for number, value in enumerate(parameters, 1)]
    msg = f"query parameters should be a sequence or a mapping, got {type(parameters).__name__}"
    raise TypeError(msg)


def _value(value: Any, which: str) -> Any:
    if isinstance(value, Enum) and not isinstance(value, str | int | float):
        value = value.name
    elif isinstance(value, psycopg.Binary):
        value = bytes(value.obj)
    elif isinstance(value, Mapping | set | frozenset):
        # Raises: psycopg knows no such type, until it is wrapped in Jsonb, say.
        psycopg.adapters.get_dumper(type(value), PyFormat.AUTO)
    try:
        return crossing(value, which)
    except DatabaseError as error:
        # Raises what the driver raises for a type that it does not know either.
        psycopg.adapters.get_dumper(type(value), PyFormat.AUTO)
        raise getattr(psycopg, error.kind, psycopg.DataError)(str(error)) from error
