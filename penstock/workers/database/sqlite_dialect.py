"""SQLite: a connection that notices what is done to it, and a dialect that begins for writing.

Python's driver begins a transaction by itself, but only before a change: what was read before it may be old by
then, and the upgrade from reading to writing fails at once, without waiting ("database is locked"). Here every
transaction begins with BEGIN IMMEDIATE, which waits for its turn. In the dialect's own hook, because the `begin`
event costs 10 to 20 µs more a message, and one that raises leaves SQLAlchemy's Connection without a transaction,
so that a handler that tries again would write outside of one.
"""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import Callable
from typing import Any, Final, Self, TypeVar, cast
from weakref import ReferenceType, ref

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from penstock.errors import TransactionUndone

#: SQLite waits inside C code, where no deadline can reach it, so it waits in pieces of this.
_WAIT_PIECE_S: Final = 1.0
_CURSORS_BEFORE_PRUNING: Final = 64
#: By this name SQLAlchemy finds the dialect below.
DRIVER_NAME: Final = "sqlite+penstock_own"

#: Actions that SQLite's authorizer names while it compiles a statement.
_LASTING_ACTIONS: Final = {
    sqlite3.SQLITE_ATTACH: "ATTACH",
    sqlite3.SQLITE_DETACH: "DETACH",
    sqlite3.SQLITE_CREATE_TEMP_INDEX: "a temporary index",
    sqlite3.SQLITE_CREATE_TEMP_TABLE: "a temporary table",
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER: "a temporary trigger",
    sqlite3.SQLITE_CREATE_TEMP_VIEW: "a temporary view",
}
#: PRAGMAs that ask or act and change nothing of the connection, though they take an argument.
_HARMLESS_PRAGMAS: Final = frozenset(
    {
        "application_id", "foreign_key_check", "foreign_key_list", "incremental_vacuum", "index_info", "index_list",
        "index_xinfo", "integrity_check", "optimize", "quick_check", "table_info", "table_list", "table_xinfo",
        "user_version", "wal_checkpoint",
    }
)  # fmt: skip
#: Methods of the driver's connection whose effect lasts.
_LASTING_METHODS: Final = (
    "blobopen", "create_aggregate", "create_collation", "create_function", "create_window_function", "deserialize",
    "enable_load_extension", "load_extension", "set_authorizer", "set_progress_handler", "set_trace_callback",
    "setconfig", "setlimit",
)  # fmt: skip
_CursorT = TypeVar("_CursorT", bound=sqlite3.Cursor)


class WatchedConnection(sqlite3.Connection):
    """The driver's connection, noting in `left` what outlives a rollback.

    SQLite tells while it compiles a statement, so a statement that the driver has cached costs nothing; and the
    cache dies with the connection that such a statement has spoilt.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.left: str | None = None
        self.is_autocommit = False
        self.undone_by: sqlite3.Error | None = None
        """The error that took the transaction away, until somebody rolls back."""
        self._cursors: list[ReferenceType[sqlite3.Cursor]] = []
        self._prune_at = _CURSORS_BEFORE_PRUNING
        self.beginning = super().cursor()
        sqlite3.Connection.set_authorizer(self, _authorizer(ref(self)))

    def cursor(self, factory: Callable[[sqlite3.Connection], _CursorT] | None = None) -> _CursorT:
        """As the driver's, remembered for as long as somebody holds it."""
        made = super().cursor(WatchedCursor if factory is None else factory)
        self._cursors.append(ref(made))
        if len(self._cursors) > self._prune_at:
            self._cursors = [cursor for cursor in self._cursors if cursor() is not None]
            self._prune_at = max(_CURSORS_BEFORE_PRUNING, 2 * len(self._cursors))
        return cast("_CursorT", made)

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """As the driver's, whose own goes past `cursor`."""
        return self.cursor().execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        """As the driver's."""
        return self.cursor().executemany(*args)

    def executescript(self, *args: Any) -> sqlite3.Cursor:
        """As the driver's."""
        return self.cursor().executescript(*args)

    def commit(self) -> None:
        """As the driver's. Raises `TransactionUndone` when half a transaction would be committed for a whole one."""
        if self.undone_by is not None:
            raise TransactionUndone from self.undone_by
        super().commit()

    def rollback(self) -> None:
        """As the driver's."""
        self.undone_by = None
        super().rollback()

    def note_failed(self, error: sqlite3.Error) -> None:
        """A statement inside a transaction failed; SQLite undoes all of it with some: OR ROLLBACK, a full disk, an interrupt."""
        if self.in_transaction or self.is_autocommit:
            return
        self.undone_by = error
        # Without a transaction each further statement of the handler would be committed by itself.
        self.beginning.execute("BEGIN")

    def close_cursors(self) -> None:
        """End each result that is still open: it would keep reading the database as it was, and block commits."""
        for cursor in self._cursors:
            alive = cursor()
            if alive is not None:
                alive.close()
        self._cursors.clear()


class WatchedCursor(sqlite3.Cursor):
    """The driver's cursor, which tells its connection of what failed inside a transaction."""

    def execute(self, *args: Any) -> Self:
        """As the driver's."""
        was_inside = self.connection.in_transaction
        try:
            return super().execute(*args)
        except sqlite3.Error as error:
            if was_inside:
                self._tell(error)
            raise

    def executemany(self, *args: Any) -> Self:
        """As the driver's."""
        was_inside = self.connection.in_transaction
        try:
            return super().executemany(*args)
        except sqlite3.Error as error:
            if was_inside:
                self._tell(error)
            raise

    def _tell(self, error: sqlite3.Error) -> None:
        cast("WatchedConnection", self.connection).note_failed(error)


def _authorizer(connection: ReferenceType[WatchedConnection]) -> Callable[..., int]:
    def watch(
        action: int, first: str | None, second: str | None, schema: str | None, _trigger: str | None
    ) -> int:
        left = _LASTING_ACTIONS.get(action)
        if (
            action == sqlite3.SQLITE_PRAGMA
            and second is not None
            and str(first).lower() not in _HARMLESS_PRAGMAS
        ):
            left = f"PRAGMA {first}"
        elif action == sqlite3.SQLITE_CREATE_VTABLE and schema == "temp":
            left = "a temporary virtual table"
        if left is not None and (own := connection()) is not None:
            own.left = left
        return sqlite3.SQLITE_OK

    return watch


def _noting(name: str) -> Callable[..., Any]:
    method = getattr(sqlite3.Connection, name)

    @functools.wraps(method)
    def note(self: WatchedConnection, *args: Any, **options: Any) -> Any:
        self.left = f"{name}()"
        return method(self, *args, **options)

    return note


for _name in _LASTING_METHODS:
    # Some came with Python 3.12, some a build of it may lack.
    if hasattr(sqlite3.Connection, _name):
        setattr(WatchedConnection, _name, _noting(_name))


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
                "timeout": min(_WAIT_PIECE_S, self._busy_timeout_s),
                "isolation_level": None,
                "check_same_thread": False,
            },
        )
        try:
            if raw.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                # Several workers open a new file at the same moment, and this change does not wait for its turn.
                self._patiently(lambda: raw.execute("PRAGMA journal_mode=WAL").fetchone())
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
        try:
            raw.beginning.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_locked(error):
                raise
            # Still in here, so that a deadline that comes while waiting has the lock in its context: see `is_busy`.
            self._patiently(lambda: raw.beginning.execute("BEGIN IMMEDIATE"), waited_s=_WAIT_PIECE_S)

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

    def _patiently(self, attempt: Callable[[], object], *, waited_s: float = 0.0) -> None:
        give_up_at = time.monotonic() + self._busy_timeout_s - waited_s
        while True:
            try:
                attempt()
            except sqlite3.OperationalError as error:
                if not is_locked(error) or time.monotonic() >= give_up_at:
                    raise
                time.sleep(0.005)
            else:
                return


def is_locked(error: BaseException) -> bool:
    """True when SQLite waited for another connection's lock, or did not even wait."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_broken(error: BaseException) -> bool:
    """True when the file could not be read or written, or was moved away."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_IOERR or code == sqlite3.SQLITE_READONLY_DBMOVED


registry.register(DRIVER_NAME.replace("+", "."), __name__, OwnSqliteDialect.__name__)
