"""The bus's one file: where it is, opening it, refusing what is not ours, and words for what SQLite says."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from random import uniform
from typing import Final

from penstock.buses.embedded.forks import connect
from penstock.buses.embedded.schema import APPLICATION_ID, TABLES, VERSION
from penstock.errors import BusUnavailable, ConfigurationError

SCHEME: Final = "sqlite:///"
#: How long opening waits for another process that is creating or recovering the file.
OPEN_WAIT_S: Final = 5.0
#: SQLite's own wait grows to 100 ms a step, which starves the unlucky; ours are uneven and short.
LOCK_STEP_S: Final = 0.002
#: SQLite's write-ahead log is cut back to so much after a large transaction.
WAL_KEPT_BYTES: Final = 64 * 1024 * 1024
#: The busy result and its extended forms share their low byte.
PRIMARY_CODE: Final = 0xFF


def path_of(url: str) -> Path:
    """The file that `sqlite:///relative.db` or `sqlite:////absolute.db` names, as an absolute path.

    Raises `ConfigurationError` for anything else.
    """
    name = url.removeprefix(SCHEME)
    if name == url or not name or name == ":memory:" or "?" in name:
        raise ConfigurationError(
            f"bus.url {url!r} names no file: the embedded bus is sqlite:///penstock.db (beside the working "
            "directory) or sqlite:////var/lib/penstock/bus.db (absolute), without options"
        )
    # Resolved, because what lies beside the file has to lie beside the same file for everybody.
    return Path(name).resolve()


def is_busy(error: sqlite3.Error) -> bool:
    """True when another process has the file for a moment; trying again helps."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & PRIMARY_CODE in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_full(error: sqlite3.Error) -> bool:
    """True when the disk had no room for the transaction."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & PRIMARY_CODE == sqlite3.SQLITE_FULL


def execute_when_free(connection: sqlite3.Connection, statement: str, wait_s: float) -> sqlite3.Cursor:
    """Execute it as soon as no other process is in the way.

    Raises `sqlite3.OperationalError` (busy) after `wait_s`, and at once for any other reason.
    """
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            return connection.execute(statement)
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline_s:
                raise
            time.sleep(uniform(0, LOCK_STEP_S))


def in_words(error: sqlite3.Error, path: Path) -> BusUnavailable:
    """What SQLite said, for the person at 3 a.m."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    primary = code & PRIMARY_CODE
    if primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return BusUnavailable(
            f"the embedded bus's file {path} is damaged ({error}); nothing was changed in it. Stop everything that "
            f"uses it, keep a copy, then recover what is left: sqlite3 {path} .recover | sqlite3 recovered.db"
        )
    if primary == sqlite3.SQLITE_FULL:
        return BusUnavailable(
            f"the disk of the embedded bus's file {path} is full; free some space, it goes on by itself"
        )
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return BusUnavailable(
            f"the embedded bus's file {path} cannot be opened for writing ({error}); this user needs to write the "
            "file, what lies beside it (-wal, -shm, -pipes) and its folder, and a free file descriptor"
        )
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return BusUnavailable(
            f"the embedded bus's file {path} is locked by another process that does not let go; "
            f"`fuser {path}` names it"
        )
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return BusUnavailable(f"the embedded bus's file {path} cannot be used: {error} ({name})")


def open_file(path: Path) -> sqlite3.Connection:
    """A connection to the bus's file, which is created when it does not exist.

    It belongs to the thread that opened it. Raises `BusUnavailable` when the file is another program's, a newer
    Penstock's or damaged, cannot be opened, or was open when this process was forked.
    """
    if not path.parent.is_dir():
        raise BusUnavailable(
            f"the embedded bus's file would be {path}, but its folder does not exist; create it: mkdir -p {path.parent}"
        )
    _create_private(path)
    try:
        connection = connect(path, timeout_s=OPEN_WAIT_S)
    except sqlite3.Error as error:
        raise in_words(error, path) from error
    try:
        # One look: between two another process may make the tables.
        connection.execute("BEGIN")
        has_tables = _refuse_foreign(connection, path)
        connection.execute("ROLLBACK")
        _prepare(connection, path)
        if not has_tables:
            _create_tables(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise in_words(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _create_private(path: Path) -> None:
    # Messages are nobody else's business; SQLite gives -wal and -shm the same permissions.
    with contextlib.suppress(OSError):  # SQLite meets the same obstacle at once, and says it better
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660))


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> bool:
    """True when the tables are there, False when the file is empty; raises when it is not ours."""
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if owner == 0 and version == 0 and tables == 0:
        return False
    if owner != APPLICATION_ID:
        raise BusUnavailable(
            f"{path} is another program's SQLite database; the embedded bus needs a file of its own, and this one "
            'was left as it is. Name another: bus.url = "sqlite:///penstock.db"'
        )
    if version > VERSION:
        raise BusUnavailable(
            f"{path} was written by a newer Penstock (format {version}, this one knows {VERSION}) and was left as it "
            "is; upgrade Penstock here, or name another file in bus.url"
        )
    return True


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    # SQLite does not wait by itself when two processes turn a new file to WAL at once.
    (mode,) = execute_when_free(connection, "PRAGMA journal_mode = WAL", OPEN_WAIT_S).fetchone()
    if mode != "wal":
        raise BusUnavailable(
            f"{path} lies on a file system without shared memory (SQLite offers {mode!r} in place of a write-ahead "
            "log); the embedded bus needs a local disk"
        )
    connection.execute("PRAGMA synchronous = FULL")
    # Where fsync does not reach the platter (macOS), this one does; elsewhere it means nothing.
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")


def _create_tables(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Asked again under the lock: another process may have been quicker.
        if not _refuse_foreign(connection, path):
            for statement in TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
