"""`ctx.db` in a worker process: statements go over the channel, the handler waits."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType, TracebackType
from typing import Self, TypeVar

from penstock.app.context import Parameters, Row
from penstock.channels.db.calls import SERVICE, Query, Want
from penstock.channels.db.exact import exact_parameters
from penstock.channels.db.rows import Rows, unpack
from penstock.channels.db.statements import check_text, may_write
from penstock.channels.db.values import stored_parameters
from penstock.channels.dbapi.link import Link
from penstock.channels.stub import Channel
from penstock.errors import ChannelClosed, DatabaseError, DeadlineExceeded, PenstockError

T = TypeVar("T")


def _unguarded(may_write: bool) -> None:  # noqa: FBT001 - the guard's shape
    """No connection of the worker's own stands beside the channel."""


class DatabaseStub:
    """Implements `DatabaseChannel`; inside a `transaction()` block its own calls belong to that transaction too.

    `exact`: the database is a server, whose values keep their types. `guard(may_write)` is called before each statement and each transaction; it may raise to refuse it.
    """

    def __init__(
        self, channel: Channel, *, guard: Callable[[bool], None] = _unguarded, exact: bool = False
    ) -> None:
        self._channel = channel
        self._prepare = exact_parameters if exact else stored_parameters
        self.guard = guard
        self.link = Link(channel, guard=lambda writes: self.guard(writes))  # noqa: PLW0108 - it may be replaced
        """For the PEP 249 connections of the process."""
        self._transaction: int | None = None
        # True from a call's beginning to its answer: a soft deadline in between leaves something behind.
        self._is_unsettled = False

    @property
    def in_transaction(self) -> bool:
        """True inside a `transaction()` block, or while a PEP 249 connection of the process has one open."""
        return self._transaction is not None or self.link.in_transaction

    def execute(self, statement: str, parameters: Parameters = None) -> int:
        """Run one statement; returns the number of rows it changed.

        Raises `DatabaseError` (`DatabaseBusy` when it waited too long), `ChannelClosed`, `FrameError`.
        """
        return self._run("execute", statement, parameters, int)

    def fetch_all(self, statement: str, parameters: Parameters = None) -> list[Row]:
        """All rows, each a dict from column name to value; of two columns with one name the last wins."""
        found = self._run("fetch_all", statement, parameters, Rows)
        return [row for piece in found.pieces for row in unpack(found.columns, piece)]

    def fetch_one(self, statement: str, parameters: Parameters = None) -> Row | None:
        """The first row, or None."""
        found = self._run("fetch_one", statement, parameters, Rows)
        return unpack(found.columns, found.pieces[0])[0] if found.pieces else None

    def transaction(self) -> StubTransaction:
        """Commit at the end of the block, roll back when it raises."""
        return StubTransaction(self)

    def reset(self) -> None:
        """Between two messages: roll back a transaction that was left open, withdraw a call that was given up."""
        if self._is_unsettled or self._transaction is not None or self.link.holding:
            self.link.reset()
            self._transaction = None
            self._is_unsettled = False

    def begin(self) -> int:
        """Begin a transaction; returns its number. Raises `DatabaseError` when one is open."""
        if self._transaction is not None:
            msg = "a transaction is open already: ctx.db.transaction() does not nest; nothing was begun"
            raise DatabaseError(msg, "ProgrammingError")
        self.guard(True)
        self._transaction = self._settled("begin", None, int)
        return self._transaction

    def end(self, method: str, number: int) -> None:
        """Commit or roll back."""
        self._transaction = None
        self._settled(method, number, NoneType)

    def _run(self, want: Want, statement: str, parameters: Parameters, result: type[T]) -> T:
        check_text(statement)
        query = Query(statement, self._prepare(parameters), self._transaction)
        self.guard(may_write(statement))
        return self._settled(want, query, result)

    def _settled(self, method: str, arguments: object, result: type[T]) -> T:
        self._is_unsettled = True
        try:
            answer = self._channel.call(SERVICE, method, arguments, result)
        except (ChannelClosed, DeadlineExceeded):
            raise
        except PenstockError:
            # An answer too, though a refusal.
            self._is_unsettled = False
            raise
        self._is_unsettled = False
        return answer


class StubTransaction:
    """A `with ctx.db.transaction() as tx` block; used once."""

    def __init__(self, stub: DatabaseStub) -> None:
        self._stub = stub
        self._number: int | None = None

    def __enter__(self) -> Self:
        self._number = self._stub.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        number, self._number = self._number, None
        if number is not None:
            self._stub.end("commit" if kind is None else "rollback", number)

    def execute(self, statement: str, parameters: Parameters = None) -> int:
        """Run one statement inside it; returns the number of rows it changed."""
        return self._inside().execute(statement, parameters)

    def fetch_all(self, statement: str, parameters: Parameters = None) -> list[Row]:
        """All rows."""
        return self._inside().fetch_all(statement, parameters)

    def fetch_one(self, statement: str, parameters: Parameters = None) -> Row | None:
        """The first row, or None."""
        return self._inside().fetch_one(statement, parameters)

    def _inside(self) -> DatabaseStub:
        if self._number is None:
            raise outside_block()
        return self._stub


def outside_block() -> DatabaseError:
    """For a transaction's handle that is used where it means nothing."""
    msg = "the transaction's block is not open: use tx inside `with ctx.db.transaction() as tx`; nothing was run"
    return DatabaseError(msg, "ProgrammingError")
