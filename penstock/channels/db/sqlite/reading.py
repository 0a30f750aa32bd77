"""Who reads: a few connections that SQLite keeps from writing, lent to one call at a time, in order of arrival.

What bounds it: `database.readers` calls at once; a call waits at most `database.wait_s` for its turn.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from typing import Any, cast

import aiosqlite

from penstock.channels.db.faults import stopping, withdrawn
from penstock.channels.db.rows import Rows, pack
from penstock.channels.db.sqlite.database_file import DatabaseFile
from penstock.channels.db.sqlite.faults import is_broken
from penstock.channels.db.sqlite.group import Statement
from penstock.channels.db.sqlite.opening import GuardedConnection, open_reader
from penstock.channels.db.statements import shown
from penstock.channels.service import Caller
from penstock.config.database import DatabaseSection
from penstock.errors import DatabaseBusy


class ReadingConnection(GuardedConnection):
    """Its cursors pack their rows on its own thread: one hop a query, and nothing to encode on the loop."""

    first_only = False
    limit_bytes = 0

    def execute(self, statement: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run a statement; the cursor's `fetchall` gives `Rows`."""
        return self.cursor(_PackingCursor).execute(statement, parameters)


class _PackingCursor(sqlite3.Cursor):
    def fetchall(self) -> Any:
        connection = cast("ReadingConnection", self.connection)
        try:
            return pack(self, first_only=connection.first_only, limit_bytes=connection.limit_bytes)
        finally:
            # A cursor that was half read would keep its snapshot, and the log from being checkpointed.
            self.close()


class Reader:
    """One reading connection; opened when first needed."""

    def __init__(self, file: DatabaseFile, section: DatabaseSection, *, limit_bytes: int) -> None:
        self._file = file
        self._section = section
        self._limit_bytes = limit_bytes
        self._proxy: aiosqlite.Connection | None = None
        self._connection: ReadingConnection | None = None
        self._is_stopped = False
        self.caller: Caller | None = None
        self.held_by: str | None = None
        """Who reads what, in words."""
        self.since_s = 0.0

    async def run(self, statement: Statement) -> Rows:
        """Run a statement. Raises `sqlite3.Error`, SQLITE_READONLY when it would write; none of it was run then."""
        if self._connection is not None and self._connection.is_replaced:
            await self.aclose()
        if self._proxy is None:
            self._proxy = await self._open()
        assert self._connection is not None
        self._connection.stop = self._is_stopped
        self._connection.first_only = statement.want != "fetch_all"
        rows = await self._proxy.execute_fetchall(statement.text, statement.parameters or ())
        return cast("Rows", rows)

    def lend(self, caller: Caller, statement: Statement) -> None:
        """It is the caller's until it is given back."""
        self.caller, self.held_by = caller, f"{caller.name}: {shown(statement.text)}"
        self.since_s, self._is_stopped = time.monotonic(), False

    def stop(self) -> None:
        """End the statement that runs, or that has yet to begin."""
        self._is_stopped = True
        if self._connection is not None:
            self._connection.stop = True

    async def aclose(self) -> None:
        """Close it after what runs; the next `run` opens it anew."""
        proxy, self._proxy, self._connection = self._proxy, None, None
        if proxy is not None:
            await proxy.close()

    async def _open(self) -> aiosqlite.Connection:
        # At DEBUG it would log every statement with its parameters, which may be secret.
        logging.getLogger("aiosqlite").setLevel(logging.INFO)

        def connect() -> ReadingConnection:
            connection = open_reader(self._file, self._section, ReadingConnection)
            assert isinstance(connection, ReadingConnection)
            connection.limit_bytes = self._limit_bytes
            self._connection = connection
            return connection

        return await aiosqlite.Connection(connect, iter_chunk_size=64)


class Readers:
    """The readers, and who waits for one."""

    def __init__(self, file: DatabaseFile, section: DatabaseSection, *, limit_bytes: int) -> None:
        self._file = file
        self._section = section
        self._all = [Reader(file, section, limit_bytes=limit_bytes) for _ in range(section.readers)]
        self._idle = list(self._all)
        self._waiting: deque[tuple[Caller, asyncio.Future[Reader]]] = deque()
        self._readings: set[asyncio.Task[Rows]] = set()
        self._is_closing = False

    def __repr__(self) -> str:
        return f"<Readers of {self._file.name} [{len(self._idle)} of {len(self._all)} idle, {len(self._waiting)} waiting]>"

    async def run(self, statement: Statement, caller: Caller) -> Rows:
        """Run a statement on the next free reader.

        Raises `sqlite3.Error` (see `Reader.run`); `DatabaseBusy` when no reader was free within `database.wait_s`.
        """
        reader = await self._take(caller)
        reader.lend(caller, statement)
        # Its own task, because the thread goes on reading when the caller's is cancelled.
        reading = asyncio.create_task(self._read(reader, statement), name="penstock-db-reader")
        self._readings.add(reading)
        reading.add_done_callback(self._readings.discard)
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            reader.stop()
            # Nobody is left to hear how it ends.
            reading.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            raise

    def forget(self, caller: Caller) -> None:
        """The caller is gone: what it reads is ended, what it waits for leaves the queue."""
        for waiting, future in self._waiting:
            if waiting is caller and not future.done():
                future.set_exception(withdrawn())
        for reader in self._all:
            if reader.caller is caller:
                reader.stop()

    async def aclose(self) -> None:
        """Refuse who waits, end what runs, close all."""
        self._is_closing = True
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(stopping("nothing was read"))
        for reader in self._all:
            reader.stop()
        if self._readings:
            await asyncio.wait(self._readings)
        for reader in self._all:
            await reader.aclose()

    async def _read(self, reader: Reader, statement: Statement) -> Rows:
        try:
            return await reader.run(statement)
        except sqlite3.Error as error:
            if is_broken(error):
                await reader.aclose()
            raise
        finally:
            self._give(reader)

    async def _take(self, caller: Caller) -> Reader:
        if self._is_closing:
            raise stopping("nothing was read")
        if self._idle:
            return self._idle.pop()
        future: asyncio.Future[Reader] = asyncio.get_running_loop().create_future()
        self._waiting.append((caller, future))
        try:
            async with asyncio.timeout(self._section.wait_s):
                return await future
        except BaseException as error:
            # It may have been handed over in the very moment when the wait for it was given up.
            if future.done() and not future.cancelled() and future.exception() is None:
                self._give(future.result())
            if isinstance(error, TimeoutError):
                raise self._busy() from error
            raise

    def _give(self, reader: Reader) -> None:
        reader.caller = reader.held_by = None
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_result(reader)
                return
        self._idle.append(reader)

    def _busy(self) -> DatabaseBusy:
        now_s = time.monotonic()
        held = "; ".join(
            f"{r.held_by}, for {now_s - r.since_s:.1f} s" for r in self._all if r.held_by is not None
        )
        return DatabaseBusy(
            f"waited {self._section.wait_s:g} s (database.wait_s) to read from {self._file.name}: all "
            f"{len(self._all)} readers (database.readers) are busy ({held or 'for a moment each'}); nothing was read"
        )
