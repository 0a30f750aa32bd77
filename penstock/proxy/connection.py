"""A PEP 249 connection: reads outside a transaction run anywhere, the first change begins a transaction."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from penstock.proxy import wire
from penstock.proxy.child import Child
from penstock.proxy.cursor import Cursor
from penstock.proxy.pool import Pool
from penstock.proxy.statements import Kind, kind_of
from penstock.proxy.transaction import Parameters, Transaction, batches, parameters_of

if TYPE_CHECKING:
    from penstock.proxy.sqlproxy import SQLProxy

_NOTHING: Final = wire.Result(None, -1, None, [], more=False)


class Connection:
    """As PEP 249 says, with `execute` and the `with` block of Python's sqlite3: commit, or roll back when it raises.

    Threads may share it; they then share its transaction. It costs nothing until it is used, and holds no subprocess
    outside a transaction.

    SQLite: as Python's own sqlite3 does, INSERT, UPDATE, DELETE and REPLACE begin a transaction, reads do not, other
    statements are committed at once. Other drivers: the first statement begins a transaction.
    """

    def __init__(self, proxy: SQLProxy) -> None:
        self.proxy = proxy
        self._lock = threading.RLock()
        self._transaction: Transaction | None = None
        self._is_closed = False

    def cursor(self) -> Cursor:
        """A new cursor. Raises the driver's `ProgrammingError` when the connection is closed, as everything here."""
        self.check()
        return Cursor(self)

    def execute(self, sql: str, parameters: Parameters = ()) -> Cursor:
        """Run a statement with a new cursor, which is returned."""
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql: str, rows: Iterable[Parameters]) -> Cursor:
        """Run a statement with each row of parameters, with a new cursor, which is returned."""
        return self.cursor().executemany(sql, rows)

    @property
    def in_transaction(self) -> bool:
        """True between the first change and its commit or rollback."""
        return self._transaction is not None and self._transaction.is_open

    def commit(self) -> None:
        """Commit; nothing outside a transaction. Raises what the driver raises; the transaction is over in any case."""
        self._end(commit=True)

    def rollback(self) -> None:
        """Roll back; nothing outside a transaction."""
        self._end(commit=False)

    def close(self) -> None:
        """Roll back what is open. Using the connection afterwards raises the driver's `ProgrammingError`."""
        self._end(commit=False)
        self._is_closed = True

    def __getattr__(self, name: str) -> Any:
        # PEP 249's optional extension: connection.Error and its family.
        if name.endswith(("Error", "Warning")):
            return getattr(self.proxy, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def check(self) -> None:
        """Raises the driver's `ProgrammingError` when the connection is closed."""
        if self._is_closed:
            raise self.proxy.ProgrammingError(
                "the connection is closed: make another one with proxy.connect()"
            )

    def run(self, cursor: Cursor, sql: str, parameters: Parameters) -> None:
        """Run a cursor's statement, where it belongs."""
        packed = parameters_of(parameters, self.proxy.driver)
        with self._lock:
            self.check()
            if self._controls(sql):
                cursor.note(_NOTHING, None)
            elif (transaction := self._joined(sql)) is not None:
                pool = self.proxy.pool(writes=True)
                transaction.ask(lambda child: self._note(cursor, pool, child, sql, packed))
            else:

                def ask(pool: Pool, commits: bool) -> None:  # noqa: FBT001 - a callback
                    child = pool.take()
                    try:
                        self._note(cursor, pool, child, sql, packed, commits=commits)
                    finally:
                        pool.give(child)

                self.proxy.alone(sql, ask)

    def run_many(self, cursor: Cursor, sql: str, rows: Iterable[Parameters]) -> None:
        """Run a cursor's statement many times, in a transaction."""
        with self._lock:
            self.check()
            if self._transaction is None:
                self._transaction = self.proxy.transaction()
            changed, answer = 0, _NOTHING
            for batch in batches(rows, self.proxy.driver):
                answer, _ = self._transaction.whole(wire.Statement(sql, batch, many=True))
                changed = changed + answer.rowcount if answer.rowcount >= 0 and changed >= 0 else -1
            cursor.note(
                wire.Result(answer.description, changed, answer.lastrowid, answer.rows, more=False), None
            )

    def fetch(self, pool: Pool, child: Child, number: int) -> wire.Rows:
        """More rows of a cursor."""
        with self._lock:
            transaction = self._transaction
            if transaction is not None and transaction.is_open and transaction.child is child:
                return transaction.ask(lambda child: _rows(child, number))
        child = pool.take(child)
        try:
            return _rows(child, number)
        finally:
            pool.give(child)

    def _note(
        self, cursor: Cursor, pool: Pool, child: Child, sql: str, parameters: Any, *, commits: bool = False
    ) -> None:
        child.last_cursor += 1
        number = child.last_cursor
        answer = child.ask(wire.Statement(sql, parameters, cursor=number, commits=commits))
        assert isinstance(answer, wire.Result)
        cursor.note(answer, (pool, child, number))

    def _controls(self, sql: str) -> bool:
        """True when the statement was a transaction's beginning or end, which are ours."""
        kind = kind_of(sql) if self.proxy.is_sqlite else Kind.OTHER
        if kind in (Kind.COMMITS, Kind.ROLLS_BACK):
            if self._transaction is None:
                raise self.proxy.OperationalError("cannot commit or roll back - no transaction is active")
            self._end(commit=kind is Kind.COMMITS)
            return True
        if kind is Kind.BEGINS:
            if self._transaction is not None:
                raise self.proxy.OperationalError("cannot start a transaction within a transaction")
            self._transaction = self.proxy.transaction()
            return True
        return False

    def _joined(self, sql: str) -> Transaction | None:
        """The transaction that the statement belongs to, begun by it if need be."""
        begins = not self.proxy.is_sqlite or kind_of(sql) in (Kind.CHANGES, Kind.SAVES)
        if self._transaction is None and begins:
            self._transaction = self.proxy.transaction()
        return self._transaction

    def _end(self, *, commit: bool) -> None:
        with self._lock:
            self.check()
            transaction, self._transaction = self._transaction, None
            if transaction is not None:
                transaction.end(commit=commit)

    def __enter__(self) -> Self:
        self.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.rollback()


def _rows(child: Child, number: int) -> wire.Rows:
    answer = child.ask(wire.Fetch(number))
    assert isinstance(answer, wire.Rows)
    return answer
