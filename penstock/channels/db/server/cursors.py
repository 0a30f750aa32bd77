"""The loop's end of PEP 249 on a server: statements as their driver takes them, and the results that workers read slowly."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Final

from penstock.channels.db.calls import Chunk, End, Failed, Fetch, Ran, Run
from penstock.channels.db.faults import over
from penstock.channels.db.server.driver import Driver, Mode
from penstock.channels.db.server.faults import DriverFailure, failed, translated
from penstock.channels.db.server.pool import Pool
from penstock.channels.db.server.results import OpenResult
from penstock.channels.db.server.running import Left, Runner, Statement
from penstock.channels.db.server.transactions import Transactions
from penstock.channels.db.server.work import Work, Works
from penstock.channels.service import Caller
from penstock.errors import DatabaseError

#: What a column's name and description take of a frame, at most.
_COLUMN_BYTES: Final = 512


class _Held:
    """A worker's result that is not read to its end."""

    def __init__(self, left: Left, caller: Caller) -> None:
        self.left = left
        self.caller = caller
        self.is_busy = False
        self.is_forgotten = False


class ServerCursors:
    """Cursors of all callers."""

    def __init__(
        self,
        driver: Driver,
        pool: Pool,
        runner: Runner,
        works: Works,
        transactions: Transactions,
        *,
        limit_bytes: int,
    ) -> None:
        self._driver = driver
        self._pool = pool
        self._runner = runner
        self._works = works
        self._transactions = transactions
        self._limit_bytes = limit_bytes
        self._numbers = itertools.count(1)
        self._held: dict[int, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    async def run(self, asked: Run, caller: Caller) -> Ran | Failed:
        """Run a statement. Raises `ChannelClosed`; whatever else happens is the answer."""
        begun: list[int] = []
        try:
            await self.drop(asked.dropped, caller)
            statement = Statement(asked.statement, asked.parameters, asked.is_many, keeps=True)
            mode = Mode(asked.isolation, asked.is_read_only, asked.is_deferrable) if asked.begins else None
            return await self.open(statement, caller, asked.transaction, mode, begun)
        except Exception as failure:  # noqa: BLE001 - what is no fault of the statement is raised again in there
            number = asked.transaction or (begun[0] if begun else None)
            return self._failed(failure, number)

    async def open(
        self,
        statement: Statement,
        caller: Caller,
        number: int | None,
        mode: Mode | None = None,
        begun: list[int] | None = None,
    ) -> Ran:
        """As `run`; what goes wrong is raised. What `mode` has begun is added to `begun` in any case."""
        if number is not None:
            run = partial(self._inside, number, statement)
        elif mode is not None:
            run = partial(self._begun, statement, mode, [] if begun is None else begun)
        else:
            run = partial(self._alone, statement)
        return await self._works.run(caller, run)

    async def fetch(self, asked: Fetch, caller: Caller) -> Chunk | Failed:
        """More rows. Raises `ChannelClosed`."""
        held = self._held.get(asked.cursor)
        transaction = None if held is None else held.left.transaction
        try:
            if held is None or held.caller is not caller or held.is_busy:
                raise over()  # noqa: TRY301 - answered below like every refusal
            return await self._works.run(caller, partial(self._fetched, asked.cursor, held))
        except Exception as failure:  # noqa: BLE001 - see `run`
            return self._failed(failure, None if transaction is None else transaction.number)

    async def drop(self, numbers: list[int], caller: Caller) -> None:
        """Close cursors; harmless for those that are closed.

        Raises `DatabaseError` when a statement outside a transaction fails with the rows that nobody wanted.
        """
        for number in numbers:
            held = self._held.get(number)
            if held is None or held.caller is not caller or held.is_busy:
                continue
            del self._held[number]
            try:
                await self._works.run(caller, partial(self._dropped, held))
            except (DatabaseError, DriverFailure) as failure:
                if held.left.transaction is None:
                    raise translated(failure, "the statement of a result that was closed") from None
                # The next statement hears of it.

    async def end(self, asked: End, caller: Caller) -> Failed | None:
        """Commit or roll back; harmless when a rollback finds it ended."""
        try:
            await self.finish(asked.transaction, caller, is_commit=asked.is_commit)
        except Exception as failure:  # noqa: BLE001 - see `run`
            return self._failed(failure, asked.transaction)
        return None

    async def finish(self, number: int, caller: Caller, *, is_commit: bool) -> None:
        """As `end`; what goes wrong is raised."""
        try:
            if is_commit or self._transactions.is_open(number):
                await self._works.run(caller, partial(self._finished, number, is_commit))
        finally:
            self._transactions.forget_over(number)

    def forget(self, caller: Caller | None = None) -> None:
        """The caller is gone, or its message over: nothing of it stays open; None for all."""
        for number, held in list(self._held.items()):
            if caller is None or held.caller is caller:
                del self._held[number]
                held.left.lent.is_spoilt = True
                if held.is_busy:
                    held.is_forgotten = True
                elif held.left.transaction is None:
                    self._works.in_background(self._pool.give(held.left.lent))

    async def _alone(self, statement: Statement, work: Work) -> Ran:
        (opened, chunk), left = await self._runner.alone(statement, self._first, work)
        return self._ran(opened, chunk, left, None, work.caller)

    async def _inside(self, number: int, statement: Statement, work: Work) -> Ran:
        with self._transactions.entered(number, work.caller) as transaction:
            (opened, chunk), left = await self._runner.inside(transaction, statement, self._first, work)
            return self._ran(opened, chunk, left, number, work.caller)

    async def _begun(self, statement: Statement, mode: Mode, begun: list[int], work: Work) -> Ran:
        transaction = self._transactions.open(work.caller, mode)
        try:
            return await self._inside(transaction.number, statement, work)
        finally:
            if transaction.lent is None:
                # Refused, or there was no connection for it.
                self._transactions.close(transaction)
            else:
                begun.append(transaction.number)

    async def _fetched(self, number: int, held: _Held, work: Work) -> Chunk:
        use = partial(OpenResult.chunk, limit_bytes=self._limit_bytes)
        transaction = held.left.transaction
        held.is_busy = True
        is_over = True
        try:
            if transaction is None:
                chunk = await self._runner.more(held.left, use, work)
            else:
                with self._transactions.entered(transaction.number, work.caller):
                    chunk = await self._runner.more(held.left, use, work)
            is_over = chunk.is_last
        finally:
            held.is_busy = False
            if is_over or held.is_forgotten:
                self._held.pop(number, None)
                if transaction is None:
                    await self._runner.give_up(held.left, work)
        return chunk

    async def _dropped(self, held: _Held, work: Work) -> None:
        transaction = held.left.transaction
        if transaction is None:
            await self._runner.give_up(held.left, work)
        elif self._transactions.is_open(transaction.number):
            with self._transactions.entered(transaction.number, work.caller):
                await self._runner.give_up(held.left, work)

    async def _first(self, opened: OpenResult) -> tuple[OpenResult, Chunk]:
        if opened.result.columns is None:
            return opened, Chunk([], is_last=True, row_count=opened.result.row_count)
        room_bytes = self._limit_bytes - _COLUMN_BYTES * len(opened.result.columns)
        return opened, await opened.chunk(room_bytes)

    def _ran(
        self, opened: OpenResult, chunk: Chunk, left: Left | None, transaction: int | None, caller: Caller
    ) -> Ran:
        number: int | None = None
        if left is not None:
            number = next(self._numbers)
            self._held[number] = _Held(left, caller)
        result = opened.result
        return Ran(
            result.columns, chunk, number, result.last_row_id, 0, transaction, result.types(), result.status
        )

    async def _finished(self, number: int, is_commit: bool, work: Work) -> None:  # noqa: FBT001 - positional for `partial`
        # Whoever has asked for it may go: once it has begun, it is carried out.
        work.is_let_through = True
        with self._transactions.entered(number, work.caller) as transaction:
            for cursor, held in list(self._held.items()):
                if held.left.transaction is transaction:
                    del self._held[cursor]
            if not is_commit:
                self._works.end_inside(transaction)
            await self._runner.end(transaction, is_commit=is_commit)

    def _failed(self, failure: Exception, number: int | None) -> Failed:
        still = number if self._transactions.is_open(number) else None
        return failed(failure, self._driver, transaction=still, was_inside=number is not None)
