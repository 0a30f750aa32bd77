"""SQLite in one file, in the hands of several workers."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import Pool, PoolProxiedConnection

from penstock.channels.db.sqlite.faults import is_broken, is_full, is_locked
from penstock.config.database import DatabaseSection
from penstock.errors import ConfigurationError
from penstock.workers.database.address import Address
from penstock.workers.database.kind import DatabaseKind
from penstock.workers.database.sqlite_connection import WatchedConnection
from penstock.workers.database.sqlite_dialect import DRIVER_NAME

#: How often a connection's file is looked for; the system call costs 8 µs among a message's work.
_LOOK_EACH_S: Final = 1.0
_HAS_AUTOCOMMIT: Final = sys.version_info >= (3, 12)
_LEGACY_AUTOCOMMIT: Final = -1


class SqliteKind(DatabaseKind):
    """SQLite in a file; raises `ConfigurationError` for one in memory."""

    def __init__(self, address: Address, section: DatabaseSection) -> None:
        self.path = _file_of(address)
        self._identity: tuple[int, int] | None = None
        self._looked_at_s = 0.0
        super().__init__(address, section)

    def connect(self) -> PoolProxiedConnection:
        """Open the file; make it only the first time."""
        if self._identity is not None and not Path(str(self.path)).exists():
            # Made anew it would be empty, and every message would fail for a table that is not there.
            msg = f"the file {self.path} has gone; put it back, or restart the service to begin with an empty one"
            raise FileNotFoundError(msg)
        return super().connect()

    def words_of(self, error: BaseException) -> str:
        """With the folder, when the file cannot be opened."""
        words = super().words_of(error)
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_CANTOPEN:
            folder = Path(str(self.path)).parent
            words += (
                f": {folder} is not a folder"
                if not folder.is_dir()
                else f": may this user write to {folder}?"
            )
        return words

    def note_opened(self, raw: Any) -> None:
        """Forget what opening did, and note which file it is."""
        raw.left = None
        self._identity = _identity_of(str(self.path))
        self._looked_at_s = time.monotonic()

    def forget_left(self, raw: Any) -> None:
        """As the connection notes it."""
        raw.left = None

    def fault_of(self, raw: Any) -> str | None:
        """That the file was moved away: rows written to it now would be nobody's."""
        now_s = time.monotonic()
        if now_s - self._looked_at_s > _LOOK_EACH_S:
            self._looked_at_s = now_s
            if (identity := _identity_of(str(self.path))) != self._identity:
                return f"the file {self.path} {'has gone' if identity is None else 'is another one now'}"
        return self.left_on(raw)

    def autocommits(self, raw: Any) -> bool:
        """For an adopted engine's connection to be asked inside a transaction, which its own events may have begun."""
        if isinstance(raw, WatchedConnection):
            return raw.is_autocommit
        is_left_alone = raw.isolation_level is None and not raw.in_transaction
        return is_left_alone or super().autocommits(raw)

    def begin_stream(self, connection: Connection) -> None:
        """No transaction, which would wait for the write lock; a statement sees one state of the file by itself."""
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql("PRAGMA query_only=ON")

    def close_results(self, raw: Any) -> None:
        """Those that somebody still holds."""
        raw.close_cursors()

    def end_transaction(self, raw: Any, *, commit: bool) -> None:
        """Only when there is one."""
        if raw.in_transaction:
            super().end_transaction(raw, commit=commit)

    def left_on(self, raw: Any) -> str | None:
        """What the connection noted, and the attributes that the driver does not announce."""
        try:
            if raw.in_transaction:
                return "an open transaction"
            if raw.isolation_level is not None or (_HAS_AUTOCOMMIT and raw.autocommit != _LEGACY_AUTOCOMMIT):
                return "the driver's isolation_level or autocommit"
        except sqlite3.ProgrammingError:
            return "a closed connection"
        if raw.row_factory is not None:
            return "a row_factory"
        if raw.text_factory is not str:
            return "a text_factory"
        left: str | None = raw.left
        return left

    def left_by_options(self, options: Any) -> str | None:
        """Nothing: the dialect has noted on the connection what they changed."""
        del options
        return None

    def is_lost(self, error: BaseException) -> bool:
        """Only what the file did; a closed connection is what the handler did."""
        return is_broken(error)

    def is_busy(self, error: BaseException) -> bool:
        """Another connection's lock, or a full disk."""
        return is_locked(error) or is_full(error)

    def is_conflict(self, error: BaseException) -> bool:
        """Never: a transaction has the only write lock before it begins."""
        del error
        return False

    def _create_engine(self, pool: type[Pool]) -> Engine:
        return create_engine(
            self.address.url.set(drivername=DRIVER_NAME),
            poolclass=pool,
            pool_reset_on_return=None,
            busy_timeout_s=self._section.busy_timeout_s,
            synchronous=self._section.synchronous,
        )


def _identity_of(path: str) -> tuple[int, int] | None:
    try:
        stat = Path(path).stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _file_of(address: Address) -> str:
    database = address.url.database or ""
    is_uri = str(address.url.query.get("uri", "")).lower() in ("true", "1", "yes", "on", "t", "y")
    if is_uri and database.startswith("file:"):
        database = unquote(database.removeprefix("file:").partition("?")[0])
    if (
        not database
        or database == ":memory:"
        or address.url.query.get("mode") == "memory"
        or "mode=memory" in database
    ):
        msg = (
            f"database.url is {address}, a database in memory: every worker process would have one of its own, and what "
            "one writes no other would find. Name a file: sqlite:///app.db"
        )
        raise ConfigurationError(msg)
    path = os.path.realpath(database)
    if Path(path).is_dir():
        msg = f"database.url is {address}, and {path} is a folder: name a file in it, such as {path.rstrip('/')}/app.db"
        raise ConfigurationError(msg)
    return path
