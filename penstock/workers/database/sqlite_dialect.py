"""SQLite: a dialect that begins for writing, and opens each file as it should be.

Python's driver begins a transaction by itself, but only before a change: what was read before it may be old by
then, and the upgrade from reading to writing fails at once, without waiting ("database is locked"). Here every
transaction begins with BEGIN IMMEDIATE, which waits for its turn. In the dialect's own hook, because the `begin`
event costs 10 to 20 µs more a message, and one that raises leaves SQLAlchemy's Connection without a transaction,
so that a handler that tries again would write outside of one.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from penstock.channels.db.sqlite.faults import is_broken
from penstock.workers.database.sqlite_connection import WAIT_PIECE_S, WatchedConnection

#: By this name SQLAlchemy finds the dialect below.
DRIVER_NAME: Final = "sqlite+penstock_own"


class OwnSqliteDialect(SQLiteDialect_pysqlite):
    """SQLAlchemy's dialect for Python's own driver, but for how a transaction begins."""

    supports_statement_cache = True

    def __init__(self, busy_timeout_s: float = 30.0, synchronous: str = "FULL", **options: Any) -> None:
        super().__init__(**options)
        self._busy_timeout_s = busy_timeout_s
        self._synchronous = synchronous

    def connect(self, *args: Any, **options: Any) -> Any:
        """Open a file in WAL mode, foreign keys on."""
        raw = sqlite3.connect(
            *args,
            **{
                **options,
                "factory": WatchedConnection,
                "timeout": min(WAIT_PIECE_S, self._busy_timeout_s),
                "isolation_level": None,
                "check_same_thread": False,
            },
        )
        raw.busy_timeout_s = self._busy_timeout_s
        try:
            if raw.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                # Several workers open a new file at the same moment, and this change does not wait for its turn.
                raw.patiently(lambda: raw.execute("PRAGMA journal_mode=WAL").fetchone())
            raw.execute(f"PRAGMA synchronous={self._synchronous}")
            raw.execute("PRAGMA foreign_keys=ON")
        except BaseException:
            raw.close()
            raise
        return raw

    def do_begin(self, dbapi_connection: Any) -> None:
        """Wait for the write lock, unless the handler asked for AUTOCOMMIT."""
        raw = dbapi_connection.dbapi_connection
        if raw.is_autocommit:
            return
        if raw.undone_by is not None:
            # A rollback that follows a refused commit SQLAlchemy keeps to itself.
            raw.rollback()
        if not raw.in_transaction:
            # It may be: the handler began by the driver's own connection.
            raw.begin()

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        """As SQLAlchemy's, without giving transactions back to the driver."""
        dbapi_connection.left = f"isolation level {level}"
        dbapi_connection.is_autocommit = level == "AUTOCOMMIT"
        if level != "AUTOCOMMIT":
            SQLiteDialect.set_isolation_level(self, dbapi_connection, level)

    def detect_autocommit_setting(self, dbapi_conn: Any) -> bool:
        """True after the handler asked for AUTOCOMMIT; the driver's own attribute says nothing here."""
        return bool(dbapi_conn.is_autocommit)

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        """A connection whose file failed to be read or written is not trusted again: open a new one."""
        return is_broken(e) or super().is_disconnect(e, connection, cursor)


registry.register(DRIVER_NAME.replace("+", "."), __name__, OwnSqliteDialect.__name__)
