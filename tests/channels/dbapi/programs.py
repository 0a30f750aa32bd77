"""Programs that are run with a driver and over the channel: what each call returned, raised and left is compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, TypeAlias

Program: TypeAlias = Callable[[Any], Iterator[Any]]


def attempt(what: Callable[..., Any], *arguments: Any) -> Any:
    """What it returned, or what it raised."""
    try:
        result = what(*arguments)
    except Exception as error:  # noqa: BLE001 - compared
        diagnostics = getattr(error, "diag", None)
        constraint = getattr(diagnostics, "constraint_name", None)
        return type(error), error.args, getattr(error, "sqlstate", None), constraint
    return result if isinstance(result, list | tuple | None) else "done"


def rows(connection: Any, statement: str, parameters: Any = None) -> Any:
    """All rows of one statement; what it changed when it gives none."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall()) if cursor.description else [cursor.rowcount]


def said(program: Program, connection: Any) -> list[str]:
    """What a program yielded, each value as it is written: 1 is not True then, nor Decimal('1.0') Decimal('1').

    Without addresses, which say nothing of a value.
    """
    return [re.sub(r" at 0x[0-9a-f]+", "", repr(value)) for value in program(connection)]
