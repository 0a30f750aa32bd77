"""SQLite in a subprocess: a connection that only reads, or the one that writes; both refuse what is not one user's own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from penstock.channels.db.sqlite.guarding import would_stay
from penstock.errors import ConfigurationError
from penstock.threads.opening import BUSY_TIMEOUT_S, use_wal

#: SQLite keeps 2 MiB of the file unless told. There are few connections here, so each may keep more.
_CACHE_KIB: Final = 16 * 1024
#: What may be said with an argument; without one a PRAGMA only tells.
_PRAGMAS: Final = frozenset(
    {
        "application_id", "foreign_key_check", "foreign_key_list", "index_info", "index_list", "index_xinfo",
        "integrity_check", "optimize", "quick_check", "table_info", "table_list", "table_xinfo", "user_version",
        "wal_checkpoint",
    }
)  # fmt: skip


class ServedSqlite(sqlite3.Connection):
    """Everybody's connection, so that nobody may leave anything on it."""

    _is_ours = False

    def guard(self) -> None:
        """From here on callers' statements come."""
        self.set_authorizer(self._authorize)

    @contextmanager
    def ours(self) -> Iterator[None]:
        """For the proxy's own statements."""
        self._is_ours = True
        try:
            yield
        finally:
            self._is_ours = False

    def reset(self) -> None:
        """Take back what a function may have left."""
        self.row_factory = None
        self.text_factory = str

    def _authorize(
        self, action: int, first: str | None, second: str | None, schema: str | None, _inside: str | None
    ) -> int:
        if self._is_ours:
            return sqlite3.SQLITE_OK
        is_setting = action == sqlite3.SQLITE_PRAGMA and second is not None
        # SQLite tells the name as it was written.
        is_denied = would_stay(action, second, schema) or (is_setting and str(first).lower() not in _PRAGMAS)
        return sqlite3.SQLITE_DENY if is_denied else sqlite3.SQLITE_OK


def open_sqlite(path: str, options: dict[str, Any], *, writes: bool) -> ServedSqlite:
    """A connection to the file in WAL mode, foreign keys on. Raises `sqlite3.Error`."""
    connection = sqlite3.connect(
        path,
        **{"timeout": BUSY_TIMEOUT_S, "cached_statements": 512, **options},
        isolation_level=None,
        factory=ServedSqlite,
    )
    try:
        use_wal(connection)
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        if not writes:
            connection.execute("PRAGMA query_only=ON")
        connection.guard()
    except BaseException:
        connection.close()
        raise
    return connection


def check_options(database: str | None, options: dict[str, Any]) -> None:
    """Raises `ConfigurationError` for a database that several processes cannot open, or an option that is not for them."""
    if not database or database.startswith("file:") or ":memory:" in database:
        msg = (
            f"SQLProxy({database!r}): every subprocess would have a database of its own; name a file, for example 'app.db'. For "
            "one in memory keep a file in /dev/shm"
        )
        raise ConfigurationError(msg)
    unknown = set(options) - {"timeout", "detect_types", "cached_statements"}
    if unknown:
        msg = (
            f"SQLProxy({database!r}) does not take {', '.join(sorted(unknown))}: timeout, detect_types and cached_statements "
            "are what its connections can be told"
        )
        raise ConfigurationError(msg)
