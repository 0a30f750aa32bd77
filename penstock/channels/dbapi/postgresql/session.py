"""A session of PostgreSQL's: what it raises is psycopg's."""

from __future__ import annotations

import builtins
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.pq import DiagnosticField

from penstock.channels.db.calls import Failed
from penstock.channels.dbapi.server.session import ServerSession

_BUILTINS: Final = frozenset({"OverflowError", "TypeError", "ValueError", "IndexError"})


class Session(ServerSession):
    """As psycopg says it."""

    def driver_error(self, failed: Failed) -> Exception:
        """With `sqlstate` and `diag`."""
        if failed.name in _BUILTINS:
            found: type[Exception] = getattr(builtins, failed.name)
            return found(failed.text)
        kind: Any = getattr(errors, failed.name, None) or getattr(psycopg, failed.name, None)
        if not (isinstance(kind, type) and issubclass(kind, psycopg.Error)):
            kind = psycopg.DatabaseError
        diagnostics = {
            DiagnosticField[name.upper()]: None if value is None else value.encode()
            for name, value in failed.diagnostics.items()
        }
        error: psycopg.Error = kind(failed.text, info=diagnostics or None)
        if failed.sqlstate is not None:
            error.sqlstate = failed.sqlstate
        return error

    def operational(self, text: str) -> Exception:
        """Without an SQLSTATE, which only the server gives."""
        return psycopg.OperationalError(text)

    def too_large(self, text: str) -> Exception:
        """The same."""
        return psycopg.DataError(text)
