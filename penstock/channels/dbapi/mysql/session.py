"""A session of MySQL's or MariaDB's: what it raises is PyMySQL's."""

from __future__ import annotations

import builtins
from typing import Final

from pymysql import err

from penstock.channels.db.calls import Failed
from penstock.channels.dbapi.server.session import ServerSession

_BUILTINS: Final = frozenset({"IndexError", "KeyError", "OverflowError", "ValueError"})


class Session(ServerSession):
    """As PyMySQL says it."""

    def driver_error(self, failed: Failed) -> Exception:
        """With the server's number and text as its arguments."""
        if failed.name == "TypeError":
            # What Python says when parameters do not fit their places, in the driver's class for it.
            return err.ProgrammingError(failed.text)
        if failed.name in _BUILTINS:
            found: type[Exception] = getattr(builtins, failed.name)
            return found(failed.text)
        kind = getattr(err, failed.name, err.DatabaseError)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            kind = err.DatabaseError
        error = kind(*(failed.arguments or [failed.text]))
        if failed.sqlstate is not None:
            # Newer versions of the driver have it.
            error.sqlstate = failed.sqlstate  # type: ignore[attr-defined] # not in its stubs yet
        return error

    def operational(self, text: str) -> Exception:
        """Without a number, which only the server gives."""
        return err.OperationalError(text)

    def too_large(self, text: str) -> Exception:
        """The same."""
        return err.DataError(text)
