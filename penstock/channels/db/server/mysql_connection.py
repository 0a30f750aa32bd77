"""The asynchronous connection to MySQL and MariaDB: as aiomysql's, with PyMySQL's ways where aiomysql left them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from inspect import signature
from typing import Any, Final

import aiomysql  # type: ignore[import-untyped]
from pymysql import err
from pymysql.constants import CLIENT, CR, ER
from pymysql.converters import escape_item
from sqlalchemy import URL

from penstock.channels.db.server.address import unusable_option
from penstock.channels.db.server.driver import CONNECT_S
from penstock.channels.db.server.lengths import QUESTION, check_length
from penstock.channels.db.server.patience import opened

_IN_FRONT: Final = r"(?:\s|\(|--\s[^\n]*+|\#[^\n]*+|/\*[^!].*?\*/)*+"
#: Statements that commit what was before them, also when they fail themselves.
_COMMITTING: Final = re.compile(
    _IN_FRONT
    + r"(?:ALTER|ANALYZE|BEGIN|CHECK|CREATE|DROP|FLUSH|GRANT|LOCK|OPTIMIZE|RENAME|REPAIR|REVOKE|START|TRUNCATE)\b",
    re.IGNORECASE | re.DOTALL,
)
_START_CHARACTERS: Final = 1024


class Connection(aiomysql.Connection):  # type: ignore[misc]
    """Takes bytes as parameters and one statement at a time, and knows whether there is something to roll back."""

    is_dirty = False
    """True once it was asked something since the last commit or rollback, unless each statement commits."""

    has_committed_before = False
    """True when its last statement was one that commits what was before it, should it fail, too."""
    most_bytes: int | None = None
    """What the server takes in one packet, command and statement."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # As PyMySQL: what is smuggled in behind a semicolon is an error.
        self.client_flag &= ~CLIENT.MULTI_STATEMENTS

    async def query(self, sql: Any, unbuffered: bool = False) -> Any:  # noqa: FBT001, FBT002 - the driver's signature
        """As the driver's. Raises `DataError` for a statement that the server would answer by ending the connection."""
        text = sql.encode(self.encoding, "surrogateescape") if isinstance(sql, str) else sql
        check_length(text, self.most_bytes, err.DataError)
        self.is_dirty = self.is_dirty or not self.get_autocommit()
        self.has_committed_before = _COMMITTING.match(_start_of(sql)) is not None
        try:
            return await super().query(text, unbuffered)
        except err.OperationalError as error:
            if error.args[:1] == (ER.NET_PACKET_TOO_LARGE,):
                # The server ends it behind this answer.
                self.close()
            raise

    async def ask_most_bytes(self) -> None:
        """Ask the server how long a statement may be."""
        await self.query(QUESTION)
        self.most_bytes = int(self._result.rows[0][0])

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
        if isinstance(obj, list):
            return f"({','.join(map(self.escape, obj))})"
        # aiomysql 0.3 calls something for bytes that PyMySQL 1.2 no longer has.
        return escape_item(obj, self.charset) if isinstance(obj, bytes) else super().escape(obj)


def _start_of(sql: Any) -> str:
    start = sql[:_START_CHARACTERS]
    return start if isinstance(start, str) else bytes(start).decode("utf-8", "replace")


def creator(url: URL) -> Callable[[], Awaitable[Any]]:
    """What opens a connection that commits each statement by itself. Raises `ConfigurationError` for an unknown option."""
    arguments, options = url.get_dialect()().create_connect_args(url)
    try:
        signature(aiomysql.Connection).bind(*arguments, **options)
    except TypeError as error:
        raise unusable_option("aiomysql", error) from None

    async def open_one() -> Connection:
        connection = Connection(*arguments, **{**options, "autocommit": True})
        await connection._connect()  # noqa: SLF001 - as aiomysql.connect does
        try:
            await connection.ask_most_bytes()
        except BaseException:
            connection.close()
            raise
        return connection

    async def connect() -> Any:
        # The driver bounds the TCP connection at most, and not the greeting.
        return await opened(CONNECT_S, open_one(), Connection.close)

    return connect
