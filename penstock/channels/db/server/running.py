"""One statement on a server's connection: alone, committed by itself, or inside its caller's transaction.

```
alone ──▶ a connection of the pool ─▶ statement ─▶ what the caller wants of its rows ─▶ back to the pool
inside ─▶ the transaction's own ────▶ statement ─▶ what the caller wants of its rows ─▶ the rest is passed over
```
With `keeps`, rows that are left stay on the wire, and the connection with them, until somebody asks for more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from penstock.channels.db.server.commits import commits
from penstock.channels.db.server.driver import USUAL, Driver
from penstock.channels.db.server.faults import GIVEN_UP, DriverFailure
from penstock.channels.db.server.log import ServerLog
from penstock.channels.db.server.pool import Lent, Pool
from penstock.channels.db.server.results import OpenResult
from penstock.channels.db.server.texts import Texts
from penstock.channels.db.server.transactions import Transaction, Transactions
from penstock.channels.db.server.work import Work
from penstock.channels.db.words import words_of
from penstock.channels.service import Caller
from penstock.errors import DatabaseError

T = TypeVar("T")
Use: TypeAlias = Callable[[OpenResult], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class Statement:
    """In the driver's paramstyle."""

    text: str
    parameters: Any = None
    is_many: bool = False
    """`parameters` are a list of them."""
    is_whole: bool = False
    """Of many none is kept when one fails, inside a transaction too."""
    keeps: bool = False
    """What is not read stays to be fetched."""
    may_cut: bool = False
    """Outside a transaction nobody counts on its effects when its rows are not read to their end."""


@dataclass(frozen=True, slots=True)
class Left:
    """A result that is not read to its end, and where it is."""

    opened: OpenResult
    lent: Lent
    transaction: Transaction | None
    may_cut: bool = False
    """As its statement's."""


class Runner:
    """Runs statements. Raises `DriverFailure`, and `DatabaseError` for what is refused here."""

    def __init__(
        self, driver: Driver, pool: Pool, transactions: Transactions, texts: Texts, log: ServerLog
    ) -> None:
        self._driver = driver
        self._log = log
        self._pool = pool
        self._texts = texts
        self._transactions = transactions

    async def alone(self, statement: Statement, use: Use[T], work: Work) -> tuple[T, Left | None]:
        """What `use` makes of the result, and what is left of it."""
        ruling = await self._texts.ruling(statement.text, in_transaction=False)
        lent = await self._lend(work.caller, work)
        left: Left | None = None
        try:
            with self._noting(lent, work), work.on(lent):
                await self._driver.prepare(lent.raw, USUAL if statement.is_many else None, is_begun=False)
                lent.is_spoilt |= ruling.leaves
                opened = await self._send(lent, statement)
                try:
                    answer = await use(opened)
                except BaseException:
                    await self._settle(lent, opened)
                    raise
                if statement.keeps and not opened.is_done:
                    left = Left(opened, lent, None, statement.may_cut)
                else:
                    # The server is done with the statement when the last row is read: until then it may fail, and what
                    # it has changed is not committed.
                    await opened.pass_all()
                if statement.is_many:
                    await self._driver.commit(lent.raw)
            # Should its caller have gone meanwhile, nobody asks for the rest.
            left = None if work.is_ending else left
        finally:
            if left is None:
                await self._pool.give(lent)
        return answer, left

    async def inside(
        self, transaction: Transaction, statement: Statement, use: Use[T], work: Work
    ) -> tuple[T, Left | None]:
        """As `alone`, in a transaction that its caller has entered."""
        ruling = await self._texts.ruling(statement.text, in_transaction=True)
        left: Left | None = None
        async with self._turn(transaction, work, is_new=True) as lent:
            if self._driver.is_undone(lent.raw) and commits(statement.text):
                raise _undone()
            is_begun, transaction.is_begun = transaction.is_begun, True
            await self._driver.prepare(lent.raw, transaction.mode, is_begun=is_begun)
            lent.is_spoilt |= ruling.leaves
            opened = transaction.result = await self._send(lent, statement, is_whole=statement.is_whole)
            answer = await use(opened)
            if statement.keeps and not opened.is_done:
                left = Left(opened, lent, transaction)
            else:
                await opened.pass_all()
        return answer, left

    async def more(self, left: Left, use: Use[T], work: Work) -> T:
        """More of a result, in a transaction that its caller has entered, or alone; it stays with whoever holds it."""
        if left.transaction is None:
            with self._noting(left.lent, work), work.on(left.lent):
                return await use(left.opened)
        async with self._turn(left.transaction, work):
            return await use(left.opened)

    async def give_up(self, left: Left, work: Work) -> None:
        """Nobody reads the rest: its connection is free again."""
        if left.transaction is not None:
            await self.more(left, OpenResult.pass_all, work)
            return
        try:
            with self._noting(left.lent, work), work.on(left.lent):
                if left.may_cut:
                    await self._settle(left.lent, left.opened)
                else:
                    await left.opened.pass_all()
        except BaseException:
            left.lent.is_spoilt = True
            raise
        finally:
            await self._pool.give(left.lent)

    async def end(self, transaction: Transaction, *, is_commit: bool) -> None:
        """Commit or roll back a transaction that its caller has entered; its connection is free after it."""
        async with transaction.turn:
            if not is_commit and not self._transactions.is_open(transaction.number):
                # A statement of it was ended, and the transaction with it.
                return
            self._check(transaction)
            self._transactions.close(transaction)
            lent = transaction.lent
            if lent is None:
                return
            try:
                with self._noting(lent, is_commit=is_commit):
                    await self._pass_rest(lent, transaction.result, all_of_it=is_commit)
                    if is_commit and self._driver.is_undone(lent.raw):
                        raise _undone()
                    if is_commit and self._driver.in_transaction(lent.raw):
                        await self._driver.commit(lent.raw)
            finally:
                await self._pool.give(lent)

    @contextmanager
    def _noting(self, lent: Lent, work: Work | None = None, *, is_commit: bool = False) -> Iterator[None]:
        try:
            yield
        except RecursionError as error:
            raise _too_deep() from error
        except Exception as error:
            if not self._driver.is_error(error):
                raise
            is_gone = self._driver.is_gone(lent.raw, error)
            is_ended = work is not None and work.is_ending
            if is_gone:
                lent.is_spoilt = True
                if not is_ended:
                    self._pool.note_lost(lent.caller, error, is_commit=is_commit)
            raise DriverFailure(error, is_gone=is_gone, is_ended=is_ended) from error

    @asynccontextmanager
    async def _turn(
        self, transaction: Transaction, work: Work, *, is_new: bool = False
    ) -> AsyncIterator[Lent]:
        work.transaction = transaction
        async with transaction.turn:
            self._check(transaction)
            if is_new and transaction.result is not None and not transaction.result.is_read:
                raise _unread()
            if transaction.lent is None:
                transaction.lent = await self._lend(work.caller, work)
            lent = transaction.lent
            try:
                with self._noting(lent, work), work.on(lent):
                    yield lent
            except Exception as failure:
                await self._after(transaction, lent, failure)
                raise

    async def _after(self, transaction: Transaction, lent: Lent, failure: Exception) -> None:
        """What has become of the transaction by a statement that failed."""
        opened = transaction.result
        if not isinstance(failure, DriverFailure):
            if opened is not None:
                await self._pass_refused(transaction, lent, opened)
            return
        if failure.is_gone:
            why = f"its connection to the server was lost ({failure})"
            if failure.is_ended:
                why = f"a statement of it was ended on the server: {GIVEN_UP}; nothing of it was kept"
            self._transactions.abandon(transaction, why)
            return
        try:
            is_undone = await self._driver.was_undone(lent.raw, failure.error)
        except Exception as second:
            if not self._driver.is_error(second):
                raise
            lent.is_spoilt = is_undone = True
        if is_undone:
            self._transactions.abandon(
                transaction, f"the server has rolled it back ({words_of(failure.error)})"
            )

    async def _pass_refused(self, transaction: Transaction, lent: Lent, opened: OpenResult) -> None:
        """Refused by us amid its rows, which stand in the way of the next statement."""
        try:
            await opened.pass_all()
        except Exception as error:
            if not self._driver.is_error(error):
                raise
            lent.is_spoilt = True
            self._transactions.abandon(
                transaction, f"the rest of a result could not be read ({words_of(error)})"
            )

    async def _lend(self, caller: Caller, work: Work) -> Lent:
        if caller.is_worker and self._transactions.held_idle_by(caller) >= self._pool.size:
            raise _own_connections(self._pool.size)
        lent = await self._pool.lend(caller)
        if work.is_ending:
            await self._pool.give(lent)
            raise asyncio.CancelledError
        return lent

    async def _send(self, lent: Lent, statement: Statement, *, is_whole: bool = False) -> OpenResult:
        text, parameters = statement.text, statement.parameters
        if statement.is_many:
            return OpenResult(await self._driver.run_many(lent.raw, text, parameters, is_whole=is_whole))
        return OpenResult(await self._driver.run(lent.raw, text, parameters))

    async def _settle(self, lent: Lent, opened: OpenResult) -> None:
        """Have the connection back; it is closed when that costs too much, or fails, and raises nothing: an error may be on its way."""
        try:
            if await opened.pass_little() or await self._driver.cut(lent.raw):
                return
        except Exception as error:  # noqa: BLE001 - told, but for the end of the connection, which is told as such
            if not (self._driver.is_error(error) and self._driver.is_gone(lent.raw, error)):
                self._log.rest_failed(lent.caller, error)
        lent.is_spoilt = True

    async def _pass_rest(self, lent: Lent, opened: OpenResult | None, *, all_of_it: bool) -> None:
        if opened is None or opened.is_read:
            return
        if all_of_it:
            await opened.pass_all()
        elif not await opened.pass_little():
            # A server whose client has gone rolls back too.
            lent.is_spoilt = True

    def _check(self, transaction: Transaction) -> None:
        if not self._transactions.is_open(transaction.number):
            raise self._transactions.over(transaction.number, transaction.caller)


def _unread() -> DatabaseError:
    msg = (
        "another statement while a result of the same transaction is open, whose rows are still on the wire: read it to its "
        "end or close it first; nothing was run"
    )
    return DatabaseError(msg, "ProgrammingError")


def _own_connections(size: int) -> DatabaseError:
    msg = (
        f"this worker's own transactions hold all {size} connections (database.server_connections), and it would wait for "
        "itself: set two for each worker that calls ctx.db beside ctx.connection, or use one of the two in a message; "
        "nothing was run"
    )
    return DatabaseError(msg, "OperationalError")


def _too_deep() -> DatabaseError:
    msg = (
        "a value is nested too deeply to be read or written (JSON, or an array); the statement may have run, and outside a "
        "transaction what it changed is committed then"
    )
    return DatabaseError(msg, "DataError")


def _undone() -> DatabaseError:
    msg = (
        "the transaction cannot be committed: the server takes nothing more of it after an error, so it was rolled back. "
        "Let the error through, or put the statement that may fail into a savepoint"
    )
    return DatabaseError(msg, "InFailedSqlTransaction")
