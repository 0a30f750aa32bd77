"""`ctx.db` in a worker process: statements go over the channel, the handler waits."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import NoneType, TracebackType
from typing import Any, Literal, Self, TypeVar
from weakref import WeakSet

from penstock.app.context import Parameters, Row, Statement
from penstock.channels.db.calls import SERVICE, Chunk, Failed, Fetch, Query, Ran, Run, Want
from penstock.channels.db.parting import parts
from penstock.channels.db.preparing import Prepared, Preparer
from penstock.channels.db.rows import Rows, unpacker
from penstock.channels.db.statements import may_write, shown
from penstock.channels.db.streaming import StubStream
from penstock.channels.dbapi.link import Link
from penstock.channels.stub import Channel
from penstock.errors import ChannelClosed, DatabaseError, DeadlineExceeded, FrameError, PenstockError

T = TypeVar("T")


def _unguarded(may_write: bool) -> None:  # noqa: FBT001 - the guard's shape
    """No connection of the worker's own stands beside the channel."""


class _Thread(threading.local):
    """What each thread knows for itself."""

    inside: int | None = None
    """The transaction whose `tx` it is using."""


class DatabaseStub:
    """Implements `DatabaseChannel`; inside a `transaction()` block its own calls belong to that transaction too.

    Those of other threads do not, and are refused meanwhile: the channel carries one call at a time, so to wait for the
    transaction's end would be to keep it from ending.

    `is_server`: the database is one, so values keep their types. `guard(may_write)` is called before each statement and
    each transaction; it may raise to refuse it.
    """

    def __init__(
        self, channel: Channel, *, guard: Callable[[bool], None] = _unguarded, is_server: bool = False
    ) -> None:
        self._channel = channel
        self._is_server = is_server
        self._preparer = Preparer(is_server=is_server)
        self.guard = guard
        self.link = Link(channel, guard=lambda writes: self.guard(writes))  # noqa: PLW0108 - it may be replaced
        """For the PEP 249 connections of the process."""
        self._transaction: int | None = None
        self._holder = 0
        self._thread = _Thread()
        # From the look whether a transaction is open to the answer: of two threads neither begins one in between.
        self._turns = threading.RLock()
        # On a server a transaction begins with its first statement: until then the loop knows nothing of it.
        self._chosen = itertools.count(-1, -1)
        self._begins = False
        self._is_heard_of = True
        # True from a call's beginning to its answer: a soft deadline in between leaves something behind.
        self._is_unsettled = False
        self._has_streamed = False
        self._streams: WeakSet[StubStream] = WeakSet()
        # Cursors that are open on the loop's side, and those of them that nobody reads any more, with their transactions.
        self._cursors: set[int] = set()
        self._dropped: dict[int, int | None] = {}

    @property
    def in_transaction(self) -> bool:
        """True inside a `transaction()` block, or while a PEP 249 connection of the process has one open."""
        return self._transaction is not None or self.link.in_transaction

    def execute(self, statement: Statement, parameters: Parameters = None) -> int:
        """Run one statement, for each row of parameters when there are several; returns the number of rows it changed.

        Raises `DatabaseError` (`DatabaseBusy` when it waited too long), `ChannelClosed`, `FrameError`.
        """
        with self._turn():
            prepared = self._prepared(statement, parameters, gives_rows=False)
            if not prepared.is_many:
                return self._run("execute", prepared, int)
            if not prepared.parameters:
                return 0
            room_bytes = self._channel.limit_bytes - len(prepared.sql.encode())
            crossings = [
                prepared._replace(parameters=part) for part in parts(prepared.parameters, room_bytes)
            ]
            if len(crossings) == 1:
                return self._run("execute", crossings[0], int)
            with self._all_or_none():
                return sum(self._run("execute", crossing, int) for crossing in crossings)

    def fetch_all(self, statement: Statement, parameters: Parameters = None) -> list[Row]:
        """All rows, each a dict from column name to value; of two columns with one name the last wins."""
        with self._turn():
            prepared = self._prepared(statement, parameters)
            found = self._run("fetch_all", prepared, Rows)
        unpack = unpacker(found.columns, prepared.shape)
        return [row for piece in found.pieces for row in unpack(piece)]

    def fetch_one(self, statement: Statement, parameters: Parameters = None) -> Row | None:
        """The first row, or None."""
        with self._turn():
            prepared = self._prepared(statement, parameters)
            found = self._run("fetch_one", prepared, Rows)
        return unpacker(found.columns, prepared.shape)(found.pieces[0])[0] if found.pieces else None

    def stream(self, statement: Statement, parameters: Parameters = None) -> StubStream:
        """The rows of a large result, a chunk here at a time. Raises as `execute`."""
        with self._turn():
            prepared = self._prepared(statement, parameters)
            # From here on: a deadline may come between the answer and us.
            self._has_streamed = True
            ran = self._run("stream", prepared, Ran)
            stream = StubStream(self, prepared, ran, self._transaction)
            if ran.cursor is not None:
                self._cursors.add(ran.cursor)
                self._streams.add(stream)
            return stream

    def transaction(self) -> StubTransaction:
        """Commit at the end of the block, roll back when it raises."""
        return StubTransaction(self)

    def reset(self) -> None:
        """Between two messages: roll back a transaction and end streams that were left open, withdraw a call that was given up."""
        if self._is_unsettled or self._transaction is not None or self._has_streamed or self.link.holding:
            self.link.reset()
            self._transaction = None
            self._is_unsettled = self._has_streamed = False
            self._forget(list(self._streams))
            self._cursors.clear()
            self._dropped.clear()

    def begin(self) -> int:
        """Begin a transaction, which is this thread's; returns its number. Raises `DatabaseError` when one is open."""
        with self._turn():
            if self._transaction is not None:
                msg = "a transaction is open already: ctx.db.transaction() does not nest; nothing was begun"
                raise DatabaseError(msg, "ProgrammingError")
            self.guard(True)
            self._begins = self._is_server
            self._is_heard_of = not self._is_server
            self._holder = threading.get_ident()
            self._transaction = next(self._chosen) if self._is_server else self._settled("begin", None, int)
            return self._transaction

    @contextmanager
    def inside(self, number: int) -> Iterator[Self]:
        """This thread's calls in the block belong to that transaction, whichever thread has begun it."""
        before, self._thread.inside = self._thread.inside, number
        try:
            yield self
        finally:
            self._thread.inside = before

    def end(self, method: str, number: int) -> None:
        """Commit or roll back."""
        self._transaction = None
        self._forget([stream for stream in self._streams if stream.transaction == number])
        self._dropped = {cursor: of for cursor, of in self._dropped.items() if of != number}
        self._begins = False
        if self._is_heard_of:
            self._settled(method, number, NoneType)

    def fetch(self, cursor: int) -> Chunk | Failed:
        """More rows of a stream."""
        answer: Chunk | Failed = self._settled("fetch", Fetch(cursor), Chunk | Failed)
        if isinstance(answer, Failed) or answer.is_last:
            self._cursors.discard(cursor)
        return answer

    def drop(self, cursor: int) -> None:
        """Close a stream's cursor; a call that was cut short leaves that to `reset`."""
        if cursor in self._cursors and not self._is_unsettled:
            self._dropped[cursor] = None
            self._drop_dropped()

    def drop_soon(self, cursor: int) -> None:
        """As `drop`, from a finalizer: it waits for nothing."""
        if cursor not in self._cursors or self._is_unsettled:
            return
        try:
            is_told = self._channel.tell(SERVICE, "drop", [cursor])
        except ChannelClosed:
            return
        if is_told:
            self._cursors.discard(cursor)
        else:
            self._dropped[cursor] = None

    def drop_later(self, cursor: int, transaction: int) -> None:
        """As `drop`, with the next statement; the transaction's end closes it, too."""
        if cursor in self._cursors:
            self._dropped[cursor] = transaction

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._turns:
            inside = self._thread.inside
            if inside is not None and inside != self._transaction:
                raise outside_block()
            if self._transaction is not None and inside is None and self._holder != threading.get_ident():
                msg = (
                    "another thread of this handler has a transaction open (ctx.db.transaction()), and this thread's "
                    "statement would be committed or rolled back with it: run it before that block or after it, or, to be "
                    "inside it, call the block's tx; nothing was run"
                )
                raise DatabaseError(msg, "ProgrammingError")
            yield

    def _prepared(self, statement: Statement, parameters: Parameters, *, gives_rows: bool = True) -> Prepared:
        while (question := self._preparer.question(statement)) is not None:
            self._preparer.tell(question, self.fetch_one(question))
        return self._preparer.prepare(statement, parameters, gives_rows=gives_rows)

    def _run(self, method: Want | Literal["stream"], prepared: Prepared, result: type[T]) -> T:
        self.guard(may_write(prepared.sql))
        if self._dropped and not self._is_unsettled:
            self._drop_dropped()
        answer: T = self._queried(method, prepared.sql, prepared.parameters, result)
        return answer

    def _queried(self, method: str, sql: str, parameters: Any, result: Any) -> Any:
        was_heard_of, self._is_heard_of = self._is_heard_of, True
        try:
            answer = self._settled(method, Query(sql, parameters, self._transaction, self._begins), result)
        except FrameError as error:
            if not error.is_unsent:
                raise
            self._is_heard_of = was_heard_of
            words = f"{shown(sql)} is too large with its parameters: {error}"
            if self._begins and not was_heard_of:
                words += "; the transaction is not begun"
            raise FrameError(words, is_unsent=True) from None
        # Said again when this was refused: it may not have left.
        self._begins = False
        return answer

    def _drop_dropped(self) -> None:
        numbers, self._dropped = list(self._dropped), {}
        self._cursors.difference_update(numbers)
        self._settled("drop", numbers, NoneType)

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """Several calls that leave nothing behind when one of them fails: a transaction, a savepoint inside one."""
        if self._transaction is None:
            with self.transaction():
                yield
            return
        self._control("SAVEPOINT penstock_rows")
        try:
            yield
        except (DatabaseError, FrameError):
            self._control("ROLLBACK TO SAVEPOINT penstock_rows")
            raise
        self._control("RELEASE SAVEPOINT penstock_rows")

    def _control(self, sql: str) -> None:
        if self._is_server:
            self._queried("execute", sql, None, int)
            return
        # Statements of `ctx.db` may not; those of a cursor may.
        answer: Ran | Failed = self._settled("run", Run(sql, transaction=self._transaction), Ran | Failed)
        if isinstance(answer, Failed):
            raise DatabaseError(answer.text, answer.name)

    def _forget(self, streams: list[StubStream]) -> None:
        for stream in streams:
            stream.lose()
            self._streams.discard(stream)

    def _settled(self, method: str, arguments: object, result: Any) -> Any:
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
        if number is None:
            return
        if kind is None:
            self._stub.end("commit", number)
            return
        # What is on its way says what happened; a transaction that cannot be rolled back is over already.
        with suppress(DatabaseError):
            self._stub.end("rollback", number)

    def execute(self, statement: Statement, parameters: Parameters = None) -> int:
        """As `DatabaseStub.execute`, inside it."""
        with self._inside() as stub:
            return stub.execute(statement, parameters)

    def fetch_all(self, statement: Statement, parameters: Parameters = None) -> list[Row]:
        """All rows."""
        with self._inside() as stub:
            return stub.fetch_all(statement, parameters)

    def fetch_one(self, statement: Statement, parameters: Parameters = None) -> Row | None:
        """The first row, or None."""
        with self._inside() as stub:
            return stub.fetch_one(statement, parameters)

    def stream(self, statement: Statement, parameters: Parameters = None) -> StubStream:
        """The rows of a large result, which end with the transaction."""
        with self._inside() as stub:
            return stub.stream(statement, parameters)

    def _inside(self) -> AbstractContextManager[DatabaseStub]:
        if self._number is None:
            raise outside_block()
        return self._stub.inside(self._number)


def outside_block() -> DatabaseError:
    """For a transaction's handle that is used where it means nothing."""
    msg = "the transaction's block is not open: use tx inside `with ctx.db.transaction() as tx`; nothing was run"
    return DatabaseError(msg, "ProgrammingError")
