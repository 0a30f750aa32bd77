"""One call's work on a server's connection: when nobody waits for it any more, the server ends it, and not we.

A driver whose coroutine is cancelled in the middle leaves a statement running on the server, and a connection of
which nobody knows what is on it. So the work is never cancelled: the server is told to end the connection, the work
fails by that, and its connection is thrown away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from penstock.channels.db.server.driver import Driver
from penstock.channels.db.server.faults import GIVEN_UP
from penstock.channels.db.server.log import ServerLog
from penstock.channels.db.server.patience import within
from penstock.channels.db.server.pool import Lent
from penstock.channels.service import Caller
from penstock.errors import DatabaseError

if TYPE_CHECKING:
    from penstock.channels.db.server.transactions import Transaction

T = TypeVar("T")

#: A server that was told gets so long before the work is cancelled after all.
_PATIENCE_S: Final = 10.0


class Work:
    """What one call does; `lent` is its connection, while it has one."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.lent: Lent | None = None
        self.transaction: Transaction | None = None
        """Whose turn it has, or waits for."""
        self.is_ending = False
        self.is_let_through = False
        """True for a commit: once it has begun, nobody but the server says how it ends."""
        self.task: asyncio.Task[Any] | None = None

    @contextmanager
    def on(self, lent: Lent) -> Iterator[None]:
        """In here the server is told when nobody waits any more; then the connection is nobody's: who came next would be ended."""
        self.lent = lent
        try:
            yield
        finally:
            self.lent = None
            if self.is_ending:
                lent.is_spoilt = True


class Works:
    """The works that run; the server is told through the driver to end them."""

    def __init__(self, driver: Driver, log: ServerLog) -> None:
        self._driver = driver
        self._log = log
        self._running: set[Work] = set()
        self._background: set[asyncio.Task[None]] = set()

    async def run(self, caller: Caller, make: Callable[[Work], Coroutine[Any, Any, T]]) -> T:
        """The result of the work. A cancelled wait ends it on the server."""
        work = Work(caller)
        task = work.task = asyncio.create_task(make(work), name="penstock-db-server")
        self._running.add(work)
        task.add_done_callback(lambda task: self._ended(work, task))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self.end(work)
            waiting = asyncio.current_task()
            if waiting is not None and not waiting.cancelling():
                # The work was given up, and not who waits for it.
                msg = f"the statement was given up before it had a connection: {GIVEN_UP}; nothing was run"
                raise DatabaseError(msg, "OperationalError") from None
            raise

    def end(self, work: Work) -> None:
        """Nobody waits for it."""
        if not work.is_ending and work.task is not None and not work.task.done():
            work.is_ending = True
            self.in_background(self._end(work, work.task))

    def forget(self, caller: Caller) -> None:
        """The caller is gone."""
        for work in list(self._running):
            if work.caller is caller:
                self.end(work)

    def end_inside(self, transaction: Transaction) -> None:
        """It is rolled back: nobody waits for what is still under way in it."""
        for work in list(self._running):
            if work.transaction is transaction:
                self.end(work)

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that `wait` waits for."""
        task = asyncio.create_task(work, name="penstock-db-ending")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def wait(self) -> None:
        """End what runs; returns when nothing does, or the server does not answer."""
        for work in list(self._running):
            self.end(work)
        while self._background:
            _, late = await asyncio.wait(self._background, timeout=3 * _PATIENCE_S)
            if late:
                # A frozen server must not keep the service from ending.
                self._log.left_behind(len(late), 3 * _PATIENCE_S)
                return

    async def _end(self, work: Work, task: asyncio.Task[Any]) -> None:
        lent = work.lent
        # A connection that is closed has no number, and nothing that could be ended.
        number = (
            None if lent is None or self._driver.is_closed(lent.raw) else self._driver.number_of(lent.raw)
        )
        if lent is not None and number is not None:
            try:
                await within(_PATIENCE_S, self._driver.kill(lent.raw))
            except Exception as error:  # noqa: BLE001 - told; what follows is done whatever came
                self._log.kill_failed(work.caller, number, error)
        elif lent is None and not work.is_let_through:
            # It waits for a connection.
            task.cancel()
        _, late = await asyncio.wait({task}, timeout=_PATIENCE_S)
        if late:
            self._log.not_ended(work.caller, number, _PATIENCE_S)
            task.cancel()
            await asyncio.wait({task}, timeout=_PATIENCE_S)

    def _ended(self, work: Work, task: asyncio.Task[Any]) -> None:
        self._running.discard(work)
        if not task.cancelled():
            # Should nobody wait for it, nobody is left to hear of it.
            task.exception()
