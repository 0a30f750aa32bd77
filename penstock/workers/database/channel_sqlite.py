"""SQLite over the channel, in the hands of a worker as if it were a connection of its own."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import Connection as AlchemyConnection
from sqlalchemy import Engine, Pool, create_engine

from penstock.channels.db.calls import Ran
from penstock.channels.db.sqlite.faults import is_full, is_locked
from penstock.channels.dbapi.sqlite.connection import Connection
from penstock.errors import TransactionUndone
from penstock.workers.database.kind import DatabaseKind


class UndoneConnection(Connection):
    """The driver's connection, which refuses to commit what came after an error that undid all, for the whole."""

    undone_by: sqlite3.Error | None = None
    """The error that took the transaction away, until somebody rolls back."""

    def run(self, statement: Any, parameters: Any, *, is_many: bool = False, is_script: bool = False) -> Ran:
        """As the driver's connection."""
        was_inside = self.session.in_transaction
        try:
            return super().run(statement, parameters, is_many=is_many, is_script=is_script)
        except sqlite3.Error as error:
            if was_inside and not self.session.in_transaction and self.isolation_level is not None:
                self.undone_by = error
                self._savepoints.clear()
                # Without a transaction each further statement of the handler would be committed by itself.
                self.session.begin()
            raise

    def begin(self) -> None:
        """As the driver's connection."""
        if self.undone_by is not None:
            # A rollback that follows a refused commit SQLAlchemy keeps to itself.
            self._rollback()
        super().begin()

    def _commit(self) -> None:
        if self.undone_by is not None:
            raise TransactionUndone from self.undone_by
        super()._commit()

    def _rollback(self) -> None:
        self.undone_by = None
        super()._rollback()


class SqliteChannelKind(DatabaseKind):
    """What `database="channel"` gives a handler on SQLite; nothing is opened here, and nothing of it can be lost."""

    opens_connections = False

    def begin_stream(self, connection: AlchemyConnection) -> None:
        """No transaction, which would wait for the writer; the result has a reading connection of the loop's to itself."""
        connection.execution_options(isolation_level="AUTOCOMMIT")
        raw: Any = connection.connection.dbapi_connection
        raw.is_read_only = True

    def close_results(self, raw: Any) -> None:
        """Those of the transaction are closed with it, others when the message ends."""

    def ping(self, raw: Any) -> None:
        """Nothing: the way to the loop is as long as the worker lives."""

    def fault_of(self, raw: Any) -> str | None:
        """What an earlier message left."""
        return self.left_on(raw)

    def left_on(self, raw: Any) -> str | None:
        """The driver's attributes that a handler may have changed."""
        if raw.is_closed:
            return "a closed connection"
        if raw.in_transaction:
            return "an open transaction"
        if raw.isolation_level != "":
            return "the driver's isolation_level"
        if raw.row_factory is not None:
            return "a row_factory"
        if raw.text_factory is not str:
            return "a text_factory"
        return None

    def left_by_options(self, options: Any) -> str | None:
        """Nothing: `left_on` sees what they changed."""
        del options
        return None

    def is_lost(self, error: BaseException) -> bool:
        """Never: a closed channel is told by itself."""
        del error
        return False

    def is_conflict(self, error: BaseException) -> bool:
        """Never: a transaction has the writer before it begins."""
        del error
        return False

    def is_busy(self, error: BaseException) -> bool:
        """The writer was not to be had in time, or the disk is full."""
        return is_locked(error) or is_full(error)

    def _create_engine(self, pool: type[Pool]) -> Engine:
        # Registers the dialect, too, where the entry point is not installed.
        from penstock.channels.dbapi import sqlite_dialect

        dialect = sqlite_dialect.ChannelSqliteDialect
        return create_engine(
            f"sqlite+{dialect.driver}://",
            poolclass=pool,
            pool_reset_on_return=None,
            # As the worker's own connection: what a message has read nobody else changes before it commits.
            immediate=True,
            connect_args={"factory": UndoneConnection},
        )
