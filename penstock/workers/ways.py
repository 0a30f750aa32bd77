"""Which way a handler's `ctx.connection` and `ctx.session` take: the worker's own connection, or the channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock.app.handlers import AnyHandler
from penstock.errors import HandlerError
from penstock.workers.adopted import AdoptedDatabase
from penstock.workers.connection import OwnConnection

if TYPE_CHECKING:
    from sqlalchemy import Connection, Executable
    from sqlalchemy.orm import Session

    from penstock.workers.database.streaming import RowStream


class DatabaseWays:
    """The database of the message that runs; both ways are driven alike, so one of them is current."""

    def __init__(self, own: OwnConnection | AdoptedDatabase, channel: OwnConnection) -> None:
        self._own = own
        self._channel = channel
        self._over_channel: frozenset[str] = frozenset()
        self._current: OwnConnection | AdoptedDatabase = own

    def __repr__(self) -> str:
        return f"<DatabaseWays [own {self._own!r}, channel {self._channel!r}]>"

    def open(self, handlers: Sequence[AnyHandler], *, workers: int) -> None:
        """Open what these handlers want. Raises `ConfigurationError`, `HandlerError` for a function with both ways."""
        ways = {(handler.name, handler.options.database) for handler in handlers if not handler.is_async}
        over_channel = frozenset(name for name, way in ways if way == "channel")
        own = frozenset(name for name, way in ways if way == "own")
        if both := sorted(over_channel & own):
            msg = f"{both[0]} serves several queues and takes its database two ways; write the same database=… at each"
            raise HandlerError(msg)
        self._over_channel = over_channel
        if own or not over_channel:
            self._own.open(workers=workers)
        if over_channel:
            self._channel.open()
        for handler in handlers:
            way = self._channel if handler.name in over_channel else self._own
            way.check_isolation(handler.name, handler.options.isolation)

    def begin(self, handler: str, isolation: str | None = None) -> None:
        """A message begins: its handler's way is current."""
        self._current = self._channel if handler in self._over_channel else self._own
        self._current.begin(handler, isolation)

    @property
    def current(self) -> OwnConnection | AdoptedDatabase:
        """The way of the message that has begun."""
        return self._current

    @property
    def connection(self) -> Connection:
        """As `OwnConnection.connection`."""
        return self._current.connection

    @property
    def session(self) -> Session:
        """As `OwnConnection.session`."""
        return self._current.session

    def stream(self, statement: str | Executable, parameters: Any = None) -> RowStream:
        """As `OwnConnection.stream`."""
        return self._current.stream(statement, parameters)

    @property
    def in_transaction(self) -> bool:
        """As `OwnConnection.in_transaction`."""
        return self._current.in_transaction

    def commit(self) -> None:
        """As `OwnConnection.commit`."""
        self._current.commit()

    def rollback(self) -> None:
        """As `OwnConnection.rollback`."""
        self._current.rollback()

    def is_lost(self, error: BaseException) -> bool:
        """As `OwnConnection.is_lost`."""
        return self._current.is_lost(error)

    def is_lost_amid(self, error: BaseException) -> bool:
        """As `OwnConnection.is_lost_amid`."""
        return self._current.is_lost_amid(error)

    def is_conflict(self, error: BaseException) -> bool:
        """As `OwnConnection.is_conflict`."""
        return self._current.is_conflict(error)

    def is_busy(self, error: BaseException) -> bool:
        """As `OwnConnection.is_busy`."""
        return self._current.is_busy(error)

    def close(self) -> None:
        """Close both; harmless when repeated."""
        self._channel.close()
        self._own.close()
