"""PostgreSQL over the channel."""

from __future__ import annotations

from typing import Any

from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from penstock.channels.dbapi import postgresql_dialect
from penstock.channels.dbapi.link import current
from penstock.channels.dbapi.postgresql import Connection
from penstock.channels.dbapi.postgresql.session import Session
from penstock.errors import TransactionUndone
from penstock.workers.database.channel_server import ServerChannelKind


class UndoneConnection(Connection):
    """The driver's connection, which refuses to take a rollback for a commit."""

    def end(self, *, commit: bool) -> None:
        """As the driver's. Raises `TransactionUndone` where the server would answer COMMIT with ROLLBACK, in silence."""
        if commit and self.info.transaction_status == TransactionStatus.INERROR and not self.session.is_lost:
            raise TransactionUndone from self.failed_by
        super().end(commit=commit)


class PostgreSQLChannelKind(ServerChannelKind):
    """PostgreSQL over the channel."""

    def connect_raw(self) -> Any:
        """It crosses with its first statement."""
        return UndoneConnection(Session(current()))

    def dialect_class(self) -> Any:
        """The one there is."""
        return postgresql_dialect.ChannelPostgreSQLDialect

    def left_on(self, raw: Any) -> str | None:
        """A row factory, too."""
        return super().left_on(raw) or (None if raw.row_factory is tuple_row else "a row_factory")
