"""SQLite in a subprocess: a connection that only reads, or the one that writes; both refuse what is not one user's own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Self, cast

from penstock.channels.db.sqlite.guarding import note_lasting_methods, would_stay
from penstock.errors import ConfigurationError
from penstock.threads.opening import BUSY_TIMEOUT_S, file_named, use_wal

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
    """Everybody's connection, so that nobody may leave anything on it: statements that would are refused.

    A function may use the driver's methods for its own time. `left` names the one that made the connection of no use to
    others.
    """

    left: str | None = None
    is_lent = False
    """A function has it."""
    _is_ours = False

    _undone_by: sqlite3.Error | None = None

    def cursor(self, factory: Any = None) -> Any:
        """As the driver's; a function's notices what undoes its transaction."""
        if factory is None and self.is_lent:
            factory = LentCursor
        return super().cursor() if factory is None else super().cursor(factory)

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """As the driver's, whose own goes past `cursor`."""
        return self.cursor().execute(*args)  # type: ignore[no-any-return]

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        """As the driver's."""
        return self.cursor().executemany(*args)  # type: ignore[no-any-return]

    def close(self) -> None:
        """As the driver's, but a function only says that it wants no more of it: its transaction has yet to end."""
        if self.is_lent:
            self.left = "close()"
        else:
            super().close()

    def guard(self) -> None:
        """From here on callers' statements come."""
        sqlite3.Connection.set_authorizer(self, self._authorize)

    @contextmanager
    def ours(self) -> Iterator[None]:
        """For the proxy's own statements."""
        self._is_ours = True
        try:
            yield
        finally:
            self._is_ours = False

    def let_go(self) -> None:
        """It goes with the last result that is still read from it."""
        # We are its authorizer, and would hold it until a garbage collection.
        sqlite3.Connection.set_authorizer(self, None)

    def note(self, _sql: str) -> None:
        """Nothing: the authorizer has refused what would stay."""

    def note_failed(self, _error: BaseException) -> None:
        """Nothing: SQLite says by itself whether a transaction is open."""

    def note_undone(self, error: sqlite3.Error) -> None:
        """SQLite undid a function's transaction: outside of one each further statement of it would be committed by itself."""
        if not self.in_transaction:
            self._undone_by = error
            with self.ours():
                super().execute("BEGIN")

    def forget_error(self) -> None:
        """Somebody has rolled back."""
        self._undone_by = None

    def note_function(self) -> None:
        """A function had the connection."""
        self.is_lent = False
        with suppress(sqlite3.ProgrammingError):  # it went past our `close`
            self.row_factory = None
            self.text_factory = str
            if self.isolation_level is not None:
                self.left = "isolation_level"

    def why_over(self) -> str | None:
        """In words, when SQLite has rolled back by itself (`INSERT OR ROLLBACK`, a full disk)."""
        is_open = self.in_transaction and self._undone_by is None
        return None if is_open else "by SQLite itself after an error"

    def why_not_committed(self) -> str | None:
        """As `why_over`."""
        return self.why_over()

    def _authorize(
        self, action: int, first: str | None, second: str | None, schema: str | None, _inside: str | None
    ) -> int:
        if self._is_ours:
            return sqlite3.SQLITE_OK
        is_setting = action == sqlite3.SQLITE_PRAGMA and second is not None
        # SQLite tells the name as it was written.
        is_denied = would_stay(action, first, second, schema) or (
            is_setting and str(first).lower() not in _PRAGMAS
        )
        return sqlite3.SQLITE_DENY if is_denied else sqlite3.SQLITE_OK


class LentCursor(sqlite3.Cursor):
    """The driver's cursor in a function's hands."""

    def execute(self, *args: Any) -> Self:
        """As the driver's."""
        return self._inside(super().execute, args)

    def executemany(self, *args: Any) -> Self:
        """As the driver's."""
        return self._inside(super().executemany, args)

    def _inside(self, run: Callable[..., Self], args: tuple[Any, ...]) -> Self:
        connection = cast("ServedSqlite", self.connection)
        was_inside = connection.in_transaction
        try:
            return run(*args)
        except sqlite3.Error as error:
            if was_inside:
                connection.note_undone(error)
            raise


note_lasting_methods(ServedSqlite)


def open_sqlite(path: str, options: dict[str, Any], *, writes: bool) -> ServedSqlite:
    """A connection to the file in WAL mode, foreign keys on. Raises `sqlite3.Error`."""
    with file_named(path):
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
    if database and "://" in database:
        msg = (
            "SQLProxy takes a path of an SQLite file, or driver=… and the driver's own options: SQLProxy('app.db'), "
            "SQLProxy(driver='pymysql', host='db'). A URL is neither"
        )
        raise ConfigurationError(msg)
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
