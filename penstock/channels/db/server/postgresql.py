"""PostgreSQL by psycopg: results come in chunks of rows as the server sends them, without a cursor on the server."""

from __future__ import annotations

import select
from collections.abc import Generator
from inspect import signature
from typing import Any, Final

import psycopg
from psycopg import errors, generators
from psycopg.abc import PQGen
from psycopg.conninfo import make_conninfo
from psycopg.pq import ExecStatus, TransactionStatus
from sqlalchemy import URL

from penstock.channels.db.exact import crossing
from penstock.channels.db.server.address import unusable_option
from penstock.channels.db.server.driver import CONNECT_S, Mode, Result, Written, check_isolation
from penstock.channels.db.server.patience import opened
from penstock.errors import DatabaseError

#: How long the server is asked to end a statement.
_CANCEL_TIMEOUT_S: Final = 5.0
#: Rows that the library hands over together; it holds so many, whatever their length.
_CHUNK_ROWS: Final = 64
_FIELDS: Final = (
    "severity",
    "severity_nonlocalized",
    "sqlstate",
    "message_primary",
    "message_detail",
    "message_hint",
    "statement_position",
    "internal_position",
    "internal_query",
    "context",
    "schema_name",
    "table_name",
    "column_name",
    "datatype_name",
    "constraint_name",
    "source_file",
    "source_line",
    "source_function",
)
#: Types whose values cross as they are: bool, bytea, char, name, integers, text, oid, floats, unknown, bpchar, varchar.
_PLAIN: Final = frozenset({16, 17, 18, 19, 20, 21, 23, 25, 26, 700, 701, 705, 1042, 1043})
_ROWS: Final = (ExecStatus.SINGLE_TUPLE, ExecStatus.TUPLES_CHUNK, ExecStatus.TUPLES_OK)
_COPYING: Final = (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH)


class Connection(psycopg.AsyncConnection[Any]):
    """The driver's, which may have a BEGIN to send with its next statement."""

    begin_words: bytes | None = None


class PostgreSQLDriver:
    """Implements `Driver`."""

    backend = "postgresql"

    def engine_options(self, url: URL) -> dict[str, Any]:
        """Connections of our own class, whose transactions begin where we begin them. Raises `ConfigurationError`."""
        arguments, options = url.get_dialect()().create_connect_args(url)
        ours = signature(Connection.connect).parameters
        try:
            make_conninfo(*arguments, **{name: value for name, value in options.items() if name not in ours})
        except psycopg.ProgrammingError as error:
            raise unusable_option("psycopg", error) from None

        async def connect() -> Connection:
            opening = Connection.connect(*arguments, **{**options, "autocommit": True})
            return await opened(CONNECT_S, opening, lambda connection: connection.pgconn.finish())

        return {"async_creator": connect}

    def number_of(self, raw: Any) -> int:
        """The process that serves it."""
        return int(raw.info.backend_pid)

    def is_closed(self, raw: Any) -> bool:
        """As the driver says."""
        return bool(raw.closed)

    def has_heard(self, raw: Any) -> bool:
        """Bytes, or the end of the stream."""
        poll = select.poll()
        poll.register(raw.pgconn.socket, select.POLLIN)
        return bool(poll.poll(0))

    def in_transaction(self, raw: Any) -> bool:
        """In every answer."""
        return bool(raw.pgconn.transaction_status != TransactionStatus.IDLE)

    def is_undone(self, raw: Any) -> bool:
        """After any error outside of a savepoint."""
        return bool(raw.pgconn.transaction_status == TransactionStatus.INERROR)

    async def ping(self, raw: Any) -> None:
        """One question."""
        await self._tell(raw, b";")

    async def prepare(self, raw: Any, mode: Mode | None, *, is_begun: bool) -> None:
        """BEGIN, when none is open: also after a COMMIT that somebody wrote as a statement. It goes with the statement."""
        del is_begun
        raw.begin_words = None
        if mode is None or self.in_transaction(raw):
            return
        words = "BEGIN"
        if mode.isolation is not None:
            words += f" ISOLATION LEVEL {check_isolation(mode.isolation)}"
        if mode.is_read_only:
            words += " READ ONLY"
        if mode.is_deferrable:
            words += " DEFERRABLE"
        raw.begin_words = words.encode()

    async def commit(self, raw: Any) -> None:
        """COMMIT."""
        await self._tell(raw, b"COMMIT")

    async def roll_back(self, raw: Any) -> None:
        """ROLLBACK."""
        await self._tell(raw, b"ROLLBACK")

    async def run(self, raw: Any, statement: str, parameters: Any) -> Result:
        """As the driver's `stream`, for statements of every kind."""
        result = PostgreSQLResult(raw)
        await result.begin(statement, parameters)
        return result

    async def run_many(self, raw: Any, statement: str, parameters: list[Any], *, is_whole: bool) -> Result:
        """As the driver's: all in one pipeline. The server undoes everything with the one that fails."""
        del is_whole
        if raw.begin_words is not None:
            await self._tell(raw, raw.begin_words)
        cursor = raw.cursor()
        await cursor.executemany(statement, parameters)
        return Written(cursor.rowcount, None, cursor.statusmessage)

    async def cut(self, raw: Any) -> bool:
        """Cancelled; what was on its way is read."""
        await raw.cancel_safe(timeout=_CANCEL_TIMEOUT_S)
        await raw.wait(_passed(raw.pgconn))
        return bool(raw.pgconn.transaction_status == TransactionStatus.IDLE)

    async def kill(self, raw: Any) -> None:
        """Only the statement: the connection is thrown away by whoever holds it."""
        await raw.cancel_safe(timeout=_CANCEL_TIMEOUT_S)

    async def was_undone(self, raw: Any, error: BaseException) -> bool:
        """Never: until it is rolled back the transaction is there, though it takes nothing any more."""
        del raw, error
        return False

    def is_error(self, error: BaseException) -> bool:
        """Its own, and what its socket raises."""
        return isinstance(error, psycopg.Error | OSError)

    def is_gone(self, raw: Any, error: BaseException) -> bool:
        """The driver closes what is broken."""
        del error
        return bool(raw.closed)

    def arguments_of(self, error: BaseException) -> list[Any]:
        """A text."""
        return [crossing(argument, "the error") for argument in error.args]

    def diagnostics_of(self, error: BaseException) -> tuple[str | None, dict[str, str | None]]:
        """All fields that the server filled."""
        if not isinstance(error, psycopg.Error):
            return None, {}
        found = {name: getattr(error.diag, name) for name in _FIELDS}
        return error.sqlstate, {name: value for name, value in found.items() if value is not None}

    async def _tell(self, raw: Any, words: bytes) -> None:
        await raw.wait(_told(raw.pgconn, words))


class PostgreSQLResult:
    """Implements `Result` on the driver's cursor, whose query it sends and whose values it reads."""

    last_row_id: int | None = None

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._cursor: Any = raw.cursor()
        self._reader: Any = None
        self._rows: list[Any] = []
        self._is_first_over = False
        # A BEGIN went with it.
        self._has_company = False
        self.columns: list[str] | None = None
        self.exotic: list[int] = []
        self.row_count = -1
        self.status: str | None = None
        self.is_read = False

    def types(self) -> list[list[Any]]:
        """As the driver describes them."""
        return [list(column[1:]) for column in self._cursor.description or ()]

    async def begin(self, statement: str, parameters: Any) -> None:
        """Send it, and take what comes first."""
        await self._raw.wait(self._begun(statement, parameters))

    async def rows(self) -> list[Any]:
        """One chunk."""
        if not self._rows and not self.is_read:
            await self._raw.wait(self._taken())
        found, self._rows = self._rows, []
        return found

    def _begun(self, statement: str, parameters: Any) -> PQGen[None]:
        cursor, raw, wire = self._cursor, self._raw, self._raw.pgconn
        yield from cursor._start_query(statement)  # noqa: SLF001 - as the driver's `stream`
        query = cursor._convert_query(statement, parameters)  # noqa: SLF001
        begin, raw.begin_words = raw.begin_words, None
        if begin is not None and not parameters and ";" in statement:
            # It may be several statements, which go without parameters and without company.
            yield from _told(wire, begin)
            begin = None
        if begin is None:
            cursor._execute_send(query)  # noqa: SLF001
            yield from generators.send(wire)
        else:
            self._has_company = True
            wire.enter_pipeline_mode()
            wire.send_query_params(begin, None)
            try:
                wire.send_query_params(
                    query.query, query.params, param_types=query.types, param_formats=query.formats
                )
            except Exception:
                yield from self._send_begin_alone()
                raise
            wire.pipeline_sync()
            yield from generators.send(wire)
            yield from self._pass_begin()
        if psycopg.capabilities.has_stream_chunked():
            wire.set_chunked_rows_mode(_CHUNK_ROWS)
        else:
            wire.set_single_row_mode()
        yield from self._taken()

    def _send_begin_alone(self) -> PQGen[None]:
        # The library takes no statement with so many parameters: as elsewhere, the transaction is open after it.
        self._raw.pgconn.pipeline_sync()
        yield from generators.send(self._raw.pgconn)
        yield from _passed(self._raw.pgconn)
        yield from self._end()

    def _pass_begin(self) -> PQGen[None]:
        result = yield from generators.fetch(self._raw.pgconn)
        yield from _passed(self._raw.pgconn)
        if result is not None and result.status == ExecStatus.FATAL_ERROR:
            # The statement was not run.
            yield from _passed(self._raw.pgconn)
            yield from self._end()
            raise errors.error_from_result(result)

    def _end(self) -> PQGen[None]:
        self.is_read = True
        if self._has_company:
            yield from generators.fetch(self._raw.pgconn)
            self._raw.pgconn.exit_pipeline_mode()

    def _taken(self) -> PQGen[None]:
        # Until rows are there of which more may follow: of a short result the end comes with it, in one wait.
        while len(self._rows) < _CHUNK_ROWS and not self.is_read:
            result = yield from generators.fetch(self._raw.pgconn)
            if result is None:
                yield from self._end()
            else:
                yield from self._take(result)

    def _take(self, result: Any) -> PQGen[None]:
        status = result.status
        if status == ExecStatus.FATAL_ERROR:
            yield from _passed(self._raw.pgconn)
            yield from self._end()
            raise errors.error_from_result(result)
        if status in _COPYING:
            # Nothing gets it out of this.
            self.is_read = True
            self._raw.pgconn.finish()
            msg = "COPY from and to the client does not cross the database channel"
            raise DatabaseError(msg, "NotSupportedError")
        if self._is_first_over:
            # Of several statements in one text: the first one's result counts, as in the driver.
            return
        if status in _ROWS:
            if self.columns is None:
                self._describe(result)
            try:
                self._load(result)
            except Exception:
                # A value that Python has no room for; the rest would stand in the way of the next statement.
                yield from _passed(self._raw.pgconn)
                yield from self._end()
                raise
        if result.command_status:
            # The library hangs it on the last chunk, or on the empty result behind a full one.
            count = result.command_tuples
            self.row_count = -1 if count is None else count
            self.status = result.command_status.decode()
        self._is_first_over = status not in (ExecStatus.SINGLE_TUPLE, ExecStatus.TUPLES_CHUNK)

    def _load(self, result: Any) -> None:
        if result.ntuples:
            self._reader.set_pgresult(result, set_loaders=False)
            self._rows += self._reader.load_rows(0, result.ntuples, tuple)

    def _describe(self, result: Any) -> None:
        self._cursor.pgresult = result
        self._reader = self._cursor._tx  # noqa: SLF001
        self._reader.set_pgresult(result, set_loaders=True)
        self.columns = [column.name for column in self._cursor.description]
        self.exotic = [position for position in range(result.nfields) if result.ftype(position) not in _PLAIN]


def _told(wire: Any, words: bytes) -> PQGen[None]:
    wire.send_query(words)
    for result in (yield from generators.execute(wire)):
        if result.status == ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result)


def _passed(wire: Any) -> Generator[Any, Any, None]:
    while True:
        result = yield from generators.fetch(wire)
        if result is None or result.status in _COPYING:
            return
