"""The one thread that writes, and the one connection on it; the loop hands it one piece of work after another."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from penstock.channels.db.sqlite import group
from penstock.channels.db.sqlite.database_file import DatabaseFile
from penstock.channels.db.sqlite.faults import is_broken, translated
from penstock.channels.db.sqlite.group import Finished, Outcome, Progress, Statement
from penstock.channels.db.sqlite.opening import GuardedConnection, open_writer
from penstock.channels.db.sqlite.stepping import Cursors
from penstock.channels.db.sqlite.transaction import Work
from penstock.config.database import DatabaseSection
from penstock.errors import DatabaseError

P = ParamSpec("P")
T = TypeVar("T")


class WriterThread:
    """Opened by its first work; a connection whose disk failed is closed and opened anew by the next."""

    def __init__(self, file: DatabaseFile, section: DatabaseSection, *, limit_bytes: int) -> None:
        self._file = file
        self._section = section
        self._limit_bytes = limit_bytes
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="penstock-db-writer")
        # Written by the thread; the loop only sets `stop` on it.
        self._connection: GuardedConnection | None = None
        # Of the open transaction; the thread's alone.
        self._cursors = Cursors()
        self._is_stopped = False

    async def open(self) -> bool:
        """Open the connection; False when another process holds the file. Raises `sqlite3.Error`."""
        return await self._run(lambda: self._opened() is not None)

    async def run_group(self, statements: Sequence[Statement], progress: Progress) -> Finished:
        """Run statements that share a commit. Raises `sqlite3.Error` when none of them could begin."""
        return await self._run(self._group, statements, progress)

    async def begin(self) -> bool:
        """Begin a transaction; False when another process holds the file. Raises `sqlite3.Error`."""
        return await self._run(self._begin)

    async def run(self, statement: Statement) -> tuple[Outcome, bool]:
        """Run a statement in the open transaction: how it ended, and whether the transaction goes on."""
        return await self._run(self._step, statement)

    async def perform(self, work: Work) -> tuple[Any, bool]:
        """Do something in the open transaction: its result or what it raised, and whether the transaction goes on."""
        return await self._run(self._perform, work)

    async def commit(self, last: str) -> DatabaseError | None:
        """Commit; a transaction that cannot be committed is rolled back, and the reason returned.

        `last` is what the error's words show.
        """
        return await self._run(self._commit, last)

    async def roll_back(self) -> None:
        """Roll back; harmless when the transaction is gone."""
        await self._run(self._roll_back)

    def interrupt(self, *, for_good: bool = False) -> None:
        """End the statement that runs and all that follow in its transaction; `for_good`: all that ever follow."""
        self._is_stopped |= for_good
        if self._connection is not None:
            self._connection.stop = True

    async def aclose(self) -> None:
        """Close connection and thread."""
        await self._run(self._drop)
        self._executor.shutdown()

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        # Shielded: a waiting coroutine may be cancelled, what it began is finished all the same.
        return await asyncio.shield(asyncio.wrap_future(self._executor.submit(work, *args, **kwargs)))

    def _opened(self) -> GuardedConnection | None:
        if self._connection is not None and self._connection.is_replaced:
            self._drop()
        if self._connection is None:
            self._connection = open_writer(self._file, self._section)
        if self._connection is not None:
            self._connection.stop = self._is_stopped
        return self._connection

    def _drop(self) -> None:
        self._cursors.close_all()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _group(self, statements: Sequence[Statement], progress: Progress) -> Finished:
        connection = self._opened()
        if connection is None:
            return Finished([None] * len(statements), is_locked=True)
        try:
            finished = group.run_group(
                connection, statements, limit_bytes=self._limit_bytes, progress=progress
            )
        except sqlite3.Error:
            self._drop()
            raise
        if finished.is_broken:
            self._drop()
        return finished

    def _begin(self) -> bool:
        connection = self._opened()
        if connection is None:
            return False
        try:
            return group.begin(connection)
        except sqlite3.Error:
            self._drop()
            raise

    def _step(self, statement: Statement) -> tuple[Outcome, bool]:
        connection = self._inside()
        try:
            outcome = group.run_in_savepoint(connection, statement, self._limit_bytes)
        except sqlite3.Error as error:
            self._end_failed(connection, error)
            return translated(error, statement.text), False
        return outcome, connection.in_transaction

    def _perform(self, work: Work) -> tuple[Any, bool]:
        connection = self._inside()
        try:
            result = work.function(connection, self._cursors)
        except Exception as error:  # noqa: BLE001 - its asker's answer
            if is_broken(error):
                self._drop()
                return error, False
            result = error
        if not connection.in_transaction:
            self._cursors.close_all()
        return result, connection.in_transaction

    def _commit(self, last: str) -> DatabaseError | None:
        connection = self._inside()
        try:
            self._cursors.close_all()
            if connection.is_replaced:
                self._drop()
                return connection.file.replaced("nothing of the transaction was kept")
            connection.control("COMMIT")
        except sqlite3.Error as error:
            self._end_failed(connection, error)
            return translated(error, last)
        return None

    def _roll_back(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            self._cursors.close_all()
            group.roll_back(connection)
        except sqlite3.Error:
            # Closing it rolls back too.
            self._drop()

    def _end_failed(self, connection: GuardedConnection, error: sqlite3.Error) -> None:
        if is_broken(error):
            self._drop()
        else:
            group.roll_back(connection)

    def _inside(self) -> GuardedConnection:
        connection = self._connection
        if connection is None:
            # Whoever lost it has ended the transaction; nobody asks after that.
            msg = "the database channel's transaction has no connection"
            raise RuntimeError(msg)
        return connection
