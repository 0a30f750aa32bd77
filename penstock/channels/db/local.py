"""`ctx.db` in an async handler: the same service, asked on the loop itself."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Self, cast

from msgspec import Raw

from penstock.app.context import Parameters, Row, Statement
from penstock.channels import wire
from penstock.channels.db.calls import Query, Ran, Want
from penstock.channels.db.preparing import Prepared, Preparer
from penstock.channels.db.rows import Rows, unpacker
from penstock.channels.db.streaming import LocalStream
from penstock.channels.db.stub import outside_block
from penstock.channels.service import Caller, Service
from penstock.errors import DatabaseError, PenstockError

#: Rows of parameters that are made ready in one turn of the loop, in some milliseconds.
_SLICE_ROWS: Final = 250

# A variable of the task, not of the object: of two tasks of one handler only the one inside the block is inside.
_current: ContextVar[LocalTransaction | None] = ContextVar("penstock_db_transaction", default=None)

# Cursors that are being closed behind the back of a handler that has left its loop.
_leaving: set[asyncio.Task[None]] = set()


class LocalStatements(ABC):
    """Statements of one caller, in the transaction that a subclass names.

    `preparer` is the process's: each delivery is a new caller, and statements are compiled once.
    """

    def __init__(self, service: Service, caller: Caller, preparer: Preparer) -> None:
        self._service = service
        self._caller = caller
        self._preparer = preparer
        self.dropped: dict[int, list[int]] = {}
        """Cursors of streams that were left early, by transaction; closed before its next statement."""

    async def execute(self, statement: Statement, parameters: Parameters = None) -> int:
        """As `DatabaseStub.execute`, awaited."""
        prepared = await self._prepared(statement, parameters, gives_rows=False)
        if prepared.is_many and not prepared.parameters:
            return 0
        return cast("int", await self._run("execute", prepared))

    async def fetch_all(self, statement: Statement, parameters: Parameters = None) -> list[Row]:
        """As `DatabaseStub.fetch_all`, awaited."""
        prepared = await self._prepared(statement, parameters)
        found = cast("Rows", await self._run("fetch_all", prepared))
        unpack = unpacker(found.columns, prepared.shape)
        rows: list[Row] = []
        for position, piece in enumerate(found.pieces):
            if position:
                # A large result is unpacked in pieces, so that the loop's other work comes in between.
                await asyncio.sleep(0)
            rows += unpack(piece)
        return rows

    async def fetch_one(self, statement: Statement, parameters: Parameters = None) -> Row | None:
        """As `DatabaseStub.fetch_one`, awaited."""
        prepared = await self._prepared(statement, parameters)
        found = cast("Rows", await self._run("fetch_one", prepared))
        return unpacker(found.columns, prepared.shape)(found.pieces[0])[0] if found.pieces else None

    def stream(self, statement: Statement, parameters: Parameters = None) -> LocalStream:
        """As `DatabaseStub.stream`; the statement is sent with the first row that is asked for."""
        number = self._number()

        async def run() -> tuple[Prepared, Ran]:
            prepared = await self._prepared(statement, parameters)
            await self._drop_dropped(number)
            query = Query(prepared.sql, prepared.parameters, number)
            return prepared, cast("Ran", await self._ask("stream", query))

        async def drop(cursor: int) -> None:
            if number is None:
                await self._ask("drop", [cursor])
            else:
                # As in a worker: its transaction may be about to be rolled back.
                self.dropped.setdefault(number, []).append(cursor)

        def leave(cursor: int) -> None:
            if number is not None:
                self.dropped.setdefault(number, []).append(cursor)
                return
            # Without a loop that runs, the delivery is over and its cursors with it.
            with suppress(RuntimeError):
                dropping = asyncio.get_running_loop().create_task(
                    self._leave(cursor), name="penstock-db-left"
                )
                _leaving.add(dropping)
                dropping.add_done_callback(_leaving.discard)

        return LocalStream(self._ask, run, drop, leave)

    async def _leave(self, cursor: int) -> None:
        # A channel that is closed has closed it.
        with suppress(PenstockError):
            await self._ask("drop", [cursor])

    @abstractmethod
    def _number(self) -> int | None:
        """The transaction that a statement belongs to; None for one of its own."""

    async def _prepared(
        self, statement: Statement, parameters: Parameters, *, gives_rows: bool = True
    ) -> Prepared:
        while (question := self._preparer.question(statement)) is not None:
            self._preparer.tell(question, await self.fetch_one(question))
        if isinstance(parameters, Sequence) and len(parameters) > _SLICE_ROWS and not gives_rows:
            return await self._prepared_in_slices(statement, parameters)
        return self._preparer.prepare(statement, parameters, gives_rows=gives_rows)

    async def _prepared_in_slices(self, statement: Statement, parameters: Sequence[Any]) -> Prepared:
        """Many rows, with the loop's other work in between."""
        whole: Prepared | None = None
        for start in range(0, len(parameters), _SLICE_ROWS):
            part = self._preparer.prepare(
                statement, parameters[start : start + _SLICE_ROWS], gives_rows=False
            )
            if whole is None:
                whole = part
            if not part.is_many or part.sql != whole.sql:
                # No rows; or a first row that has other names than the first of all, which says what all have.
                return self._preparer.prepare(statement, parameters, gives_rows=False)
            if part is not whole:
                whole.parameters.extend(part.parameters)
            await asyncio.sleep(0)
        assert whole is not None
        return whole

    async def _run(self, want: Want, prepared: Prepared) -> object:
        number = self._number()
        await self._drop_dropped(number)
        return await self._ask(want, Query(prepared.sql, prepared.parameters, number))

    async def _drop_dropped(self, number: int | None) -> None:
        if number is not None and (cursors := self.dropped.pop(number, None)):
            await self._ask("drop", cursors)

    async def _ask(self, method: str, arguments: object) -> object:
        answer: object = await self._service.call(method, Raw(wire.encode(arguments)), self._caller)
        return answer


class LocalDatabase(LocalStatements):
    """Implements `AsyncDatabaseChannel` for one delivery.

    Inside a `transaction()` block its own calls belong to that transaction too, as do those of tasks begun there.
    """

    def transaction(self) -> LocalTransaction:
        """Commit at the end of the block, roll back when it raises."""
        return LocalTransaction(self, self._service, self._caller, self._preparer)

    def close(self) -> None:
        """The delivery is over: roll back what was left open."""
        self._service.forget(self._caller)

    def _number(self) -> int | None:
        current = _current.get()
        return current.number if current is not None and current.database is self else None


class LocalTransaction(LocalStatements):
    """An `async with ctx.db.transaction() as tx` block; used once."""

    def __init__(self, database: LocalDatabase, service: Service, caller: Caller, preparer: Preparer) -> None:
        super().__init__(service, caller, preparer)
        self.dropped = database.dropped
        self.database = database
        self.number: int | None = None
        """None before and after the block."""
        self._around: LocalTransaction | None = None

    async def __aenter__(self) -> Self:
        current = _current.get()
        if current is not None and current.database is self.database and current.number is not None:
            msg = "a transaction is open already: ctx.db.transaction() does not nest; nothing was begun"
            raise DatabaseError(msg, "ProgrammingError")
        self.number = cast("int", await self._ask("begin", None))
        self._around = current
        _current.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        number, self.number = self.number, None
        if _current.get() is self:
            _current.set(self._around)
        if number is None:
            return
        self.dropped.pop(number, None)
        if kind is None:
            await self._ask("commit", number)
            return
        # As in a worker: what is on its way says what happened.
        with suppress(DatabaseError):
            await self._ask("rollback", number)

    def _number(self) -> int | None:
        if self.number is None:
            raise outside_block()
        return self.number
