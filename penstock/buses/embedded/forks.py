"""A file that is open when its process forks cannot be used in the child.

SQLite counts a process's locks on a file once for all its connections. A child that opens the file again believes
in locks that only its parent has, and goes on writing into a log that the parent's last close deletes: confirmed
messages would be lost. A `Client` closes the file before a fork; whoever has it open otherwise gets words in the child.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from weakref import WeakSet

from penstock.errors import BusUnavailable


class WatchedConnection(sqlite3.Connection):
    """A connection that is known as long as it is open."""

    path: Path

    def close(self) -> None:
        """Close it; a fork from here on does no harm."""
        super().close()
        _open.discard(self)


#: What this process has open.
_open: WeakSet[WatchedConnection] = WeakSet()
#: What its parent had open at the fork; kept, so that nothing is closed here that is the parent's.
_inherited: list[WatchedConnection] = []


def connect(path: Path, *, timeout_s: float) -> WatchedConnection:
    """Open the file, waiting so many seconds for its lock.

    Raises `BusUnavailable` in a child whose parent had it open at the fork, and what SQLite raises.
    """
    if any(connection.path == path for connection in _inherited):
        raise BusUnavailable(
            f"process {os.getpid()} was forked while the embedded bus's file {path} was open, and cannot use it: SQLite "
            "would lose messages. Fork before an AsyncClient or a reactor opens it, or start the process with spawn "
            "or forkserver"
        )
    connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, factory=WatchedConnection)
    connection.path = path
    _open.add(connection)
    return connection


def _after_fork_in_child() -> None:
    _inherited.extend(_open)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
