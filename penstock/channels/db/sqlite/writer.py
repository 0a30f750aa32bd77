"""Who writes next: one queue for all callers, in order of arrival; statements in groups, transactions one by one.

```
run ───▶ ┌───────────────────────────┐   a group: all statements up to the next begin ──▶ WriterThread ──▶ COMMIT
begin ─▶ │ statement  statement  begin│   a begin: its caller's steps until the end   ──▶ WriterThread    answers
         └───────────────────────────┘
```
What bounds it: each worker asks one thing at a time and each async delivery is counted by its prefetch; nobody waits
longer than `database.wait_s`; a group ends after `group.BUDGET_S`, an idle transaction after
`database.transaction_idle_s`.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from penstock.channels.db.faults import stopping, withdrawn
from penstock.channels.db.sqlite.database_file import DatabaseFile
from penstock.channels.db.sqlite.faults import translated
from penstock.channels.db.sqlite.gathering import Gathering
from penstock.channels.db.sqlite.group import Outcome, Progress, Statement
from penstock.channels.db.sqlite.lock_holder import describe_writer
from penstock.channels.db.sqlite.transaction import OpenTransaction, Step, Work
from penstock.channels.db.sqlite.writer_thread import WriterThread
from penstock.channels.db.statements import is_grouped, shown
from penstock.channels.service import Caller
from penstock.config.database import DatabaseSection
from penstock.errors import ChannelError, DatabaseBusy, DatabaseError

#: So many statements share a commit at most; the time budget ends a group sooner.
MAX_GROUP: Final = 256
#: What runs when the channel is closed gets so long to end by itself.
CLOSE_GRACE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class WriterStatistics:
    """Counts since the start, and what is happening now."""

    waiting: int
    holder: str | None
    """Who writes, in words."""
    statements: int
    commits: int
    transactions: int
    group_commits: Mapping[int, int]
    """Commits of statements outside transactions, by how many they held, one alone included; `MAX_GROUP` bounds the kinds."""


class _Waiting:
    """One call in the queue: a statement, or None for a transaction to begin."""

    __slots__ = ("arrived_s", "caller", "future", "is_overdue", "is_running", "statement")

    def __init__(self, caller: Caller, statement: Statement | None) -> None:
        self.caller = caller
        self.statement = statement
        self.arrived_s = time.monotonic()
        self.future: asyncio.Future[Outcome | OpenTransaction] = asyncio.get_running_loop().create_future()
        self.is_running = False
        self.is_overdue = False

    def end(self, outcome: Outcome | OpenTransaction | ChannelError) -> None:
        if self.future.done():
            return
        if isinstance(outcome, ChannelError):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Writer:
    """The loop's side of the writer thread."""

    def __init__(self, file: DatabaseFile, section: DatabaseSection, *, limit_bytes: int) -> None:
        self._file = file
        self._section = section
        self._thread = WriterThread(file, section, limit_bytes=limit_bytes)
        self._queue: deque[_Waiting] = deque()
        self._numbers = itertools.count(1)
        # Runs while anything waits; nothing else touches the thread.
        self._turns: asyncio.Task[None] | None = None
        self._running: list[_Waiting] = []
        self._progress = Progress()
        self._transaction: OpenTransaction | None = None
        self._locked_since_s: float | None = None
        self._gathering = Gathering()
        self._is_closing = False
        self._statements = self._commits = self._transactions = 0
        self._group_commits: Counter[int] = Counter()

    def __repr__(self) -> str:
        return (
            f"<Writer of {self._file.name} [{self._waiting()} waiting, held by {self._holder() or 'nobody'}, "
            f"{self._gathering!r}]>"
        )

    def statistics(self) -> WriterStatistics:
        """Counts since the start, and who holds the writer."""
        return WriterStatistics(
            self._waiting(),
            self._holder(),
            self._statements,
            self._commits,
            self._transactions,
            self._group_commits.copy(),
        )

    async def open(self) -> None:
        """Open the file now. Raises `DatabaseBusy`, or `DatabaseError` when it cannot be opened."""
        began_s = time.monotonic()
        while True:
            try:
                if await self._thread.open():
                    return
            except sqlite3.Error as error:
                raise translated(error, f"opening {self._file.name}") from error
            if self._is_closing or time.monotonic() - began_s >= self._section.busy_timeout_s:
                raise self._locked(began_s)

    async def run(self, statement: Statement, caller: Caller) -> Outcome:
        """Run a statement in a transaction of its own, shared with others' where nobody can tell.

        Raises `DatabaseError` when it fails; `DatabaseBusy` when it could not begin within `database.wait_s`.
        """
        outcome = await self._wait(_Waiting(caller, statement))
        assert not isinstance(outcome, OpenTransaction)
        return outcome

    async def begin(self, caller: Caller) -> OpenTransaction:
        """Begin a transaction when everybody who came before has been served. Raises as `run`."""
        waiting = _Waiting(caller, None)
        try:
            transaction = await self._wait(waiting)
        except asyncio.CancelledError:
            # It may have been granted in the very moment when the wait for it was given up.
            if waiting.future.done() and not waiting.future.cancelled() and not waiting.future.exception():
                granted = waiting.future.result()
                assert isinstance(granted, OpenTransaction)
                granted.abandon()
            raise
        assert isinstance(transaction, OpenTransaction)
        return transaction

    def forget(self, caller: Caller) -> None:
        """The caller is gone: its transaction is rolled back at once, what it waits for leaves the queue."""
        self._gathering.forget(caller)
        for waiting in (*self._queue, *self._running):
            if waiting.caller is caller:
                waiting.end(withdrawn())
        if self._transaction is not None and self._transaction.caller is caller:
            self._transaction.abandon()

    async def aclose(self) -> None:
        """Refuse what waits, roll back what is open, finish the group that runs, close the file."""
        self._is_closing = True
        for waiting in self._queue:
            waiting.end(stopping())
        if self._transaction is not None:
            self._transaction.abandon()
        if self._turns is not None and not self._turns.done():
            _, late = await asyncio.wait({self._turns}, timeout=CLOSE_GRACE_S)
            if late:
                self._thread.interrupt(for_good=True)
                await asyncio.wait({self._turns})
        await self._thread.aclose()

    async def _wait(self, waiting: _Waiting) -> Outcome | OpenTransaction:
        if self._is_closing:
            raise stopping()
        timer = asyncio.get_running_loop().call_later(self._section.wait_s, self._overdue, waiting)
        self._queue.append(waiting)
        self._gathering.came(waiting.caller)
        if self._turns is None or self._turns.done():
            self._turns = asyncio.create_task(self._take_turns(), name="penstock-db-writer")
        try:
            return await waiting.future
        finally:
            timer.cancel()

    async def _take_turns(self) -> None:
        while self._queue:
            # A transaction shares its commit with nobody, so it waits for nobody.
            if self._queue[0].statement is not None and len(self._queue) < MAX_GROUP:
                await self._gathering.wait()
            if self._queue[0].future.done():
                self._queue.popleft()
                continue
            try:
                if self._queue[0].statement is None:
                    await self._run_transaction(self._queue.popleft())
                else:
                    await self._run_group(self._take_group())
            except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
                self._fail_all(error)
            finally:
                self._running = []

    def _take_group(self) -> list[_Waiting]:
        group = [self._queue.popleft()]
        if group[0].statement is not None and is_grouped(group[0].statement.text):
            while self._queue and len(group) < MAX_GROUP:
                statement = self._queue[0].statement
                if statement is None or not is_grouped(statement.text):
                    break
                group.append(self._queue.popleft())
        return [waiting for waiting in group if not waiting.future.done()]

    async def _run_group(self, group: list[_Waiting]) -> None:
        self._start(group)
        statements = [waiting.statement for waiting in group if waiting.statement is not None]
        began_s = time.monotonic()
        finished = await self._thread.run_group(statements, self._progress)
        took_s = time.monotonic() - began_s
        self._note_lock(is_locked=finished.is_locked)
        self._commits += finished.commits
        held = sum(not isinstance(outcome, DatabaseError | None) for outcome in finished.outcomes)
        if held:
            # More than one commit: each statement had its own. One in which all failed kept nothing.
            self._group_commits[held if finished.commits == 1 else 1] += finished.commits
        for waiting, outcome in zip(group, finished.outcomes, strict=True):
            if outcome is not None:
                self._statements += 1
                waiting.end(outcome)
        self._put_back([w for w, outcome in zip(group, finished.outcomes, strict=True) if outcome is None])
        answered = [
            w.caller for w, outcome in zip(group, finished.outcomes, strict=True) if outcome is not None
        ]
        self._gathering.answered(answered, waiting=len(self._queue), took_s=took_s)

    async def _run_transaction(self, waiting: _Waiting) -> None:
        self._start([waiting])
        has_begun = await self._thread.begin()
        self._note_lock(is_locked=not has_begun)
        if not has_begun:
            self._put_back([waiting])
            return
        if waiting.future.done() or self._is_closing:
            waiting.end(stopping())
            await self._thread.roll_back()
            return
        transaction = OpenTransaction(
            next(self._numbers), waiting.caller, time.monotonic(), on_abandoned=self._thread.interrupt
        )
        self._transaction = transaction
        waiting.end(transaction)
        try:
            transaction.end(await self._follow(transaction))
        except BaseException as error:
            transaction.end(f"it was rolled back: {type(error).__name__}: {error}")
            raise
        finally:
            self._transaction = None

    async def _follow(self, transaction: OpenTransaction) -> str:
        """Carry out its steps until it is over; returns why it is."""
        idle_s = self._section.transaction_idle_s
        while True:
            try:
                step = await transaction.next_step(idle_s=idle_s)
            except TimeoutError:
                await self._thread.roll_back()
                return (
                    f"it was rolled back because it stood {idle_s:g} s without a statement "
                    "(database.transaction_idle_s), and everybody who writes waits for it; nothing of it was kept"
                )
            if step is None:
                await self._thread.roll_back()
                return "it was rolled back because its holder is gone"
            why = await self._carry_out(step, transaction)
            if why is not None:
                return why

    async def _carry_out(self, step: Step, transaction: OpenTransaction) -> str | None:
        if step.ask == "rollback":
            await self._thread.roll_back()
            step.end(0)
            return "it was rolled back"
        if step.ask == "commit":
            failed = await self._thread.commit(transaction.last_statement)
            self._commits += failed is None
            step.end(0 if failed is None else failed)
            return (
                "it was committed" if failed is None else "it could not be committed; nothing of it was kept"
            )
        self._statements += 1
        outcome: object
        if isinstance(step.ask, Work):
            outcome, goes_on = await self._thread.perform(step.ask)
            text = step.ask.shown
        else:
            outcome, goes_on = await self._thread.run(step.ask)
            text = shown(step.ask.text)
        step.end(outcome)
        return None if goes_on else f"the database rolled it back with {text}; nothing of it was kept"

    def _start(self, group: list[_Waiting]) -> None:
        self._running = group
        self._progress = Progress()
        for waiting in group:
            waiting.is_running = True

    def _put_back(self, group: list[_Waiting]) -> None:
        """Those that could not run stand at the front again, unless they have waited long enough."""
        now_s = time.monotonic()
        for waiting in reversed(group):
            waiting.is_running = False
            since_s = max(waiting.arrived_s, self._locked_since_s or 0.0)
            if self._is_closing:
                waiting.end(stopping())
            elif self._locked_since_s is not None and now_s - since_s >= self._section.busy_timeout_s:
                waiting.end(self._locked(waiting.arrived_s))
            elif waiting.is_overdue:
                self._overdue(waiting)
            if not waiting.future.done():
                self._queue.appendleft(waiting)

    def _note_lock(self, *, is_locked: bool) -> None:
        if not is_locked:
            self._locked_since_s = None
        elif self._locked_since_s is None:
            self._locked_since_s = time.monotonic()

    def _overdue(self, waiting: _Waiting) -> None:
        if waiting.is_running:
            # What has begun may be committed any moment; only its return to the queue makes it late.
            waiting.is_overdue = True
        elif self._locked_since_s is not None:
            waiting.end(self._locked(waiting.arrived_s))
        else:
            waiting.end(self._busy())

    def _fail_all(self, error: Exception) -> None:
        for waiting in self._running:
            waiting.end(translated(error, waiting.statement.text if waiting.statement else "begin"))

    def _waiting(self) -> int:
        return sum(not waiting.future.done() for waiting in self._queue)

    def _holder(self) -> str | None:
        now_s = time.monotonic()
        if (transaction := self._transaction) is not None:
            return (
                f"{transaction.caller.name}, in a transaction open for {now_s - transaction.opened_s:.1f} s "
                f"(last statement: {transaction.last_statement})"
            )
        if not self._running:
            return None
        if self._locked_since_s is not None:
            return f"{describe_writer(self._file.location)}, for {now_s - self._locked_since_s:.1f} s"
        current = self._running[min(self._progress.index, len(self._running) - 1)]
        what = shown(current.statement.text) if current.statement is not None else "a transaction that begins"
        return f"{current.caller.name}, running for {now_s - self._progress.since_s:.1f} s: {what}"

    def _busy(self) -> DatabaseBusy:
        return DatabaseBusy(
            f"waited {self._section.wait_s:g} s (database.wait_s) to write to {self._file.name}, which is held by "
            f"{self._holder() or 'nobody for long: too many write at once'}; nothing of the statement was run"
        )

    def _locked(self, since_s: float) -> DatabaseBusy:
        return DatabaseBusy(
            f"waited {time.monotonic() - since_s:.1f} s (database.busy_timeout_s, database.wait_s) to write to "
            f"{self._file.name}: {describe_writer(self._file.location)} holds it in a transaction that writes (a "
            "handler with ctx.connection, or a program of yours); nothing of the statement was run"
        )
