"""A PEP 249 cursor: the rows of one statement, fetched in chunks as they are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from penstock.proxy import wire
from penstock.proxy.child import Child
from penstock.proxy.pool import Pool
from penstock.proxy.transaction import Parameters

if TYPE_CHECKING:
    from penstock.proxy.connection import Connection

_Row = tuple[Any, ...]


class Cursor:
    """As PEP 249 says. One thread at a time; `description`, `rowcount` and `lastrowid` are the driver's."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.arraysize = 1
        self.description: tuple[_Row, ...] | None = None
        self.rowcount = -1
        self.lastrowid: Any = None
        self._rows: list[_Row] = []
        self._at = 0
        self._rest: tuple[Pool, Child, int] | None = None
        self._is_closed = False

    def execute(self, sql: str, parameters: Parameters = ()) -> Cursor:
        """Run a statement. Raises what the driver raises, as everything here."""
        self._check()
        self._forget()
        self.connection.run(self, sql, parameters)
        return self

    def executemany(self, sql: str, rows: Iterable[Parameters]) -> Cursor:
        """Run a statement with each row of parameters, in the connection's transaction."""
        self._check()
        self._forget()
        self.connection.run_many(self, sql, rows)
        return self

    def fetchone(self) -> _Row | None:
        """The next row, None after the last."""
        rows = self.fetchmany(1)
        return rows[0] if rows else None

    def fetchmany(self, size: int | None = None) -> list[_Row]:
        """The next rows, `arraysize` of them unless told; fewer at the end."""
        self._check_result()
        wanted = self.arraysize if size is None else size
        found: list[_Row] = []
        while len(found) < wanted:
            if self._at == len(self._rows) and not self._fetch():
                break
            part = self._rows[self._at : self._at + wanted - len(found)]
            self._at += len(part)
            found += part
        return found

    def fetchall(self) -> list[_Row]:
        """All rows that are left."""
        self._check_result()
        found = self._rows[self._at :]
        while self._fetch():
            found += self._rows
        self._rows, self._at = [], 0
        return found

    def close(self) -> None:
        """No row is wanted any more, and nothing else of this cursor."""
        self._check()
        self._forget()
        self._is_closed = True

    def setinputsizes(self, _sizes: Any, /) -> None:
        """Nothing: sizes are found out."""
        self._check()

    def setoutputsize(self, _size: Any, _column: Any = None, /) -> None:
        """Nothing: columns come whole."""
        self._check()

    def note(self, answer: wire.Result, rest: tuple[Pool, Child, int] | None) -> None:
        """The connection ran its statement."""
        self.description = answer.description
        self.rowcount = answer.rowcount
        if answer.lastrowid is not None:
            self.lastrowid = answer.lastrowid
        self._rows, self._at = answer.rows, 0
        self._rest = rest if answer.more else None

    def _fetch(self) -> bool:
        """True when there are more rows, which are there then."""
        while self._rest is not None:
            pool, child, number = self._rest
            answer = self.connection.fetch(pool, child, number)
            if not answer.more:
                self._rest = None
            if answer.rows:
                self._rows, self._at = answer.rows, 0
                return True
        return False

    def _forget(self) -> None:
        if self._rest is not None:
            _, child, number = self._rest
            # Told with the next question: a garbage collection must not wait for a socket.
            child.dropped.append(number)
        self._rest = None
        self._rows, self._at = [], 0
        self.description, self.rowcount = None, -1

    def _check(self) -> None:
        self.connection.check()
        if self._is_closed:
            raise self.connection.proxy.ProgrammingError(
                "the cursor is closed: make another one with cursor()"
            )

    def _check_result(self) -> None:
        self._check()
        if self.description is None:
            raise self.connection.proxy.ProgrammingError(
                "there are no rows to fetch: the last statement gave none, or there was none"
            )

    def __iter__(self) -> Iterator[_Row]:
        return self

    def __next__(self) -> _Row:
        if self._at < len(self._rows) and not self._is_closed:
            self._at += 1
            return self._rows[self._at - 1]
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_closed:
            self.close()

    def __del__(self) -> None:
        with suppress(AttributeError):
            self._forget()
