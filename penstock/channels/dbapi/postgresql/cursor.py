"""A cursor as psycopg's, whose statements run on the loop; rows come in chunks, the next one when this one is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import sql

from penstock.channels.dbapi.postgresql.parameters import bound
from penstock.channels.dbapi.postgresql.refusals import REFUSALS
from penstock.channels.dbapi.postgresql.result import Column, Result, column
from penstock.channels.dbapi.refusals import Refusing
from penstock.channels.dbapi.server.cursor import ServerCursor

if TYPE_CHECKING:
    from penstock.channels.dbapi.postgresql.connection import Connection


class Cursor(Refusing, ServerCursor):
    """As `psycopg.Cursor`; with a name as `psycopg.ServerCursor`: its result ends with its transaction."""

    refusals = REFUSALS
    _encoding = "utf-8"

    def __init__(self, connection: Connection, name: str = "", *, row_factory: Any = None) -> None:
        super().__init__(connection)
        self.name = name
        self.is_streamed = bool(name)
        self.itersize = 100
        self._row_factory: Any = row_factory or connection.row_factory
        self._make: Callable[[Any], Any] | None = None
        self._owner = connection

    @property
    def connection(self) -> Connection:
        """Its connection."""
        return self._owner

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._is_closed

    @property
    def description(self) -> list[Column] | None:
        """A `Column` for each, which is PEP 249's 7-tuple with names; None for a statement that gives no rows."""
        if self._ran is None or self._ran.columns is None:
            return None
        return [column(name, rest) for name, rest in zip(self._ran.columns, self._ran.types, strict=True)]

    @property
    def rowcount(self) -> int:
        """Rows changed; of a query once its last row has come, before it -1."""
        return self.count()

    @property
    def rownumber(self) -> int | None:
        """How many rows were fetched; None without a result."""
        return None if self._rows is None else self._position

    @property
    def statusmessage(self) -> str | None:
        """The server's word for what was done, `INSERT 0 1` for example."""
        return None if self._ran is None else self._ran.status

    @property
    def pgresult(self) -> Any:
        """What row factories look at; None for a statement that gives no rows."""
        return None if self._ran is None or self._ran.columns is None else Result(self._ran.columns)

    @property
    def row_factory(self) -> Any:
        """What rows are made with."""
        return self._row_factory

    @row_factory.setter
    def row_factory(self, factory: Any) -> None:
        self._row_factory = factory
        self._make = None

    def execute(
        self, query: Any, params: Any = None, *, prepare: bool | None = None, binary: bool | None = None
    ) -> Self:
        """Run one statement. Raises what psycopg raises."""
        del prepare
        if binary:
            REFUSALS.refuse("binary")
        with self.using():
            self._make = None
            self.run(_text(query), None if params is None else bound(params))
        return self

    def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        """Run one statement for each row; it crosses once, or once for each 50,000 rows and each frame."""
        if returning:
            REFUSALS.refuse("executemany(returning=True)")
        with self.using():
            self.run_many(_text(query), params_seq, bound)

    def stream(
        self, query: Any, params: Any = None, *, binary: bool | None = None, size: int = 1
    ) -> Iterator[Any]:
        """The rows of a statement; they come in chunks here anyway."""
        del size
        self.execute(query, params, binary=binary)
        yield from self

    def fetchone(self) -> Any:
        """The next row; None when there is none."""
        with self.using():
            return next(iter(self._made(1)), None)

    def fetchmany(self, size: int = 0) -> list[Any]:
        """At most `size` rows, `arraysize` without it."""
        with self.using():
            return self._made(size or self.arraysize)

    def fetchall(self) -> list[Any]:
        """All rows that are left, in this process's memory; iterate over the cursor to read a large result."""
        with self.using():
            return self._made(-1)

    def scroll(self, value: int, mode: str = "relative") -> None:
        """Forwards only. Raises `NotSupportedError` for backwards, `IndexError` beyond the end."""
        if mode not in ("relative", "absolute"):
            msg = f"bad mode: {mode}. It should be 'relative' or 'absolute'"
            raise ValueError(msg)
        with self.using():
            self._check_has_rows()
            is_there = self.skip(value, mode)
            if is_there is None:
                REFUSALS.refuse("scroll backwards")
            if not is_there:
                msg = "position out of bound"
                raise IndexError(msg)

    def results(self) -> Iterator[Self]:
        """The one result."""
        if self._ran is not None:
            yield self

    def nextset(self) -> None:
        """None: a statement over the channel has one result."""

    def __next__(self) -> Any:
        with self.using():
            for row in self._made(1):
                return row
        raise StopIteration("no more records to return")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def closed_error(self) -> Exception:
        """As psycopg words it."""
        return psycopg.InterfaceError("the cursor is closed")

    def _made(self, most: int) -> list[Any]:
        self._check_has_rows()
        if self._make is None:
            self._make = self._row_factory(self)
        rows = self.taking(most)
        return rows if self._make is tuple else [self._make(row) for row in rows]

    def _check_has_rows(self) -> None:
        if self._rows is None:
            if self._ran is None:
                raise psycopg.ProgrammingError("no result available")
            status = f" (command status: {self._ran.status})" if self._ran.status else ""
            raise psycopg.ProgrammingError(f"the last operation didn't produce records{status}")


def _text(query: Any) -> str:
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return query.decode()
    if isinstance(query, sql.Composable):
        # Without a connection: what it quotes, it quotes as a server with standard_conforming_strings reads it.
        return query.as_string(None)
    msg = f"a statement is str, bytes or psycopg.sql, not {type(query).__name__}"
    raise TypeError(msg)
