"""What SQLite itself refuses on a connection that many share, whatever a statement's text hides: what would stay on it.

Asked by SQLite's authorizer while it compiles a statement. Loads nothing, because the proxy's subprocesses ask it, too.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from typing import Any, Final

_STAYS: Final = frozenset(
    {
        sqlite3.SQLITE_ATTACH,
        sqlite3.SQLITE_DETACH,
        sqlite3.SQLITE_TRANSACTION,
        sqlite3.SQLITE_CREATE_TEMP_INDEX,
        sqlite3.SQLITE_CREATE_TEMP_TABLE,
        sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
        sqlite3.SQLITE_CREATE_TEMP_VIEW,
    }
)
#: `CREATE TABLE temp.x` says the same in other words.
_STAYS_IN_TEMP: Final = frozenset(
    {
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_TRIGGER,
        sqlite3.SQLITE_CREATE_VIEW,
        sqlite3.SQLITE_CREATE_VTABLE,
    }
)

#: Methods of the driver's connection whose effect lasts.
_LASTING_METHODS: Final = (
    "blobopen", "create_aggregate", "create_collation", "create_function", "create_window_function", "deserialize",
    "enable_load_extension", "load_extension", "set_authorizer", "set_progress_handler", "set_trace_callback",
    "setconfig", "setlimit",
)  # fmt: skip


def would_stay(action: int, second: str | None, schema: str | None) -> bool:
    """True when the next caller would find it: an attached file, a temporary table, a transaction, an extension.

    What the authorizer is told: the action, its second argument, the schema. PRAGMAs are the connection's own question.
    """
    if action == sqlite3.SQLITE_FUNCTION:
        return second == "load_extension"
    return action in _STAYS or (action in _STAYS_IN_TEMP and schema == "temp")


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
