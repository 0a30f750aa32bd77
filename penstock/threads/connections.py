"""`get_connection`, `close_connection`, `close_connections`: one connection for each thread and database.

```
 thread ─▶ its table (threading.local) ─▶ database ─▶ connection
              │ the thread ends: the table goes, and closes what is in it, in that thread
              ▼
           every open connection of the process ── fork ─▶ in the child: kept for ever, never used, never closed
```
Only what was opened here is closed here: a connection that Penstock or somebody else holds is in no table.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sqlite3
import threading
from contextlib import suppress
from typing import Any, Final, overload

from penstock.threads import forked_files
from penstock.threads.opening import Database, database_of

#: Everything that is open, by its id, so that a child of a fork can keep it; each thread adds and takes its own.
_open: Final[dict[int, tuple[Any, Database]]] = {}


class _Table(threading.local):
    """A thread's connections; the last reference to it goes with the thread."""

    def __init__(self) -> None:
        self.held = _Held()


class _Held:
    def __init__(self) -> None:
        self.pid = os.getpid()
        self.connections: dict[str, Any] = {}

    def close(self, key: str) -> None:
        connection = self.connections.pop(key, None)
        if connection is not None and self.pid == os.getpid():
            _open.pop(id(connection), None)
            connection.close()

    def __del__(self) -> None:
        # With the thread's end, in that thread: a driver that checks who closes is content. Other threads' tables
        # end in the child of a fork, too, and there they are the parent's.
        for key in list(self.connections):
            with suppress(Exception):
                self.close(key)


_table = _Table()


@overload
def get_connection(url: os.PathLike[str]) -> sqlite3.Connection: ...


@overload
def get_connection(url: str | os.PathLike[str]) -> Any: ...


def get_connection(url: str | os.PathLike[str]) -> Any:
    """This thread's connection to a database, opened at the first call and the same one until it is closed.

    A path gives a `sqlite3.Connection`: rows are `sqlite3.Row`, locks are waited for up to 30 s, the file is in WAL
    mode, foreign keys are on. A URL as SQLAlchemy writes it (`mysql+pymysql://user:password@host/name`) gives the
    driver's own connection. It is closed when the thread ends. One that its user or the server has closed is replaced.

    Raises `ConfigurationError` for a URL that nobody can read or a driver that is not installed,
    `DatabaseUnavailable` in a forked child when the parent was inside a transaction on the same SQLite file, and what
    the driver raises when it cannot connect.
    """
    database = database_of(url)
    held = _table.held
    connection = held.connections.get(database.key)
    if connection is not None:
        if not database.is_closed(connection):
            return connection
        with suppress(Exception):
            held.close(database.key)
    connection = database.open()
    _open[id(connection)] = connection, database
    held.connections[database.key] = connection
    return connection


def close_connection(url: str | os.PathLike[str]) -> None:
    """Close this thread's connection to a database; a transaction that is open on it is rolled back.

    Harmless when there is none. Raises what the driver raises; the connection is forgotten all the same.
    """
    _table.held.close(database_of(url).key)


def close_connections() -> None:
    """Close all of this thread's connections, as `close_connection` does; other threads keep theirs."""
    held = _table.held
    failures = []
    for key in list(held.connections):
        try:
            held.close(key)
        except Exception as error:  # noqa: BLE001 - the driver's; the others are closed first
            failures.append(error)
    if failures:
        raise failures[0]


def _before_fork() -> None:
    for connection, database in list(_open.values()):
        if database.path is not None and not database.is_closed(connection):
            forked_files.note(database.path, in_transaction=connection.in_transaction)


def _after_fork_in_child() -> None:
    for connection, _ in _open.values():
        # Never freed, not even at the exit: a driver that is freed says goodbye to the server on its parent's socket.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    _open.clear()
    _table.held = _Held()
    forked_files.take_locks()


def _at_exit() -> None:
    # Before the modules are taken apart, so that closing still works.
    with suppress(Exception):
        close_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=forked_files.forget, after_in_child=_after_fork_in_child
    )
# The main thread's end is the program's.
atexit.register(_at_exit)
