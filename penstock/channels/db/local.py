"""`ctx.db` in an async handler: the same service, asked on the loop itself."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextvars import ContextVar
from types import TracebackType
from typing import Self, cast

from msgspec import Raw

from penstock.app.context import Parameters, Row
from penstock.channels import wire
from penstock.channels.db.calls import Query, Want
from penstock.channels.db.exact import exact_parameters
from penstock.channels.db.rows import Rows, unpack
from penstock.channels.db.statements import check_text
from penstock.channels.db.stub import outside_block
from penstock.channels.db.values import stored_parameters
from penstock.channels.service import Caller, Service
from penstock.errors import DatabaseError

# A variable of the task, not of the object: of two tasks of one handler only the one inside the block is inside.
_current: ContextVar[LocalTransaction | None] = ContextVar("penstock_db_transaction", default=None)


class LocalStatements(ABC):
    """Statements of one caller, in the transaction that a subclass names."""

    def __init__(self, service: Service, caller: Caller) -> None:
        self._service = service
        self._caller = caller
        is_server = getattr(service, "has_exact_values", False)
        self._prepare = exact_parameters if is_server else stored_parameters

    async def execute(self, statement: str, parameters: Parameters = None) -> int:
        """As `DatabaseStub.execute`, awaited."""
        return cast("int", await self._run("execute", statement, parameters))

    async def fetch_all(self, statement: str, parameters: Parameters = None) -> list[Row]:
        """As `DatabaseStub.fetch_all`, awaited."""
        found = cast("Rows", await self._run("fetch_all", statement, parameters))
        rows: list[Row] = []
        for position, piece in enumerate(found.pieces):
            if position:
                # A large result is unpacked in pieces, so that the loop's other work comes in between.
                await asyncio.sleep(0)
            rows += unpack(found.columns, piece)
        return rows

    async def fetch_one(self, statement: str, parameters: Parameters = None) -> Row | None:
        """As `DatabaseStub.fetch_one`, awaited."""
        found = cast("Rows", await self._run("fetch_one", statement, parameters))
        return unpack(found.columns, found.pieces[0])[0] if found.pieces else None

    @abstractmethod
    def _number(self) -> int | None:
        """The transaction that a statement belongs to; None for one of its own."""

    async def _run(self, want: Want, statement: str, parameters: Parameters) -> object:
        check_text(statement)
        query = Query(statement, self._prepare(parameters), self._number())
        return await self._ask(want, query)

    async def _ask(self, method: str, arguments: object) -> object:
        answer: object = await self._service.call(method, Raw(wire.encode(arguments)), self._caller)
        return answer


class LocalDatabase(LocalStatements):
    """Implements `AsyncDatabaseChannel` for one delivery.

    Inside a `transaction()` block its own calls belong to that transaction too, as do those of tasks begun there.
    """

    def transaction(self) -> LocalTransaction:
        """Commit at the end of the block, roll back when it raises."""
        return LocalTransaction(self, self._service, self._caller)

    def close(self) -> None:
        """The delivery is over: roll back what was left open."""
        self._service.forget(self._caller)

    def _number(self) -> int | None:
        current = _current.get()
        return current.number if current is not None and current.database is self else None


class LocalTransaction(LocalStatements):
    """An `async with ctx.db.transaction() as tx` block; used once."""

    def __init__(self, database: LocalDatabase, service: Service, caller: Caller) -> None:
        super().__init__(service, caller)
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
        if number is not None:
            await self._ask("commit" if kind is None else "rollback", number)

    def _number(self) -> int | None:
        if self.number is None:
            raise outside_block()
        return self.number
