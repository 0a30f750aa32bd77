"""Which database a path or a URL means, and how a connection to it is opened."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from penstock.errors import ConfigurationError
from penstock.threads.forked_files import refuse_if_unsafe

#: How long a statement waits for another connection's lock.
BUSY_TIMEOUT_S: Final = 30.0
_LOOK_AGAIN_S: Final = 0.01
_MEMORY: Final = ":memory:"


class Database(NamedTuple):
    """One database, however it was written."""

    key: str
    path: str | None
    """The file of an SQLite database, links resolved."""
    open: Callable[[], Any]

    def is_closed(self, connection: Any) -> bool:
        """True when the connection's user, or the driver after an error, has closed it."""
        if isinstance(connection, sqlite3.Connection):
            try:
                _ = connection.in_transaction
            except sqlite3.ProgrammingError:
                return True
            return False
        return says_closed(connection)


def says_closed(connection: Any) -> bool:
    """True when a server's driver says that its connection is closed; False for one that says nothing of it."""
    # psycopg says `closed`, PyMySQL `open`.
    return bool(getattr(connection, "closed", False)) or not getattr(connection, "open", True)


def database_of(url: str | os.PathLike[str]) -> Database:
    """The database that a path or a URL names. Raises `ConfigurationError` when it cannot be read."""
    text = os.fspath(url)
    if isinstance(url, str) and "://" in text:
        found = _of_url(text)
        if isinstance(found, Database):
            return found
        text = found
    if not text or text.startswith("file:"):
        msg = f"{text!r} is no path of an SQLite file: write for example 'app.db', or sqlite:///app.db"
        raise ConfigurationError(msg)
    if text == _MEMORY:
        return Database(_MEMORY, None, lambda: _open_sqlite(_MEMORY))
    path = os.path.realpath(text)
    return Database(path, path, lambda: _open_sqlite(path))


@lru_cache(maxsize=64)
def _of_url(text: str) -> Database | str:
    """A server's database, or the path of an SQLite file."""
    # SQLAlchemy takes 0.1 s to import; who writes a path does not pay for it.
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        url = make_url(text)
        dialect_class = url.get_dialect()
    except (ArgumentError, ValueError, NoSuchModuleError):
        # What cannot be read may have a password in it anywhere.
        msg = (
            "the URL of a database cannot be read; write for example mysql+pymysql://user:password@host/name"
        )
        raise ConfigurationError(msg) from None
    shown = url.set(query={}).render_as_string(hide_password=True)
    if url.drivername.endswith("+penstock"):
        msg = f"{shown} leads through a worker's channel, which a thread of yours has not: write the database's own URL"
        raise ConfigurationError(msg)
    if url.get_backend_name() == "sqlite":
        if url.query or dialect_class.is_async:
            msg = f"{shown}: of SQLite a path is enough, 'app.db' or sqlite:///app.db, without options"
            raise ConfigurationError(msg)
        return url.database or _MEMORY
    try:
        module = dialect_class.import_dbapi()
    except ImportError as error:
        msg = f"{shown} needs the driver {error.name}, which is not installed"
        raise ConfigurationError(msg) from None
    if dialect_class.is_async:
        msg = f"{shown} names a driver for an event loop; a thread needs a synchronous one, such as mysql+pymysql or postgresql+psycopg"
        raise ConfigurationError(msg)
    # The constructors of dialects are not typed.
    dialect: Any = dialect_class
    arguments, options = dialect(dbapi=module).create_connect_args(url)
    return Database(text, None, lambda: module.connect(*arguments, **options))  # type: ignore[attr-defined,unused-ignore]


def _open_sqlite(path: str) -> sqlite3.Connection:
    refuse_if_unsafe(path)
    with file_named(path):
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
    try:
        connection.row_factory = sqlite3.Row
        if path != _MEMORY:
            use_wal(connection)
        connection.execute("PRAGMA foreign_keys=ON")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def file_named(path: str) -> Iterator[None]:
    """Around the opening of a file: SQLite's words for one that cannot be opened say neither which nor why."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CANTOPEN:
            folder = Path(path).parent
            why = f"may this user read and write {path}?"
            if Path(path).is_dir():
                why = f"{path} is a folder"
            elif not folder.is_dir():
                why = f"{folder} is not a folder"
            error.args = (f"{error}: {why}",)
        raise


def use_wal(connection: sqlite3.Connection) -> None:
    """Put the file into WAL mode, waiting as for a lock; one that may only be read stays as it is. Raises `sqlite3.Error`."""
    deadline_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as error:
            code = error.sqlite_errorcode & 0xFF
            if code == sqlite3.SQLITE_READONLY:
                return  # read as it is
            # Several threads make the file at once: SQLite does not wait for who changes the mode.
            if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > deadline_s:
                raise
            time.sleep(_LOOK_AGAIN_S)
        else:
            return
