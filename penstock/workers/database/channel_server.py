"""A database server over the channel, in the hands of a worker as if it were a connection of its own."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Engine, Pool, create_engine, event

from penstock.channels.dbapi.server.control import Beginning
from penstock.channels.dbapi.server.session import is_disconnect
from penstock.errors import DatabaseBusy
from penstock.workers.database.kind import DatabaseKind


class ServerChannelKind(DatabaseKind):
    """What `database="channel"` gives a handler on a server; nothing is opened here, the loop has the connections."""

    opens_connections = False
    _beginning = Beginning()

    @abstractmethod
    def connect_raw(self) -> Any:
        """The driver's connection, which refuses to commit half a transaction."""

    @abstractmethod
    def dialect_class(self) -> Any:
        """Its dialect, registered."""

    def note_opened(self, raw: Any) -> None:
        """How its transactions begin."""
        self._beginning = raw.beginning

    def forget_left(self, raw: Any) -> None:
        """The same."""
        self._beginning = raw.beginning

    def fault_of(self, raw: Any) -> str | None:
        """What an earlier message left."""
        return self.left_on(raw)

    def ping(self, raw: Any) -> None:
        """Nothing: the loop tests its connections, and the way to it is as long as the worker lives."""

    def begin_stream(self, connection: Connection) -> None:
        """Read only."""
        raw: Any = connection.connection.dbapi_connection
        raw.beginning = replace(raw.beginning, is_read_only=True)

    def left_on(self, raw: Any) -> str | None:
        """The driver's attributes that a handler may have changed; what it SET is gone with the loop's connection."""
        if raw.is_closed:
            return "a closed connection"
        if raw.in_transaction:
            return "an open transaction"
        if raw.is_autocommit:
            return "autocommit"
        if raw.beginning != self._beginning:
            return "how transactions begin"
        return None

    def left_by_options(self, options: Any) -> str | None:
        """Nothing: `left_on` sees what they changed."""
        del options
        return None

    def is_lost(self, error: BaseException) -> bool:
        """As the loop says."""
        return is_disconnect(error)

    def is_busy(self, error: BaseException) -> bool:
        """No connection of the loop's was to be had in time, the server is not there, or its disk is full."""
        return isinstance(error, DatabaseBusy) or super().is_busy(error)

    def _create_engine(self, pool: type[Pool]) -> Engine:
        dialect = self.dialect_class()
        engine = create_engine(
            f"{dialect.name}+{dialect.driver}://", poolclass=pool, pool_reset_on_return=None
        )
        event.listen(engine, "do_connect", lambda *_: self.connect_raw())
        return engine
