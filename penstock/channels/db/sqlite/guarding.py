"""What a statement would leave on its SQLite connection, whatever its text hides: refused where many share one, else noted.

Asked by SQLite's authorizer while it compiles a statement. Loads nothing, because the proxy's subprocesses ask it, too.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from typing import Any, Final

#: Actions as the authorizer names them, and what stays of them.
_STAYS: Final = {
    sqlite3.SQLITE_ATTACH: "ATTACH",
    sqlite3.SQLITE_DETACH: "DETACH",
    sqlite3.SQLITE_CREATE_TEMP_INDEX: "a temporary index",
    sqlite3.SQLITE_CREATE_TEMP_TABLE: "a temporary table",
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER: "a temporary trigger",
    sqlite3.SQLITE_CREATE_TEMP_VIEW: "a temporary view",
}
#: `CREATE TABLE temp.x` says the same in other words.
_STAYS_IN_TEMP: Final = {
    sqlite3.SQLITE_CREATE_INDEX: "a temporary index",
    sqlite3.SQLITE_CREATE_TABLE: "a temporary table",
    sqlite3.SQLITE_CREATE_TRIGGER: "a temporary trigger",
    sqlite3.SQLITE_CREATE_VIEW: "a temporary view",
    sqlite3.SQLITE_CREATE_VTABLE: "a temporary virtual table",
}

#: Methods of the driver's connection whose effect lasts.
_LASTING_METHODS: Final = (
    "blobopen", "create_aggregate", "create_collation", "create_function", "create_window_function", "deserialize",
    "enable_load_extension", "load_extension", "set_authorizer", "set_progress_handler", "set_trace_callback",
    "setconfig", "setlimit",
)  # fmt: skip


def what_stays(action: int, first: str | None, schema: str | None) -> str | None:
    """In words, what the next user of the connection would find; None for nothing. Transactions end by themselves.

    What the authorizer is told: the action, its first argument, the schema.
    """
    if action == sqlite3.SQLITE_INSERT and first == "sqlite_temp_master":
        # `CREATE TRIGGER temp.x … ON main.t` is told as if it were a trigger of main's.
        return "a temporary trigger"
    return _STAYS.get(action) or (_STAYS_IN_TEMP.get(action) if schema == "temp" else None)


def would_stay(action: int, first: str | None, second: str | None, schema: str | None) -> bool:
    """True when the next caller would find it: an attached file, a temporary table, a transaction, an extension.

    What the authorizer is told: the action, its arguments, the schema. PRAGMAs are the connection's own question.
    """
    if action == sqlite3.SQLITE_FUNCTION:
        return second == "load_extension"
    return action == sqlite3.SQLITE_TRANSACTION or what_stays(action, first, schema) is not None


def note_lasting_methods(connection: type[sqlite3.Connection]) -> None:
    """Have a call of one of `_LASTING_METHODS` written into the `left` of its connection, which this class has."""
    for name in _LASTING_METHODS:
        # Some came with Python 3.12, some a build of it may lack.
        if hasattr(sqlite3.Connection, name):
            setattr(connection, name, _noting(name))


def _noting(name: str) -> Callable[..., Any]:
    method = getattr(sqlite3.Connection, name)

    @functools.wraps(method)
    def note(self: Any, *args: Any, **options: Any) -> Any:
        self.left = f"{name}()"
        return method(self, *args, **options)

    return note
