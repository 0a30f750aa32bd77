"""The asynchronous connection to MySQL and MariaDB: as aiomysql's, with PyMySQL's ways where aiomysql left them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import aiomysql  # type: ignore[import-untyped]
from pymysql import err
from pymysql.constants import CLIENT, CR
from pymysql.converters import escape_item
from sqlalchemy import URL

from penstock.channels.db.server.driver import CONNECT_S
from penstock.channels.db.server.patience import opened


class Connection(aiomysql.Connection):  # type: ignore[misc]
    """Takes bytes as parameters and one statement at a time, and knows whether there is something to roll back."""

    is_dirty = False
    """True once it was asked something since the last commit or rollback, unless each statement commits."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # As PyMySQL: what is smuggled in behind a semicolon is an error.
        self.client_flag &= ~CLIENT.MULTI_STATEMENTS

    async def query(self, sql: Any, unbuffered: bool = False) -> Any:  # noqa: FBT001, FBT002 - the driver's signature
        """As the driver's."""
        self.is_dirty = self.is_dirty or not self.get_autocommit()
        return await super().query(sql, unbuffered)

    async def commit(self) -> None:
        """As the driver's."""
        await super().commit()
        self.is_dirty = False

    async def rollback(self) -> None:
        """As the driver's."""
        await super().rollback()
        self.is_dirty = False

    def has_hung_up(self) -> bool:
        """True when the loop has closed the socket, having seen its end; the driver does not notice that."""
        return self._writer is None or self._writer.is_closing()

    def _write_bytes(self, data: Any) -> Any:
        if self.has_hung_up():
            # What the event loop raises is its own, and different from loop to loop.
            raise err.OperationalError(CR.CR_SERVER_GONE_ERROR, "MySQL server has gone away")
        return super()._write_bytes(data)

    def escape(self, obj: Any) -> Any:
        """The value as it stands in a statement."""
        # aiomysql 0.3 calls something for bytes that PyMySQL 1.2 no longer has.
        return escape_item(obj, self.charset) if isinstance(obj, bytes) else super().escape(obj)


def creator(url: URL) -> Callable[[], Awaitable[Any]]:
    """What opens a connection that commits each statement by itself."""
    arguments, options = url.get_dialect()().create_connect_args(url)

    async def open_one() -> Connection:
        connection = Connection(*arguments, **{**options, "autocommit": True})
        await connection._connect()  # noqa: SLF001 - as aiomysql.connect does
        return connection

    async def connect() -> Any:
        # The driver bounds the TCP connection at most, and not the greeting.
        return await opened(CONNECT_S, open_one(), Connection.close)

    return connect
