"""The one SQLite file behind the channel: which it is, and how each connection to it is opened."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Final

from penstock.channels.db.sqlite.database_file import DatabaseFile, Identity
from penstock.channels.db.sqlite.faults import is_locked
from penstock.channels.db.sqlite.guarding import would_stay
from penstock.config.database import DatabaseSection
from penstock.errors import ConfigurationError, DatabaseError

#: The writer asks for the lock again and again for so long at once; between two times its queue is looked through.
SLICE_S: Final = 0.1
_CACHED_STATEMENTS: Final = 512
#: Virtual machine steps between two looks at `stop`; about 10 ms, so that the look costs nothing.
_STEPS: Final = 500_000

#: What virtual tables (FTS5, R-Tree) ask for themselves, and what only describes the schema.
_HARMLESS_PRAGMAS: Final = frozenset(
    {
        "data_version",
        "page_size",
        "foreign_key_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)


class GuardedConnection(sqlite3.Connection):
    """A connection on which callers' statements run: SQLite refuses what hides inside them.

    Read on its own thread; `stop` is written by the loop, and ends the statement that runs within about 10 ms.
    """

    stop = False
    file: DatabaseFile
    opened: Identity | None = None
    """Which file it was then."""
    schema_version = -1
    has_deferred_keys = False
    """Of the schema of that version, in `group.py`."""
    _is_ours = False

    def control(self, statement: str) -> sqlite3.Cursor:
        """Run one of the channel's own statements, which no caller's text could be."""
        self._is_ours = True
        try:
            return self.execute(statement)
        finally:
            self._is_ours = False

    @property
    def is_replaced(self) -> bool:
        """True when its file is not the one at its path any more: it must be opened anew."""
        return not self.file.is_still(self.opened)

    def guard(self) -> None:
        """From here on callers' statements may come."""
        self.set_authorizer(self._authorize)
        self.set_progress_handler(lambda: self.stop, _STEPS)
        # As SQLAlchemy has it on every connection, so that both ways give 2 and not 2.0.
        self.create_function("floor", 1, math.floor, deterministic=True)

    def _authorize(
        self, action: int, first: str | None, second: str | None, schema: str | None, _inside: str | None
    ) -> int:
        if self._is_ours:
            return sqlite3.SQLITE_OK
        is_denied = (
            would_stay(action, first, second, schema)
            or action == sqlite3.SQLITE_SAVEPOINT
            or (action == sqlite3.SQLITE_PRAGMA and first not in _HARMLESS_PRAGMAS)
        )
        return sqlite3.SQLITE_DENY if is_denied else sqlite3.SQLITE_OK


def find_file(section: DatabaseSection) -> DatabaseFile:
    """The file that `database.url` names. Raises `ConfigurationError` when it is none, or no file of SQLite's."""
    # SQLAlchemy costs 0.1 s to import; a service whose handlers never say ctx.db does not pay for it.
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if section.url is None:
        msg = "ctx.db needs a database: set database.url, for example to sqlite:///app.db"
        raise ConfigurationError(msg)
    try:
        url = make_url(section.url.get_secret_value())
    except ArgumentError as error:
        msg = "database.url is not a URL; write for example sqlite:///app.db"
        raise ConfigurationError(msg) from error
    # Asked of SQLAlchemy, so that both ways lead to one file.
    (location,), options = url.set(drivername="sqlite").get_dialect()().create_connect_args(url)
    if ":memory:" in location or "mode=memory" in location:
        msg = (
            'the database channel (ctx.db, database="channel") needs a database in a file, which several connections can '
            "open; database.url is one in memory: write for example sqlite:///app.db"
        )
        raise ConfigurationError(msg)
    file = DatabaseFile(location, is_uri=bool(options.get("uri")))
    if file.is_folder:
        msg = f"database.url leads to a folder: name a file in it, such as {Path(file.name) / 'app.db'}"
        raise ConfigurationError(msg)
    return file


def open_writer(file: DatabaseFile, section: DatabaseSection) -> GuardedConnection | None:
    """The connection that writes; None when another process holds the file, to be tried again.

    Raises `sqlite3.Error` when it cannot be opened, `DatabaseBusy` when the file has gone.
    """
    connection = _connect(file, timeout_s=SLICE_S)
    try:
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            msg = f"{file.name} stays in journal mode {mode}: the database channel needs WAL, so keep it on a local disk"
            raise DatabaseError(msg, "NotSupportedError")  # noqa: TRY301 - the connection is closed below
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA synchronous={section.synchronous}")
        connection.guard()
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error) and is_locked(error):
            return None
        raise
    return connection


def open_reader(
    file: DatabaseFile, section: DatabaseSection, factory: type[GuardedConnection] = GuardedConnection
) -> GuardedConnection:
    """A connection that SQLite itself keeps from writing. Raises as `open_writer`.

    Whoever uses it from several threads does so from one at a time.
    """
    connection = _connect(file, timeout_s=section.busy_timeout_s, factory=factory)
    try:
        connection.execute("PRAGMA query_only=ON")
        # Nothing is written here; whoever asks hears what holds for writes.
        connection.execute("PRAGMA foreign_keys=ON")
        connection.guard()
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(
    file: DatabaseFile, *, timeout_s: float, factory: type[GuardedConnection] = GuardedConnection
) -> GuardedConnection:
    before = file.check_there()
    connection = sqlite3.connect(
        file.location,
        uri=file.is_uri,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
        factory=factory,
    )
    connection.file = file
    connection.opened = file.note_opened(before)
    return connection
