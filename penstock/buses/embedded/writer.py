"""The one thread of a bus that touches the file, and group commit.

```
  loop                                    writer thread
  submit(work) ─▶ waiting ─▶ group ─────▶ BEGIN IMMEDIATE
  submit(work) ─▶ waiting                   SAVEPOINT, work, RELEASE     one for each request
       ▲                                  COMMIT (fsync)
       └───────────── answers ◀────────── wake other processes' pipes
```

While one group is in the thread the next one gathers: under load many requests share one COMMIT, and nobody is
answered before it. What bounds it: a group takes requests up to `GROUP_COST` rows; each caller has few requests
waiting. A request that fails costs itself; when the transaction as a whole fails, each runs alone.

Work may run twice (in its group, then alone), so it touches nothing but the connection.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Final, Generic, TypeAlias, TypeVar

from penstock.buses.embedded import leases
from penstock.buses.embedded.file import execute_when_free, in_words, is_busy, is_full, open_file
from penstock.buses.embedded.thread import OneThread
from penstock.buses.embedded.wakeup import folder_of, wake
from penstock.errors import BusUnavailable

T = TypeVar("T")

#: What SQLite raises when one statement was wrong; everything else concerns the whole transaction.
OF_THE_STATEMENT: Final = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
)

#: Rows that one transaction takes, about.
GROUP_COST: Final = 4000
#: How long a group waits for another process's transaction before requests that gave up are weeded out.
LOCK_WAIT_S: Final = 0.5


@dataclass(slots=True)
class Transaction:
    """What work gets: the connection, inside a transaction that is not its own to end."""

    connection: sqlite3.Connection
    touched: set[int] = field(default_factory=set)
    """Work adds the queues in which messages became ready, or due at another time."""


Work: TypeAlias = Callable[[Transaction], T]


class Ticket(Generic[T]):
    """A request that waits for its group, and its answer."""

    def __init__(self, work: Work[T], cost: int, answer: asyncio.Future[T]) -> None:
        self.work = work
        self.cost = cost
        self.answer = answer
        self.is_uncertain = False
        """Set with an answer that is an error, when the file failed in COMMIT: the work may be in it all the same."""
        # Between the loop, which withdraws, and the thread, which begins: one of the two comes first.
        self._lock = Lock()
        self._is_begun = False
        self._is_withdrawn = False

    def withdraw(self) -> bool:
        """Stop waiting; True when the work had not begun, and never will."""
        self.answer.cancel()
        with self._lock:
            self._is_withdrawn = True
            return not self._is_begun

    def begin(self) -> bool:
        """In the writer thread, with the file locked: False when nobody wants the work any more."""
        with self._lock:
            self._is_begun = not self._is_withdrawn
            return self._is_begun


@dataclass(slots=True)
class _Ended:
    """How a group ended, on its way from the thread to the loop."""

    answers: list[Any]
    """One for each request: its result, or an exception as an `_Error`."""
    touched: set[int] = field(default_factory=set)
    commits: int = 0
    """How many it took: one, one a request where together they failed, or none."""
    is_locked: bool = False
    """Nothing was begun: another process has the file."""
    is_broken: bool = False
    """The file failed us."""
    is_uncertain: bool = False
    """It failed in COMMIT, and may have kept the transaction all the same."""


@dataclass(slots=True)
class _Error:
    error: BaseException


class Writer:
    """Runs work in group commits; `open` before, `aclose` after. Belongs to the loop that opened it."""

    def __init__(self, path: Path, prepare: Work[None], on_commit: Callable[[set[int]], None]) -> None:
        self._path = path
        self._prepare = prepare
        self._on_commit = on_commit
        self._waiting: deque[Ticket[Any]] = deque()
        self._group: asyncio.Future[None] | None = None
        self._executor: OneThread | None = None
        self._connection: sqlite3.Connection | None = None  # the thread's alone
        self._is_in_commit = False  # the same
        self._is_closing = False
        self.own_pipe: str | None = None
        """Written by the loop, read by the thread: our own pipe, which `on_commit` makes needless."""
        self.is_healthy = False
        self.group_commits: Counter[int] = Counter()
        """How many commits had so many requests; written by the loop."""

    def __repr__(self) -> str:
        state = "closed" if self._executor is None else "healthy" if self.is_healthy else "broken"
        return f"<Writer {self._path} {state}, {len(self._waiting)} waiting>"

    @property
    def is_open(self) -> bool:
        """True between `open` and `aclose`."""
        return self._executor is not None and not self._is_closing

    async def open(self) -> None:
        """Open the file in the writer thread. Raises `BusUnavailable` in words."""
        self._executor = OneThread("penstock-bus-writer")
        self._is_closing = False
        try:
            await self.submit(lambda _: None).answer
        except BaseException:
            await self.aclose()
            raise

    def submit(self, work: Work[T], *, cost: int = 1) -> Ticket[T]:
        """Ask for work; `cost` is about how many rows it writes. Its answer comes after COMMIT.

        The answer raises what the work raised; `BusUnavailable` when the file failed, and then it is not known
        whether the work is in it.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        ticket = Ticket(work, cost, answer)
        if self._executor is None or self._is_closing:
            answer.set_exception(BusUnavailable(f"the embedded bus {self._path} is closed"))
        else:
            self._waiting.append(ticket)
            self._start_group()
        return ticket

    async def run(self, work: Work[T], *, cost: int = 1) -> T:
        """Ask for work and wait for its answer."""
        return await self.submit(work, cost=cost).answer

    async def aclose(self) -> None:
        """Finish what waits, close the file, end the thread; harmless when repeated."""
        executor = self._executor
        if executor is None or self._is_closing:
            return
        self._is_closing = True
        try:
            while self._group is not None:
                await asyncio.wait([self._group])
        finally:
            self._executor = None
            self.is_healthy = False
            closing = asyncio.get_running_loop().run_in_executor(executor, self._close_connection)
            try:
                await asyncio.wait([closing])
            finally:
                executor.shutdown(wait=True)

    def _start_group(self) -> None:
        if self._group is not None or self._executor is None:
            return
        group: list[Ticket[Any]] = []
        cost = 0
        while self._waiting and cost < GROUP_COST:
            ticket = self._waiting.popleft()
            if not ticket.answer.done():
                cost += ticket.cost
                group.append(ticket)
        if group:
            loop = asyncio.get_running_loop()
            self._group = loop.create_future()
            running = loop.run_in_executor(self._executor, self._commit, group)
            running.add_done_callback(lambda done: self._answer(group, done))

    def _answer(self, group: list[Ticket[Any]], running: asyncio.Future[_Ended]) -> None:
        ended = running.result()
        if ended.commits:
            self.group_commits[len(group) if ended.commits == 1 else 1] += ended.commits
        if ended.is_locked and not self._is_closing:
            self._waiting.extendleft(reversed(group))
        else:
            self.is_healthy = not (ended.is_broken or ended.is_locked)
            for ticket, answer in zip(group, ended.answers, strict=True):
                if ticket.answer.done():
                    continue
                if isinstance(answer, _Error):
                    ticket.is_uncertain = ended.is_uncertain
                    ticket.answer.set_exception(answer.error)
                else:
                    ticket.answer.set_result(answer)
        if ended.touched:
            self._on_commit(ended.touched)
        assert self._group is not None
        self._group.set_result(None)
        self._group = None
        self._start_group()

    # From here on: in the writer thread.

    def _commit(self, group: Sequence[Ticket[Any]]) -> _Ended:
        self._is_in_commit = False
        try:
            return self._commit_together(group)
        except sqlite3.Error as error:
            words = in_words(error, self._path)
            words.__cause__ = error
            self._roll_back()
            if is_busy(error):
                return _Ended([_Error(words)] * len(group), is_locked=True)
            if is_full(error) and len(group) > 1:
                # Acks need less room than what is published with them.
                return self._commit_alone(group)
            if not is_full(error):
                # After a failed fsync the kernel may have dropped the pages: this connection's view of the file
                # is not to be trusted any more.
                self._close_connection()
            uncertain = self._is_in_commit and not is_full(error)
            return _Ended([_Error(words)] * len(group), is_broken=True, is_uncertain=uncertain)
        except Exception as error:  # noqa: BLE001 - whoever asked is told; the thread goes on
            self._roll_back()
            return _Ended([_Error(error)] * len(group), is_broken=True)

    def _commit_alone(self, group: Sequence[Ticket[Any]]) -> _Ended:
        ends = [self._commit([ticket]) for ticket in group]
        return _Ended(
            [end.answers[0] for end in ends],
            touched=set().union(*(end.touched for end in ends)),
            commits=sum(end.commits for end in ends),
            is_broken=any(end.is_broken for end in ends),
        )

    def _commit_together(self, group: Sequence[Ticket[Any]]) -> _Ended:
        connection = self._connection or self._open_connection()
        execute_when_free(connection, "BEGIN IMMEDIATE", LOCK_WAIT_S)
        transaction = Transaction(connection)
        answers = [self._run(transaction, ticket.work) if ticket.begin() else None for ticket in group]
        touched = transaction.touched
        pipes = self._pipes_to_wake(connection) if touched else []
        self._is_in_commit = True
        connection.execute("COMMIT")
        for pipe in pipes:
            wake(pipe, touched)
        return _Ended(answers, touched, commits=1)

    def _open_connection(self) -> sqlite3.Connection:
        connection = open_file(self._path)
        try:
            # From here on this thread waits for the lock itself.
            connection.execute("PRAGMA busy_timeout = 0")
            execute_when_free(connection, "BEGIN IMMEDIATE", LOCK_WAIT_S)
            self._prepare(Transaction(connection))
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _run(self, transaction: Transaction, work: Work[Any]) -> Any:
        connection = transaction.connection
        connection.execute("SAVEPOINT request")
        touched = set(transaction.touched)
        try:
            answer = work(transaction)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and not isinstance(error, OF_THE_STATEMENT):
                raise
            # It belongs to whoever asked, and is given to them.
            connection.execute("ROLLBACK TO request")
            transaction.touched = touched
            answer = _Error(error)
        connection.execute("RELEASE request")
        return answer

    def _pipes_to_wake(self, connection: sqlite3.Connection) -> list[Path]:
        folder = folder_of(self._path)
        return [folder / pipe for pipe in leases.pipes(connection) if pipe != self.own_pipe]

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                # The file is broken enough that it cannot even be left alone: open it anew.
                self._close_connection()

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
