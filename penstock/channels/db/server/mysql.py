"""MySQL and MariaDB by aiomysql: a transaction is a connection that does not commit by itself, results are read as they come."""

from __future__ import annotations

import select
from contextlib import suppress
from typing import Any, Final

from aiomysql import Cursor  # type: ignore[import-untyped]
from pymysql import err
from pymysql.constants import ER, FIELD_TYPE, SERVER_STATUS
from pymysql.cursors import RE_INSERT_VALUES
from pymysql.protocol import EOFPacketWrapper, MysqlPacket, OKPacketWrapper
from sqlalchemy import URL

from penstock.channels.db.exact import crossing
from penstock.channels.db.server import packets
from penstock.channels.db.server.codes import DEADLOCK, LOST, LOST_CODES
from penstock.channels.db.server.driver import Mode, Result, Written, check_isolation
from penstock.channels.db.server.mysql_connection import creator

#: Rows in one go, and bytes: some tenths of a millisecond.
_MOST_ROWS: Final = 64
_READ_BYTES: Final = 32 * 1024
#: Statements that executemany builds; each takes some milliseconds to build.
_STATEMENT_BYTES: Final = 64 * 1024
_OK, _EOF, _ERROR = 0x00, 0xFE, 0xFF
_LONGEST_EOF: Final = 9
#: Columns of these types hold what crosses as it is; the others Decimal, dates and times.
_PLAIN: Final = frozenset(
    {
        FIELD_TYPE.TINY,
        FIELD_TYPE.SHORT,
        FIELD_TYPE.LONG,
        FIELD_TYPE.LONGLONG,
        FIELD_TYPE.INT24,
        FIELD_TYPE.YEAR,
        FIELD_TYPE.FLOAT,
        FIELD_TYPE.DOUBLE,
        FIELD_TYPE.NULL,
        FIELD_TYPE.VARCHAR,
        FIELD_TYPE.VAR_STRING,
        FIELD_TYPE.STRING,
        FIELD_TYPE.TINY_BLOB,
        FIELD_TYPE.BLOB,
        FIELD_TYPE.MEDIUM_BLOB,
        FIELD_TYPE.LONG_BLOB,
        FIELD_TYPE.JSON,
        FIELD_TYPE.ENUM,
        FIELD_TYPE.SET,
        FIELD_TYPE.BIT,
        FIELD_TYPE.GEOMETRY,
    }
)


class MySQLDriver:
    """Implements `Driver`."""

    backend = "mysql"

    def __init__(self, url: URL) -> None:
        self._connect = creator(url)

    def engine_options(self, url: URL) -> dict[str, Any]:
        """Connections of our own class."""
        del url
        return {"async_creator": self._connect}

    def number_of(self, raw: Any) -> int:
        """The id in its process list."""
        return int(raw.thread_id())

    def is_closed(self, raw: Any) -> bool:
        """As the driver says."""
        return bool(raw.closed)

    def has_heard(self, raw: Any) -> bool:
        """Bytes that nobody asked for, or the end of the stream: those read already, and those on the socket."""
        reader = raw._reader  # noqa: SLF001 - the driver has no word for it
        if raw.has_hung_up() or reader.eof_received or reader._buffer:  # noqa: SLF001
            return True
        poll = select.poll()
        poll.register(raw._writer.get_extra_info("socket").fileno(), select.POLLIN)  # noqa: SLF001
        return bool(poll.poll(0))

    def in_transaction(self, raw: Any) -> bool:
        """A statement that failed may hold locks, so the server's flag is not asked."""
        return bool(raw.is_dirty)

    def is_undone(self, raw: Any) -> bool:
        """Never: a statement that failed is rolled back alone."""
        del raw
        return False

    async def ping(self, raw: Any) -> None:
        """One question."""
        await raw.ping(reconnect=False)

    async def prepare(self, raw: Any, mode: Mode | None, *, is_begun: bool) -> None:
        """Sends only what differs from how the connection is: transactions one after the other cost no BEGIN."""
        if is_begun:
            return
        if (mode is None) != raw.get_autocommit():
            await raw.autocommit(mode is None)
        if mode is None:
            return
        if mode.isolation is not None:
            await raw.query(f"SET TRANSACTION ISOLATION LEVEL {check_isolation(mode.isolation)}")
        if mode.is_read_only:
            await raw.query("START TRANSACTION READ ONLY")

    async def commit(self, raw: Any) -> None:
        """As the driver's."""
        await raw.commit()

    async def roll_back(self, raw: Any) -> None:
        """As the driver's."""
        await raw.rollback()

    async def run(self, raw: Any, statement: str, parameters: Any) -> Result:
        """As the driver's unbuffered cursor."""
        await raw.query(
            statement if parameters is None else _filled(raw, statement, parameters), unbuffered=True
        )
        return MySQLResult(raw, raw._result)  # noqa: SLF001 - as the driver's cursors

    async def run_many(self, raw: Any, statement: str, parameters: list[Any], *, is_whole: bool) -> Result:
        """As the driver's, with shorter statements: building them must not hold up the loop."""
        if is_whole:
            await raw.query("SAVEPOINT penstock_many")
        # Buffered: the other one counts the rows that a statement gives as 2**64 - 1, and leaves them on the wire.
        cursor = _ManyCursor(raw)
        cursor.max_stmt_length = _STATEMENT_BYTES
        try:
            await cursor.executemany(statement, parameters)
        except Exception:
            if is_whole:
                # It is gone with the transaction, or with the connection.
                with suppress(err.MySQLError, OSError):
                    await raw.query("ROLLBACK TO SAVEPOINT penstock_many")
            raise
        finally:
            await cursor.close()
        if is_whole:
            await raw.query("RELEASE SAVEPOINT penstock_many")
        return Written(max(cursor.rowcount, 0), cursor.lastrowid)

    async def cut(self, raw: Any) -> bool:
        """Never: the server sends all of a result."""
        del raw
        return False

    async def kill(self, raw: Any) -> None:
        """The whole connection: KILL QUERY lets some statements end well."""
        other = await self._connect()
        try:
            await other.query(f"KILL {self.number_of(raw)}")
        except err.MySQLError as error:
            # It has ended by itself.
            if error.args[:1] != (ER.NO_SUCH_THREAD,):
                raise
        finally:
            other.close()

    async def was_undone(self, raw: Any, error: BaseException) -> bool:
        """A deadlock takes the transaction with it, or the end of its connection; after other errors the server is asked."""
        if raw.closed or error.args[:1] == (DEADLOCK,):
            return True
        if not raw.get_transaction_status() or raw.has_committed_before:
            return False
        await raw.ping(reconnect=False)
        return not raw.get_transaction_status()

    def is_error(self, error: BaseException) -> bool:
        """Its own, and what its socket raises."""
        return isinstance(error, err.MySQLError | OSError)

    def is_gone(self, raw: Any, error: BaseException) -> bool:
        """By its code, or because the socket is closed; not when the statement was too long, which is its own fault."""
        if error.args[:1] == (ER.NET_PACKET_TOO_LARGE,):
            return False
        return raw.closed or isinstance(error, OSError) or (bool(error.args) and error.args[0] in LOST_CODES)

    def arguments_of(self, error: BaseException) -> list[Any]:
        """A code and a text, mostly."""
        return [crossing(argument, "the error") for argument in error.args]

    def diagnostics_of(self, error: BaseException) -> tuple[str | None, dict[str, str | None]]:
        """SQLSTATE; the driver keeps nothing else."""
        return getattr(error, "sqlstate", None), {}


class _ManyCursor(Cursor):  # type: ignore[misc]
    """Joins the rows of an INSERT into one statement where PyMySQL does; aiomysql has an older notion of where."""

    _rowcount: int

    async def executemany(self, query: str, args: list[Any]) -> int:
        """As the driver's."""
        found = RE_INSERT_VALUES.match(query)
        if found is None:
            count = 0
            for row in args:
                await self.execute(query, row)
                count += self._rowcount
            self._rowcount = count
            return count
        joined: int = await self._do_execute_many(
            found[1] % (),
            found[2].rstrip(),
            (found[3] or "") % (),
            args,
            self.max_stmt_length,
            self._get_db().encoding,
        )
        return joined


def _filled(raw: Any, statement: str, parameters: Any) -> str:
    if isinstance(parameters, dict):
        return statement % {name: raw.escape(value) for name, value in parameters.items()}
    return statement % tuple(raw.escape(value) for value in parameters)


class MySQLResult:
    """Implements `Result` on the packets of a query."""

    status: str | None = None

    def __init__(self, raw: Any, result: Any) -> None:
        self._raw = raw
        self._result = result
        self._rest = b""
        self._bodies: list[bytes] = []
        self._seen = 0
        self.is_read = not result.unbuffered_active
        self.last_row_id: int | None = result.insert_id
        self.columns: list[str] | None = None
        self.exotic: list[int] = []
        self.row_count = -1
        if self.is_read:
            self.row_count = result.affected_rows
        else:
            self.columns = [field.name for field in result.fields]
            self.exotic = [
                position for position, field in enumerate(result.fields) if field.type_code not in _PLAIN
            ]

    def types(self) -> list[list[Any]]:
        """As the driver describes them."""
        return [list(column[1:]) for column in self._result.description or ()]

    async def rows(self) -> list[Any]:
        """What one read of the socket brought."""
        while not self.is_read:
            if not self._bodies:
                await self._read()
            taken, self._bodies = self._bodies[:_MOST_ROWS], self._bodies[_MOST_ROWS:]
            # A body that ends it has nothing behind it, but further results.
            end = next((position for position, body in enumerate(taken) if _is_end(body)), len(taken))
            found = [packets.row(body, self._result.converters) for body in taken[:end]]
            self._seen += len(found)
            if end < len(taken):
                self._bodies[:0] = taken[end + 1 :]
                self.row_count = self._seen
                await self._end(taken[end])
            if found:
                return found
        return []

    async def _read(self) -> None:
        data = await self._raw._reader.read(_READ_BYTES)  # noqa: SLF001 - the driver reads packet by packet
        if not data:
            self._raw.close()
            raise err.OperationalError(LOST, "Lost connection to MySQL server during query")
        data = self._rest + data if self._rest else data
        self._bodies, taken = packets.split(data)
        self._rest = data[taken:]

    async def _end(self, body: bytes) -> None:
        self.is_read = True
        self._result.unbuffered_active = False
        self._result.connection = None
        self._note(body)
        while self._raw.server_status & SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS:
            await self._pass_result()

    async def _pass_result(self) -> None:
        # Of CALL: what comes behind its first result is read and thrown away, because the wire is one.
        body = await self._next()
        if body[0] in (_OK, _ERROR):
            return self._note(body)
        for _ in ("columns", "rows"):
            while not _is_end(body := await self._next()):
                pass
            self._note(body)
        return None

    async def _next(self) -> bytes:
        while not self._bodies:
            await self._read()
        return self._bodies.pop(0)

    def _note(self, body: bytes) -> None:
        packet = MysqlPacket(body, self._raw.encoding)
        if packet.is_error_packet():
            self._raw.server_status &= ~SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS
            packet.raise_for_error()
        is_ok = packet.is_ok_packet()
        self._raw.server_status = (OKPacketWrapper if is_ok else EOFPacketWrapper)(packet).server_status


def _is_end(body: bytes) -> bool:
    # A row may begin with a length of 8 bytes, written as the same first one.
    return body[0] == _ERROR or (body[0] == _EOF and len(body) < _LONGEST_EOF)
