"""A cursor on a database server over the channel: one result at a time, its rows in chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from penstock.channels.db.calls import Ran
from penstock.channels.db.exact import arrived
from penstock.channels.db.parting import batches
from penstock.channels.dbapi.rows import RowBuffer
from penstock.channels.dbapi.server.connection import ServerConnection

_decode: Final = msgspec.msgpack.Decoder(list[tuple[Any, ...]], ext_hook=arrived).decode


class ServerCursor(ABC):
    """What is the same for each driver."""

    is_streamed = False

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self.arraysize = 1
        self._is_closed = False
        self._rows: RowBuffer | None = None
        self._ran: Ran | None = None
        self._row_count = -1
        self._position = 0

    @abstractmethod
    def closed_error(self) -> Exception:
        """What the driver raises for a closed cursor."""

    def setinputsizes(self, *sizes: Any) -> None:
        """Nothing, as in the driver."""
        del sizes

    def setoutputsize(self, *size: Any) -> None:
        """Nothing, as in the driver."""
        del size

    def __iter__(self) -> Any:
        return self

    @contextmanager
    def using(self) -> Iterator[None]:
        """One thread at a time; raises what the driver raises when cursor or connection is closed."""
        if self._is_closed:
            raise self.closed_error()
        with self._connection.taken():
            yield

    def run(self, statement: str, parameters: Any) -> Ran:
        """Run one statement; what it gives is this cursor's."""
        self.discard()
        ran = self._connection.run(statement, parameters)
        self._ran = ran
        self._row_count = ran.chunk.row_count
        if ran.columns is not None:
            self._rows = RowBuffer(self._connection.session, ran, _decode)
            self._connection.opened(self._rows, is_streamed=self.is_streamed)
        return ran

    def run_many(self, statement: str, rows: Iterable[Any], bound: Callable[[Any], Any]) -> None:
        """Run one statement for each row; it crosses once, or once for each 50,000 rows and each frame.

        In autocommit all of them or none.
        """
        self.discard()
        count = 0
        limit_bytes = self._connection.session.link.limit_bytes
        crossings = batches(statement, rows, bound, limit_bytes=limit_bytes)
        with self._connection.whole(crossings) as taken:
            for batch in taken:
                ran = self._connection.run(statement, batch, is_many=True)
                count += max(ran.chunk.row_count, 0)
                self._ran = ran
        self._row_count = count

    def count(self) -> int:
        """Rows changed or found; -1 for a query whose last row has not come."""
        return self._row_count if self._rows is None else self._rows.count

    def taking(self, most: int) -> list[tuple[Any, ...]]:
        """At most so many of the rows that are left, all for -1."""
        taken = [] if self._rows is None else [*self._rows.taking(most)]
        self._position += len(taken)
        return taken

    def skip(self, value: int, mode: str) -> bool | None:
        """Scroll forwards; False beyond the end, None for backwards, where it stays as it is."""
        steps = value - self._position if mode == "absolute" else value
        if steps < 0:
            return None
        if self._rows is None or not self._rows.has(steps + 1):
            return False
        self.taking(steps)
        return True

    def discard(self) -> None:
        """What an earlier statement gave is not wanted any more."""
        rows, self._rows, self._ran = self._rows, None, None
        self._row_count = -1
        self._position = 0
        if rows is not None:
            rows.discard()

    def close(self) -> None:
        """Close it; harmless when repeated."""
        if not self._is_closed:
            with self._connection.lock:
                self._is_closed = True
                if not self._connection.is_closed:
                    self.discard()
