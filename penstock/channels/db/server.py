"""The database channel on MySQL, MariaDB and PostgreSQL: SQLAlchemy's asynchronous engine on the loop.

```
call ─▶ a connection of the pool ─▶ statement ─▶ COMMIT ─▶ back to the pool ─▶ answer
begin ─▶ a connection of the pool … steps … ─▶ commit, rollback, idle too long, holder gone ─▶ back to the pool
```
What bounds it: `database.server_connections` for all workers together. Nobody holds one but between begin and end.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import Raw
from sqlalchemy import URL, CursorResult, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from penstock.channels.db.calls import Query, Want
from penstock.channels.db.exact import arrived, crossing
from penstock.channels.db.rows import Rows, too_large
from penstock.channels.db.statements import shown
from penstock.channels.db.work import Work, Works
from penstock.channels.service import Caller
from penstock.config.database import DatabaseSection
from penstock.errors import ChannelClosed, ChannelError, ConfigurationError, DatabaseBusy, DatabaseError

_DRIVERS: Final = {
    "mysql": ("mysql+aiomysql", "mysql"),
    "mariadb": ("mariadb+aiomysql", "mysql"),
    "postgresql": ("postgresql+psycopg", "postgres"),
}
_CHUNK_ROWS: Final = 500
_AROUND_BYTES: Final = 64
#: The verbs whose result is read as it comes; a cursor on the server takes no others.
_STREAMED: Final = ("SELECT", "WITH", "VALUES", "TABLE")
#: How each is told that a statement is to end. MySQL's KILL QUERY lets some statements end well; KILL ends the connection.
_KILL: Final = {"mysql": "KILL {}", "mariadb": "KILL {}", "postgresql": "SELECT pg_cancel_backend({})"}

_decode_query: Final = msgspec.msgpack.Decoder(Query, ext_hook=arrived).decode
_decode_number: Final = msgspec.msgpack.Decoder(int).decode
_encode: Final = msgspec.msgpack.Encoder().encode


class _Transaction:
    """One caller's connection, from begin to end."""

    def __init__(self, number: int, caller: Caller, connection: AsyncConnection) -> None:
        self.number = number
        self.caller = caller
        self.connection = connection
        self.idle: asyncio.TimerHandle | None = None
        self.is_running = False


class ServerDatabase:
    """What the service named "db" does when `database.url` is a server's."""

    def __init__(self, section: DatabaseSection, *, limit_bytes: int) -> None:
        assert section.url is not None
        self._section = section
        self._limit_bytes = limit_bytes
        self._url = _asynchronous(section.url.get_secret_value())
        self._is_mysql = self._url.get_backend_name() != "postgresql"
        self._engine = self._create_engine(
            pool_size=section.server_connections,
            max_overflow=0,
            pool_timeout=section.wait_s,
            pool_pre_ping=True,
        )
        self._works = Works(self._kill)
        self._numbers = itertools.count(1)
        self._transactions: dict[int, _Transaction] = {}
        # Why those that ended by themselves did, until their holder has heard of it.
        self._over: dict[int, tuple[Caller, str]] = {}
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<ServerDatabase [{self._engine.pool.status()}, {len(self._transactions)} transactions]>"

    async def call(self, method: str, arguments: Raw, caller: Caller) -> Any:
        """Answer `execute`, `fetch_all`, `fetch_one`, `begin`, `commit`, `rollback` and `reset`."""
        if method == "reset":
            return self.forget(caller)
        if self._is_closed:
            msg = "the service is stopping and the database channel with it; nothing of the statement was run"
            raise ChannelClosed(msg)
        match method:
            case "execute" | "fetch_all" | "fetch_one":
                query = _decode_query(arguments)
                if query.transaction is None:
                    return await self._works.run(caller, partial(self._run, query, method))
                transaction = self._holders(query.transaction, caller)
                return await self._works.run(caller, partial(self._run_inside, query, method, transaction))
            case "begin":
                return await self._works.run(caller, self._begin)
            case "commit" | "rollback":
                return await self._end(_decode_number(arguments), method, caller)
        msg = f"the database channel knows no {method!r} on a database server; drivers over the channel are for SQLite"
        raise ChannelError(msg)

    def forget(self, caller: Caller) -> None:
        """End what the caller runs, on the server too, and roll back its transaction."""
        self._works.forget(caller)
        for transaction in list(self._transactions.values()):
            if transaction.caller is caller:
                self._abandon(transaction, None)
        for number in [number for number, (whose, _) in self._over.items() if whose is caller]:
            del self._over[number]

    async def aclose(self) -> None:
        """Roll back what is open, and close every connection; harmless when repeated."""
        self._is_closed = True
        for transaction in list(self._transactions.values()):
            self._abandon(transaction, None)
        await self._works.wait()
        await self._engine.dispose()

    async def _run(self, query: Query, want: Want, work: Work) -> int | Rows:
        connection = await self._connect()
        try:
            await work.hold(connection)
            with _translated(query.statement):
                result = await self._execute(connection, query, want)
                if not connection.invalidated:
                    await connection.commit()
                return result
        finally:
            await work.let_go(connection)
            await self._close(connection)

    async def _run_inside(
        self, query: Query, want: Want, transaction: _Transaction, work: Work
    ) -> int | Rows:
        connection = transaction.connection
        transaction.is_running = True
        try:
            await work.hold(connection)
            with _translated(query.statement):
                return await self._execute(connection, query, want)
        finally:
            transaction.is_running = False
            await work.let_go(connection)
            if transaction.number in self._transactions:
                self._watch(transaction)
            else:
                # It was abandoned meanwhile, and left to us.
                await self._close(connection)

    async def _begin(self, work: Work) -> int:
        connection = await self._connect()
        if work.is_ending:
            await self._close(connection)
            raise asyncio.CancelledError
        transaction = _Transaction(next(self._numbers), work.caller, connection)
        self._transactions[transaction.number] = transaction
        self._watch(transaction)
        return transaction.number

    async def _end(self, number: int, method: str, caller: Caller) -> None:
        if method == "rollback" and number not in self._transactions:
            self._over.pop(number, None)
            return
        transaction = self._holders(number, caller)
        del self._transactions[number]
        await self._works.run(caller, partial(self._finish, transaction.connection, method))

    async def _finish(self, connection: AsyncConnection, method: str, work: Work) -> None:
        work.is_let_through = True
        try:
            with _translated(method):
                await (connection.commit() if method == "commit" else connection.rollback())
        finally:
            await self._close(connection)

    async def _connect(self) -> AsyncConnection:
        try:
            return await self._engine.connect()
        except PoolTimeoutError as error:
            msg = (
                f"waited {self._section.wait_s:g} s (database.wait_s) for one of {self._section.server_connections} "
                "connections (database.server_connections), which statements and transactions hold; nothing was run"
            )
            raise DatabaseBusy(msg) from error
        except (DBAPIError, OSError) as error:
            raise DatabaseBusy(
                f"the database server cannot be reached: {_words_of(error)}; nothing was run"
            ) from error

    async def _close(self, connection: AsyncConnection) -> None:
        # Closing rolls back; a connection that cannot even do that is thrown away by the pool.
        with suppress(SQLAlchemyError, OSError):
            await connection.close()

    async def _execute(self, connection: AsyncConnection, query: Query, want: Want) -> int | Rows:
        statement, parameters = text(query.statement), query.parameters or {}
        if want != "execute" and query.statement.lstrip(" \t\r\n(").upper().startswith(_STREAMED):
            options = {"stream_results": True, "max_row_buffer": _CHUNK_ROWS}
            rows = await connection.stream(statement, parameters, execution_options=options)
            chunks = rows.partitions(_CHUNK_ROWS)
            try:
                return await self._packed(list(rows.keys()), chunks, want)
            finally:
                if self._is_mysql and await anext(chunks, None) is not None:
                    # What is left of a result stands in the way of the next statement.
                    if query.transaction is None:
                        await connection.invalidate()
                    else:
                        async for _ in chunks:
                            pass
                if not connection.invalidated:
                    await rows.close()
        result: CursorResult[Any] = await connection.execute(statement, parameters)
        if want == "execute":
            count = 0 if result.returns_rows else max(result.rowcount, 0)
            result.close()
            return count
        if not result.returns_rows:
            return Rows([], [])
        return await self._packed(list(result.keys()), _once(result.all()), want)

    async def _packed(self, columns: list[str], chunks: AsyncIterator[Any], want: Want) -> Rows:
        pieces: list[Raw] = []
        left = self._limit_bytes - _AROUND_BYTES - len(_encode(columns))
        async for chunk in chunks:
            rows = chunk[:1] if want == "fetch_one" else chunk
            if not rows:
                break
            piece = _encode([[crossing(v, n) for v, n in zip(row, columns, strict=True)] for row in rows])
            left -= len(piece)
            if left < 0:
                raise too_large(self._limit_bytes)
            pieces.append(Raw(piece))
            if want == "fetch_one":
                break
        return Rows(columns, pieces)

    async def _kill(self, number: int) -> None:
        engine = self._create_engine(poolclass=NullPool, isolation_level="AUTOCOMMIT")
        # It may have ended by itself.
        with suppress(SQLAlchemyError, OSError):
            async with engine.connect() as connection:
                await connection.execute(text(_KILL[self._url.get_backend_name()].format(number)))
        await engine.dispose()

    def _create_engine(self, **options: Any) -> AsyncEngine:
        if self._is_mysql:
            # Late: the driver is an extra.
            from penstock.channels.db.mysql_driver import creator

            options["async_creator"] = creator(self._url)
        return create_async_engine(self._url, **options)

    def _holders(self, number: int, caller: Caller) -> _Transaction:
        transaction = self._transactions.get(number)
        if transaction is not None and transaction.caller is caller:
            if transaction.idle is not None:
                transaction.idle.cancel()
            return transaction
        _, why = self._over.pop(number, (caller, "its block or its message has ended"))
        raise DatabaseError(
            f"the transaction is over: {why}; nothing of the statement was run", "OperationalError"
        )

    def _watch(self, transaction: _Transaction) -> None:
        if transaction.number in self._transactions:
            idle_s = self._section.transaction_idle_s
            why = (
                f"it was rolled back because it stood {idle_s:g} s without a statement (database.transaction_idle_s), "
                "and others wait for its connection; nothing of it was kept"
            )
            loop = asyncio.get_running_loop()
            transaction.idle = loop.call_later(idle_s, self._abandon, transaction, why)

    def _abandon(self, transaction: _Transaction, why: str | None) -> None:
        if self._transactions.pop(transaction.number, None) is None:
            return
        if transaction.idle is not None:
            transaction.idle.cancel()
        if why is not None:
            self._over[transaction.number] = (transaction.caller, why)
        if not transaction.is_running:
            self._works.in_background(self._close(transaction.connection))


def _asynchronous(written: str) -> URL:
    try:
        url = make_url(written)
    except (ArgumentError, ValueError):
        msg = "database.url is not a URL; write for example postgresql://user:password@host/name"
        raise ConfigurationError(msg) from None
    driver, extra = _DRIVERS.get(url.get_backend_name(), ("", ""))
    if not driver:
        msg = f"ctx.db speaks SQLite, MySQL, MariaDB and PostgreSQL; database.url is {url.render_as_string(hide_password=True)}"
        raise ConfigurationError(msg)
    found = url.set(drivername=driver)
    try:
        found.get_dialect().import_dbapi()
    except ImportError as error:
        msg = f"ctx.db needs {error.name} for this database.url: pip install 'penstock[{extra}]'"
        raise ConfigurationError(msg) from None
    return found


async def _once(rows: Any) -> AsyncIterator[Any]:
    yield rows


def _words_of(error: BaseException) -> str:
    orig = getattr(error, "orig", None) or error
    arguments = orig.args
    words = arguments[1] if len(arguments) == 2 and isinstance(arguments[0], int) else orig
    return " ".join(str(words).split())


class _translated:  # noqa: N801 - used as a function
    """What SQLAlchemy and the driver raise, as the error of the statement's caller; never with its parameters."""

    def __init__(self, statement: str) -> None:
        self._statement = statement

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, DBAPIError):
            if error.connection_invalidated:
                msg = f"the connection to the database server was lost: {_words_of(error)}; the transaction is gone"
                raise DatabaseBusy(msg) from error
            raise DatabaseError(
                f"{_words_of(error)}: {shown(self._statement)}", type(error.orig).__name__
            ) from error
        if isinstance(error, SQLAlchemyError):
            raise DatabaseError(
                f"{_words_of(error)}: {shown(self._statement)}", "ProgrammingError"
            ) from error
