"""What SQLite raises: what it means for whoever meets it, and in our words."""

from __future__ import annotations

import sqlite3
from typing import Final

from penstock.channels.db.statements import shown
from penstock.errors import DatabaseError

_PRIMARY: Final = 0xFF


def is_locked(error: BaseException) -> bool:
    """True when another connection holds the lock that was needed, so that it may be had later.

    Not for SQLITE_LOCKED: there the connection stands in its own way, with a result that it has not read to its end.
    """
    return _code(error) == sqlite3.SQLITE_BUSY


def is_full(error: BaseException) -> bool:
    """True when the disk is full."""
    return _code(error) == sqlite3.SQLITE_FULL


def would_write(error: BaseException) -> bool:
    """True when a connection that may only read was given a statement that writes; nothing of it was run."""
    return _code(error) == sqlite3.SQLITE_READONLY


def is_broken(error: BaseException) -> bool:
    """True when the disk failed under the connection, or its file was moved away: it must not be used again.

    After a failed fsync the kernel calls its pages clean: a second one on the same descriptor would lie.
    """
    return _code(error) == sqlite3.SQLITE_IOERR or _extended_code(error) == sqlite3.SQLITE_READONLY_DBMOVED


def translated(error: Exception, statement: str) -> DatabaseError:
    """The error for the statement's caller; it never holds parameters, which may be secret. Its cause is the driver's."""
    if isinstance(error, DatabaseError):
        return error
    made = _worded(error, statement)
    made.__cause__ = error
    return made


def _worded(error: Exception, statement: str) -> DatabaseError:
    code, kind = _code(error), type(error).__name__
    if code == sqlite3.SQLITE_AUTH:
        words = (
            "is refused: transactions, PRAGMA, ATTACH, temporary tables and load_extension "
            "would reach other callers; nothing of it was run"
        )
        return DatabaseError(f"{shown(statement)} {words}", "ProgrammingError")
    if code == sqlite3.SQLITE_INTERRUPT:
        return DatabaseError(f"{shown(statement)} was interrupted; nothing of it was kept", kind)
    if is_full(error):
        words = "the database's disk is full: make room; nothing of the statement was kept"
        return DatabaseError(f"{words}: {shown(statement)}", kind)
    return DatabaseError(f"{error}; nothing of the statement was kept: {shown(statement)}", kind)


def _code(error: BaseException) -> int:
    return _extended_code(error) & _PRIMARY


def _extended_code(error: BaseException) -> int:
    # What the module raises itself (a wrong number of parameters) carries none.
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code
