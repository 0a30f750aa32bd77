"""Cursors as PyMySQL's, whose statements run on the loop; rows come in chunks, the next one when this one is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

from pymysql import err

from penstock.channels.dbapi.mysql.parameters import bound
from penstock.channels.dbapi.mysql.refusals import REFUSALS
from penstock.channels.dbapi.refusals import Refusing
from penstock.channels.dbapi.server.cursor import ServerCursor

if TYPE_CHECKING:
    from penstock.channels.dbapi.mysql.connection import Connection


class Cursor(Refusing, ServerCursor):
    """As `pymysql.cursors.Cursor`."""

    refusals = REFUSALS

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._owner = connection
        self._executed: str | None = None
        self._last_row_id: int | None = None

    @property
    def connection(self) -> Connection | None:
        """Its connection; None once it is closed."""
        return None if self._is_closed else self._owner

    @property
    def description(self) -> tuple[tuple[Any, ...], ...] | None:
        """A 7-tuple a column, with PyMySQL's type code; None for a statement that gives no rows."""
        if self._ran is None or self._ran.columns is None:
            return None
        return tuple((name, *rest) for name, rest in zip(self._ran.columns, self._ran.types, strict=True))

    @property
    def rowcount(self) -> int:
        """Rows that an UPDATE matched, an INSERT or DELETE changed; of a query once its last row has come, before it -1."""
        return self.count()

    @property
    def lastrowid(self) -> int | None:
        """The AUTO_INCREMENT number of the last INSERT; 0 for a statement that made none, None for a query."""
        return self._last_row_id

    @property
    def rownumber(self) -> int:
        """How many rows were fetched."""
        return self._position

    def execute(self, query: str, args: Any = None) -> int:
        """Run one statement; returns `rowcount`. Raises what PyMySQL raises."""
        with self.using():
            statement = _text(query)
            self._executed = statement
            self._last_row_id = None
            ran = self.run(statement, None if args is None else bound(args))
            self._last_row_id = ran.last_row_id
            return self.rowcount

    def executemany(self, query: str, args: Iterable[Any]) -> int | None:
        """Run one statement for each row; it crosses once, or once for each 50,000 rows and each frame."""
        with self.using():
            if not args:
                return None
            statement = _text(query)
            self._executed = statement
            self._last_row_id = None
            self.run_many(statement, args, bound)
            self._last_row_id = None if self._ran is None else self._ran.last_row_id
            return self.rowcount

    def callproc(self, procname: str, args: Iterable[Any] = ()) -> Any:
        """Call a stored procedure; what it gives is fetched from this cursor. OUT parameters do not come back."""
        given = tuple(args)
        name = procname.replace("`", "``").replace("%", "%%")
        self.execute(f"CALL `{name}`({', '.join(['%s'] * len(given))})", given)
        return args

    def fetchone(self) -> Any:
        """The next row; None when there is none."""
        with self._fetching():
            return next(iter(self._made(self.taking(1))), None)

    def fetchmany(self, size: int | None = None) -> Any:
        """At most `size` rows, `arraysize` without it; () for a statement that gives none."""
        with self._fetching():
            rows = self._made(self.taking(size or self.arraysize))
            return self._some(rows) if self._rows is not None else ()

    def fetchall(self) -> Any:
        """All rows that are left, in this process's memory; iterate over the cursor to read a large result."""
        with self._fetching():
            rows = self._made(self.taking(-1))
            return self._all(rows) if self._rows is not None else []

    def scroll(self, value: int, mode: str = "relative") -> None:
        """Forwards only. Raises `NotSupportedError` for backwards, `IndexError` beyond the end."""
        if mode not in ("relative", "absolute"):
            msg = f"unknown scroll mode {mode}"
            raise err.ProgrammingError(msg)
        with self._fetching():
            is_there = self.skip(value, mode)
            if is_there is None:
                REFUSALS.refuse("scroll backwards")
            if not is_there:
                msg = "out of range"
                raise IndexError(msg)

    def nextset(self) -> None:
        """None: of several results only the first crosses."""

    def setoutputsizes(self, *args: Any) -> None:
        """Nothing, as in the driver."""

    def __next__(self) -> Any:
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def closed_error(self) -> Exception:
        """As PyMySQL words it."""
        return err.ProgrammingError("Cursor closed")

    def _fetching(self) -> Any:
        if self._executed is None and not self._is_closed:
            raise err.ProgrammingError("execute() first")
        return self.using()

    def _made(self, rows: list[tuple[Any, ...]]) -> list[Any]:
        return rows

    # The driver's sequences are tuples here and lists there.
    def _all(self, rows: list[Any]) -> Any:
        return tuple(rows)

    def _some(self, rows: list[Any]) -> Any:
        return self._all(rows)


class SSCursor(Cursor):
    """As `pymysql.cursors.SSCursor`: a result ends with its transaction. Rows come in chunks here as there."""

    is_streamed = True

    def fetchall_unbuffered(self) -> Iterator[Any]:
        """All rows that are left, one after the other."""
        return iter(self.fetchone, None)

    def _all(self, rows: list[Any]) -> Any:
        return rows

    def _some(self, rows: list[Any]) -> Any:
        return rows or ()


class DictCursorMixin:
    """Rows as mappings; of two columns with one name the last wins, so name them apart with AS."""

    dict_type: Any = dict
    _ran: Any

    def _made(self, rows: list[tuple[Any, ...]]) -> list[Any]:
        names = self._ran.columns if rows else ()
        return [self.dict_type(zip(names, row, strict=True)) for row in rows]


class DictCursor(DictCursorMixin, Cursor):
    """As `pymysql.cursors.DictCursor`."""

    def _all(self, rows: list[Any]) -> Any:
        return rows if self._position else ()


class SSDictCursor(DictCursorMixin, SSCursor):
    """As `pymysql.cursors.SSDictCursor`."""


def _text(query: Any) -> str:
    if isinstance(query, bytes | bytearray):
        return query.decode()
    if not isinstance(query, str):
        msg = f"a statement is text, not {type(query).__name__}"
        raise TypeError(msg)
    return query
