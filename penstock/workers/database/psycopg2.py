"""PostgreSQL by psycopg2, which an application has had for years: for adopted engines alone."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection

from penstock.channels.db.server.commits import commits
from penstock.workers.database.kind import DatabaseKind

#: The driver's TRANSACTION_STATUS_INERROR.
_IN_ERROR: Final = 3


class Psycopg2Kind(DatabaseKind):
    """What an adopted engine has to be asked."""

    def has_undone(self, raw: Any) -> bool:
        """After any error outside of a savepoint."""
        return bool(raw.get_transaction_status() == _IN_ERROR)

    def commits_by_text(self, statement: str) -> bool:
        """The server answers it with a rollback, in silence."""
        return commits(statement)

    def begin_stream(self, connection: Connection) -> None:
        """Read only."""
        connection.execution_options(postgresql_readonly=True)
