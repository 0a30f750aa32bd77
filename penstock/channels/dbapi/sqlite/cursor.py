"""A cursor whose statements run on the loop; rows come in chunks, the next one when this one is read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from msgspec import Raw

from penstock.channels.db.calls import Ran
from penstock.channels.db.parting import batches
from penstock.channels.db.sqlite.stepping import RAW_TEXT
from penstock.channels.db.statements import statements_of
from penstock.channels.dbapi.rows import RowBuffer
from penstock.channels.dbapi.sqlite.parameters import bound

if TYPE_CHECKING:
    from penstock.channels.dbapi.sqlite.connection import Connection

_rows: Final = msgspec.msgpack.Decoder(list[tuple[Any, ...]]).decode


class Cursor:
    """As `sqlite3.Cursor`."""

    def __init__(self, connection: Connection, /) -> None:
        self.connection = connection
        self.row_factory: Callable[..., Any] | None = connection.row_factory
        self.arraysize = 1
        self._description: tuple[tuple[Any, ...], ...] | None = None
        self._row_count = -1
        self._last_row_id: int | None = None
        self._rows: RowBuffer | None = None
        self._is_closed = False
        self._blank: sqlite3.Cursor | None = None

    @property
    def description(self) -> tuple[tuple[Any, ...], ...] | None:
        """A 7-tuple a column, of which SQLite knows the name; None for a statement that gives no rows."""
        return self._description

    @property
    def rowcount(self) -> int:
        """Rows changed; -1 for a query."""
        return self._row_count if self._rows is None else self._rows.count

    @property
    def lastrowid(self) -> int | None:
        """Row id of the last INSERT or REPLACE of this cursor."""
        return self._last_row_id

    def execute(self, statement: str, parameters: Any = (), /) -> Self:
        """Run one statement. Raises what `sqlite3` raises."""
        with self.connection.using(self):
            self._discard()
            ran = self.connection.run(statement, parameters if parameters == () else bound(parameters))
            self._take(ran)
        return self

    def executemany(self, statement: str, rows: Iterable[Any], /) -> Self:
        """Run one statement for each row; it crosses once, or once for each 50,000 rows and each frame.

        In autocommit all of them or none.
        """
        with self.connection.using(self):
            self._discard()
            count = 0
            limit_bytes = self.connection.session.link.limit_bytes
            crossings = batches(statement, rows, bound, limit_bytes=limit_bytes)
            with self.connection.whole(statement, crossings) as taken:
                for batch in taken:
                    ran = self.connection.run(statement, batch, is_many=True)
                    count += max(ran.chunk.row_count, 0)
            self._row_count = count
        return self

    def executescript(self, script: Any, /) -> Self:
        """Commit what is open, then run every statement of the script, each in its own crossing."""
        if not isinstance(script, str):
            msg = f"executescript() argument must be str, not {type(script).__name__}"
            raise TypeError(msg)
        with self.connection.using(self):
            self._discard()
            self.connection.before_script()
            for statement in statements_of(script):
                ran = self.connection.run(statement, (), is_script=True)
                if ran.cursor is not None:
                    self.connection.session.drop(ran.cursor)
        return self

    def fetchone(self) -> Any:
        """The next row; None when there is none."""
        with self.connection.using(self):
            return next(self._taking(1), None)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """At most `size` rows, `arraysize` without it."""
        with self.connection.using(self):
            most = self.arraysize if size is None else size
            return [*self._taking(most)]

    def fetchall(self) -> list[Any]:
        """All rows that are left, in this process's memory; iterate over the cursor to read a large result."""
        with self.connection.using(self):
            return [*self._taking(-1)]

    def close(self) -> None:
        """Close it; harmless when repeated."""
        self.connection.check_thread()
        with self.connection.lock:
            if not self._is_closed:
                if not self.connection.is_closed:
                    self._discard()
                self._is_closed = True

    def setinputsizes(self, sizes: Any, /) -> None:
        """Nothing, as in `sqlite3`."""

    def setoutputsize(self, size: Any, column: Any = None, /) -> None:
        """Nothing, as in `sqlite3`."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self.connection.using(self):
            for row in self._taking(1):
                return row
            raise StopIteration

    @property
    def is_closed(self) -> bool:
        """True after `close`."""
        return self._is_closed

    def _take(self, ran: Ran) -> None:
        if ran.columns is not None:
            self._description = tuple((name, None, None, None, None, None, None) for name in ran.columns)
        self._rows = RowBuffer(self.connection.session, ran, partial(_decoded, self.connection))
        if ran.last_row_id is not None:
            self._last_row_id = ran.last_row_id

    def _taking(self, most: int) -> Iterator[Any]:
        if self._rows is not None:
            yield from map(self._made, self._rows.taking(most))

    def _made(self, row: tuple[Any, ...]) -> Any:
        factory: Any = self.row_factory
        if factory is None:
            return row
        if isinstance(factory, type) and issubclass(factory, sqlite3.Row):
            # It takes nothing but the driver's own cursor: one with the same columns and no rows.
            if self._blank is None:
                self._blank = self.connection.blank([column[0] for column in self._description or ()])
            return factory(self._blank, row)
        return factory(self, row)

    def _discard(self) -> None:
        self._description = self._blank = None
        self._row_count = -1
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.discard()


def _decoded(connection: Connection, piece: Raw) -> list[tuple[Any, ...]]:
    factory: Any = connection.text_factory
    if factory is str:
        return _rows(piece)

    def made(code: int, data: memoryview) -> Any:
        assert code == RAW_TEXT
        return factory(bytes(data))

    return msgspec.msgpack.decode(piece, type=list[tuple[Any, ...]], ext_hook=made)
