"""`ctx.stream`: a large result over a connection beside the worker's own, a chunk of rows in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Self

from sqlalchemy import Connection, CursorResult, Executable, Row, text

from penstock.errors import ConnectionMisused
from penstock.workers.database.kind import DatabaseKind

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
        self._result: CursorResult[Any] | None = None
        self._connection: Connection | None = kind.stream_engine.connect()
        try:
            kind.begin_stream(self._connection)
            self._result = self._connection.execution_options(yield_per=_CHUNK_ROWS).execute(
                text(statement) if isinstance(statement, str) else statement, parameters or {}
            )
            self._rows = iter(self._result)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Row[Any]]:
        return self

    def __next__(self) -> Row[Any]:
        if self._connection is None:
            raise StopIteration
        try:
            return next(self._rows)
        except BaseException:
            # The end, too: a server's connection is dear.
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the rest up; once is enough, twice is harmless."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._forget(self)
        raw = connection.connection.dbapi_connection if not connection.invalidated else None
        if raw is not None and self._kind.cut_results(raw):
            # What is left of the result would have to be read to its end, only to be thrown away.
            connection.invalidate()
        elif self._result is not None:
            self._result.close()
        connection.close()


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
