"""A session of SQLite's: what it raises is `sqlite3`'s."""

from __future__ import annotations

import builtins
import sqlite3

from penstock.channels.db.calls import Failed
from penstock.channels.dbapi.session import DriverSession
from penstock.errors import DatabaseBusy, DatabaseError

_BUILTINS = frozenset({"OverflowError", "TypeError", "ValueError"})


class Session(DriverSession):
    """As `sqlite3` says it."""

    def failure(self, failed: Failed) -> Exception:
        """With SQLite's code and its name."""
        return _exception(failed.name, failed.text, failed.code, failed.code_name)

    def refusal(self, error: DatabaseError) -> Exception:
        """A writer that was not to be had in time is SQLITE_BUSY."""
        if isinstance(error, DatabaseBusy):
            return _exception("OperationalError", str(error), sqlite3.SQLITE_BUSY, "SQLITE_BUSY")
        return _exception(error.kind, str(error), None, None)

    def operational(self, text: str) -> Exception:
        """Without a code, which only SQLite gives."""
        return sqlite3.OperationalError(text)

    def too_large(self, text: str) -> Exception:
        """The same."""
        return sqlite3.DataError(text)


def wrong(text: str) -> Exception:
    """What SQLite would have said."""
    return _exception("OperationalError", text, sqlite3.SQLITE_ERROR, "SQLITE_ERROR")


def _exception(name: str, text: str, code: int | None, code_name: str | None) -> Exception:
    found = getattr(builtins if name in _BUILTINS else sqlite3, name, sqlite3.DatabaseError)
    if not (isinstance(found, type) and issubclass(found, Exception)):
        found = sqlite3.DatabaseError
    error = found(text)
    if code is not None and isinstance(error, sqlite3.Error):
        error.sqlite_errorcode = code
        error.sqlite_errorname = code_name or ""
    return error
