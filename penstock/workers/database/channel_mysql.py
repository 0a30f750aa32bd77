"""MySQL and MariaDB over the channel."""

from __future__ import annotations

from typing import Any

from penstock.channels.db.server.codes import DEADLOCK
from penstock.channels.dbapi import mysql_dialect
from penstock.channels.dbapi.link import current
from penstock.channels.dbapi.mysql import Connection
from penstock.channels.dbapi.mysql.session import Session
from penstock.errors import TransactionUndone
from penstock.workers.database.channel_server import ServerChannelKind
from penstock.workers.database.mysql_family import MySQLFamilyKind


class UndoneConnection(Connection):
    """The driver's connection, which refuses to commit what came after a deadlock for the whole."""

    undone_by: Exception | None = None
    """The deadlock that took the transaction away, until somebody rolls back."""

    def note_failed(self, error: Exception) -> None:
        """As the driver's connection."""
        super().note_failed(error)
        if error.args and error.args[0] == DEADLOCK:
            self.undone_by = error

    def end(self, *, commit: bool) -> None:
        """As the driver's. Raises `TransactionUndone` when half a transaction would be committed for a whole one."""
        if commit and self.undone_by is not None:
            raise TransactionUndone from self.undone_by
        self.undone_by = None
        super().end(commit=commit)


class MySQLChannelKind(ServerChannelKind, MySQLFamilyKind):
    """MySQL and MariaDB over the channel."""

    def connect_raw(self) -> Any:
        """It crosses with its first statement."""
        return UndoneConnection(Session(current()))

    def dialect_class(self) -> Any:
        """For MariaDB when the URL says so."""
        is_mariadb = self.address.backend == "mariadb"
        return mysql_dialect.ChannelMariaDBDialect if is_mariadb else mysql_dialect.ChannelMySQLDialect
