"""Who reads through a PEP 249 cursor outside a transaction: reading connections, each lent for as long as one result is open.

They are others than `ctx.db`'s, whose calls must not wait for a worker that reads a large result slowly. What bounds
them: callers that hold none wait for one of `database.readers`; a caller that holds one gets further ones without
waiting, up to `MOST_OF_A_CALLER`, because two callers that each wait for the other's would wait for ever.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from penstock.channels.db.faults import over, stopping, withdrawn
from penstock.channels.db.sqlite.database_file import DatabaseFile
from penstock.channels.db.sqlite.faults import is_broken
from penstock.channels.db.sqlite.opening import GuardedConnection, open_reader
from penstock.channels.db.sqlite.stepping import Cursors
from penstock.channels.service import Caller
from penstock.config.database import DatabaseSection
from penstock.errors import DatabaseBusy, DatabaseError

T = TypeVar("T")

MOST_OF_A_CALLER: Final = 16


class LentReader:
    """One reading connection in one caller's hands; one thing at a time is done on it."""

    def __init__(self, caller: Caller, shown: str, connection: GuardedConnection | None) -> None:
        self.caller = caller
        self.shown = shown
        self.connection = connection
        self.cursors = Cursors()
        self.is_stopped = False
        self.is_given = False
        """Nobody's, or about to be."""
        self.running: asyncio.Future[Any] | None = None
        """What its thread is doing."""
        self.back = asyncio.Event()
        """Set once it is nobody's."""

    def stop(self) -> None:
        """End what runs on it."""
        self.is_stopped = True
        if self.connection is not None:
            self.connection.stop = True


class Lending:
    """The readers of all cursors, and who waits for one."""

    def __init__(self, file: DatabaseFile, section: DatabaseSection) -> None:
        self._file = file
        self._section = section
        self._executor = ThreadPoolExecutor(section.readers, thread_name_prefix="penstock-db-cursor")
        self._idle: list[GuardedConnection] = []
        self._lent: set[LentReader] = set()
        self._waiting: deque[tuple[Caller, asyncio.Future[None]]] = deque()
        # Turns that were given and are not taken up yet.
        self._granted = 0
        self._all_back = asyncio.Event()
        self._is_closing = False

    def __repr__(self) -> str:
        return f"<Lending of {self._file.name} [{len(self._lent)} lent, {len(self._waiting)} waiting]>"

    async def lend(self, caller: Caller, shown: str) -> LentReader:
        """A reader for the caller. Raises `DatabaseBusy` after `database.wait_s`, `DatabaseError` beyond its share."""
        if self._is_closing:
            raise stopping("nothing was read")
        held = sum(lent.caller is caller for lent in self._lent)
        if held >= MOST_OF_A_CALLER:
            msg = (
                f"{MOST_OF_A_CALLER} results of this worker are open and half read: read them to their end, or close "
                "their cursors; nothing was run"
            )
            raise DatabaseError(msg, "OperationalError")
        if not held and self._free() <= 0:
            await self._wait(caller)
        lent = LentReader(caller, shown, self._idle.pop() if self._idle else None)
        if lent.connection is not None:
            lent.connection.stop = False
        self._lent.add(lent)
        return lent

    async def run(self, lent: LentReader, work: Callable[[GuardedConnection, Cursors], T]) -> T:
        """Do something on its thread; stopped when the caller's task is cancelled. Raises what that raises."""
        if lent not in self._lent:
            raise over()

        def on_thread() -> T:
            connection = lent.connection
            if connection is not None and not lent.cursors.held and connection.is_replaced:
                lent.connection = None
                connection.close()
                connection = None
            if connection is None:
                connection = lent.connection = open_reader(self._file, self._section)
            connection.stop = lent.is_stopped
            try:
                return work(connection, lent.cursors)
            except sqlite3.Error as error:
                if is_broken(error):
                    lent.cursors.close_all()
                    lent.connection = None
                    connection.close()
                raise

        running = asyncio.wrap_future(self._executor.submit(on_thread))
        lent.running = running
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            lent.stop()
            running.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            raise

    def give(self, lent: LentReader) -> None:
        """The caller needs it no more; harmless when repeated. What runs on it is ended."""
        # Not `is_stopped`: whoever was cancelled in the middle of a fetch has stopped it, and gives it back after that.
        if lent not in self._lent or lent.is_given:
            return
        lent.is_given = True
        lent.stop()
        running = lent.running
        if running is not None and not running.done():
            running.add_done_callback(lambda _: self._close_cursors(lent))
        elif lent.cursors.held:
            self._close_cursors(lent)
        else:
            self._back(lent)

    def forget(self, caller: Caller) -> None:
        """The caller is gone: what it reads is ended, what it waits for leaves the queue."""
        for waiting, future in self._waiting:
            if waiting is caller and not future.done():
                future.set_exception(withdrawn())
        for lent in list(self._lent):
            if lent.caller is caller:
                self.give(lent)

    async def aclose(self) -> None:
        """Refuse who waits, end what runs, close all."""
        self._is_closing = True
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(stopping("nothing was read"))
        for lent in list(self._lent):
            self.give(lent)
        while self._lent:
            self._all_back.clear()
            await self._all_back.wait()
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        self._executor.shutdown()

    async def _wait(self, caller: Caller) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((caller, future))
        try:
            async with asyncio.timeout(self._section.wait_s):
                await future
            self._granted -= 1
        except BaseException as error:
            # It may have been granted in the very moment when the wait for it was given up.
            if future.done() and not future.cancelled() and future.exception() is None:
                self._granted -= 1
                self._wake()
            if isinstance(error, TimeoutError):
                raise self._busy() from error
            raise

    def _close_cursors(self, lent: LentReader) -> None:
        # On the thread: closing a statement may wait for another one's turn in the library.
        def close() -> None:
            lent.cursors.close_all()

        closing = asyncio.wrap_future(self._executor.submit(close))
        closing.add_done_callback(lambda _: self._back(lent))

    def _back(self, lent: LentReader) -> None:
        self._lent.discard(lent)
        lent.back.set()
        connection = lent.connection
        if connection is not None:
            if len(self._idle) < self._section.readers:
                self._idle.append(connection)
            else:
                connection.close()
        self._all_back.set()
        self._wake()

    def _free(self) -> int:
        return self._section.readers - len(self._lent) - self._granted

    def _wake(self) -> None:
        while self._waiting and self._free() > 0:
            _, future = self._waiting.popleft()
            if not future.done():
                self._granted += 1
                future.set_result(None)

    def _busy(self) -> DatabaseBusy:
        held = "; ".join(f"{lent.caller.name}: {lent.shown}" for lent in self._lent)
        return DatabaseBusy(
            f"waited {self._section.wait_s:g} s (database.wait_s) to read from {self._file.name}: all "
            f"{self._section.readers} readers (database.readers) have a result open ({held}); nothing was read"
        )
