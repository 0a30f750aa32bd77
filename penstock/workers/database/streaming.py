"""`ctx.stream`: a large result over a connection beside the worker's own, a chunk of rows in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final, Self

from sqlalchemy import Connection, CursorResult, Executable, Row, text

from penstock.errors import ConnectionMisused, DeadlineExceeded
from penstock.workers.database.kind import DatabaseKind
from penstock.workers.deadline import SoftDeadline, held_back

#: Rows that are fetched, and held, at once.
_CHUNK_ROWS: Final = 1000


class RowStream:
    """The rows of one statement, in order; its connection is closed after the last row, by `close`, or with the message."""

    def __init__(
        self,
        kind: DatabaseKind,
        statement: str | Executable,
        parameters: Any,
        forget: Callable[[RowStream], None],
    ) -> None:
        """Opens the connection and sends the statement. Raises what SQLAlchemy raises."""
        self._kind = kind
        self._forget = forget
        self._deadlines = SoftDeadline.times_raised
        self._result: CursorResult[Any] | None = None
        self._connection: Connection | None = None
        try:
            # Half open it could not be closed, and SQLAlchemy would know the server by half.
            with held_back():
                self._connection = kind.stream_engine.connect()
                kind.begin_stream(self._connection)
            self._result = self._connection.execution_options(yield_per=_CHUNK_ROWS).execute(
                text(statement) if isinstance(statement, str) else statement, parameters or {}
            )
            self._rows = iter(self._result)
        except BaseException as error:
            self._discard()
            self._tell_deadline(error)
            raise

    def __iter__(self) -> Iterator[Row[Any]]:
        return self

    def __next__(self) -> Row[Any]:
        if self._connection is None:
            raise StopIteration
        try:
            return next(self._rows)
        except StopIteration:
            self._tell_deadline(None)
            # A server's connection is dear.
            self.close()
            raise
        except BaseException as error:
            self._discard()
            self._tell_deadline(error)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if exc_info[0] is None:
            self.close()
        else:
            self._discard()

    def close(self) -> None:
        """Give the rest up; once is enough, twice is harmless."""
        connection = self._connection
        if connection is None:
            return
        try:
            with held_back():
                self._end(connection)
        except BaseException:
            self._discard()
            raise

    def _end(self, connection: Connection) -> None:
        raw = connection.connection.dbapi_connection if not connection.invalidated else None
        if raw is not None and self._kind.cut_results(raw):
            # What is left of the result would have to be read to its end, only to be thrown away.
            connection.invalidate()
        elif self._result is not None:
            self._result.close()
        connection.close()
        self._connection = None
        self._forget(self)

    def _tell_deadline(self, error: BaseException | None) -> None:
        # SQLAlchemy closes a cursor behind its last row, and keeps to itself what comes up there.
        if SoftDeadline.times_raised == self._deadlines or isinstance(error, DeadlineExceeded):
            return
        self._deadlines = SoftDeadline.times_raised
        self._discard()
        msg = "the handler ran longer than its timeout, which came up while ctx.stream was closed"
        raise DeadlineExceeded(msg)

    def _discard(self) -> None:
        # Something was cut off, by a deadline for example: it may be amid a statement, where nothing is ended in order.
        # And whatever is found here is not why.
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._forget(self)
        raw = (
            connection.connection.dbapi_connection
            if not (connection.invalidated or connection.closed)
            else None
        )
        steps: list[Callable[[], object]] = [connection.invalidate, connection.close]
        if raw is not None:
            # The server would go on with it; and a close that was cut off may have left the driver's connection open.
            rest = (lambda: self._kind.cut_results(raw), lambda: self._kind.close_results(raw))
            steps = [*rest, *steps, raw.close]
        if self._result is not None:
            # Behind it, where a cursor asks nobody any more.
            steps.append(self._result.close)
        with held_back():
            for step in steps:
                with suppress(Exception):
                    step()


class Streams:
    """The streams that a message has open."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: list[RowStream] = []

    def open(
        self, kind: DatabaseKind, handler: str, statement: str | Executable, parameters: Any
    ) -> RowStream:
        """One more. Raises `ConnectionMisused` when there are as many as the settings allow."""
        if len(self._open) >= self._most:
            msg = (
                f"handler {handler} has {len(self._open)} ctx.stream open, and database.stream_connections is {self._most}: "
                "read the one to its end, or close it, before the next; or set it higher, which the server's "
                "max_connections has to allow for every worker. The message fails"
            )
            raise ConnectionMisused(msg)
        stream = RowStream(kind, statement, parameters, self._forget)
        self._open.append(stream)
        return stream

    @property
    def are_open(self) -> bool:
        """True while there is one."""
        return bool(self._open)

    def close(self) -> None:
        """End them all."""
        for stream in list(self._open):
            stream.close()

    def _forget(self, stream: RowStream) -> None:
        if stream in self._open:
            self._open.remove(stream)
