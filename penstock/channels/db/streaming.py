"""`ctx.db.stream` in the worker and in an async handler: one chunk here, the rest where the database has it.

The next chunk is asked for when this one has been read, so nothing is read ahead of the handler, on either side.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final, Protocol, Self, cast

from msgspec import Raw

from penstock.app.context import Row
from penstock.channels.db.calls import Chunk, Failed, Fetch, Ran
from penstock.channels.db.preparing import Prepared
from penstock.channels.db.rows import Unpacker, unpacker
from penstock.channels.db.statements import shown
from penstock.errors import DatabaseBusy, DatabaseError

_PRIMARY: Final = 0xFF


class Holder(Protocol):
    """Whose cursors on the loop's side the streams read."""

    def fetch(self, cursor: int) -> Chunk | Failed:
        """The next rows."""
        ...

    def drop(self, cursor: int) -> None:
        """Close it."""
        ...

    def drop_soon(self, cursor: int) -> None:
        """Close it; called from finalizers."""
        ...

    def drop_later(self, cursor: int, transaction: int) -> None:
        """Close it before the next statement, or with the transaction; called from finalizers."""
        ...


class StubStream:
    """Implements `DatabaseStream`; `transaction` is the number of the one that it reads in."""

    def __init__(self, holder: Holder, prepared: Prepared, ran: Ran, transaction: int | None) -> None:
        self._holder = holder
        self._pieces = _Pieces(prepared, ran)
        self.transaction = transaction
        self._rows: Iterator[Row] = iter(())

    def __iter__(self) -> Iterator[Row]:
        try:
            while True:
                yield from self._rows
                if not self._more():
                    return
        finally:
            # Left early, with `break` for one: this runs as a finalizer.
            self._leave(waits=False)

    def __next__(self) -> Row:
        while True:
            for row in self._rows:
                return row
            if not self._more():
                raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._leave(waits=False)

    def close(self) -> None:
        """Give the rest up; harmless when repeated."""
        self._leave(waits=True)

    def lose(self) -> None:
        """Its transaction or its message is over, and its cursor with it: what was not read is gone."""
        self._pieces.lose()

    def _leave(self, *, waits: bool) -> None:
        self._rows = iter(())
        cursor = self._pieces.end()
        if cursor is None:
            return
        if self.transaction is not None:
            # It stands in nobody's way but the transaction's, which may be about to be rolled back; to close it in the
            # middle costs some servers the rest of the rows.
            self._holder.drop_later(cursor, self.transaction)
        elif waits:
            self._holder.drop(cursor)
        else:
            self._holder.drop_soon(cursor)

    def _more(self) -> bool:
        """True when there are rows again."""
        if not self._pieces.waiting and (cursor := self._pieces.to_fetch()) is not None:
            self._pieces.take(self._holder.fetch(cursor))
        rows = self._pieces.next()
        self._rows = iter(rows or ())
        return rows is not None


class LocalStream:
    """Implements `AsyncDatabaseStream`; `ask` calls the service on the same loop, `run` runs the statement.

    `drop` closes a cursor that was not read to its end; `leave` does so from a finalizer, which cannot wait.
    """

    def __init__(
        self,
        ask: Callable[[str, object], Awaitable[object]],
        run: Callable[[], Awaitable[tuple[Prepared, Ran]]],
        drop: Callable[[int], Awaitable[None]],
        leave: Callable[[int], None],
    ) -> None:
        self._ask = ask
        self._run = run
        self._drop = drop
        self._leave = leave
        self._pieces: _Pieces | None = None
        self._rows: Iterator[Row] = iter(())
        self._is_closed = False

    def __aiter__(self) -> AsyncIterator[Row]:
        return _Loop(self)

    async def __anext__(self) -> Row:
        while True:
            for row in self._rows:
                return row
            if not await self._more():
                raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give the rest up; harmless when repeated."""
        self._is_closed = True
        self._rows = iter(())
        if self._pieces is not None and (cursor := self._pieces.end()) is not None:
            await self._drop(cursor)

    def leave(self) -> None:
        """As `aclose`, for finalizers; harmless when repeated."""
        self._is_closed = True
        self._rows = iter(())
        if self._pieces is not None and (cursor := self._pieces.end()) is not None:
            self._leave(cursor)

    async def _more(self) -> bool:
        if self._is_closed:
            return False
        if self._pieces is None:
            self._pieces = _Pieces(*await self._run())
        elif not self._pieces.waiting and (cursor := self._pieces.to_fetch()) is not None:
            self._pieces.take(cast("Chunk | Failed", await self._ask("fetch", Fetch(cursor))))
        else:
            # A chunk is unpacked in pieces, so that the loop's other work comes in between.
            await asyncio.sleep(0)
        rows = self._pieces.next()
        self._rows = iter(rows or ())
        return rows is not None


class _Loop:
    """One `async for`; a generator would be ended by asyncio some turns after its loop was left, and stand in the way of what comes next."""

    def __init__(self, stream: LocalStream) -> None:
        self._stream = stream

    def __del__(self) -> None:
        self._stream.leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Row:
        return await self._stream.__anext__()


class _Pieces:
    """What has come of a result and is not unpacked yet, and the cursor that the rest is read from."""

    def __init__(self, prepared: Prepared, ran: Ran) -> None:
        self._sql = prepared.sql
        self._unpack: Unpacker = unpacker(ran.columns or (), prepared.shape)
        self.waiting: deque[Raw] = deque(ran.chunk.rows)
        self._cursor = ran.cursor
        self._is_lost = False

    def to_fetch(self) -> int | None:
        """The cursor to ask for more; None at the end. Raises `DatabaseError` when it was closed by others."""
        if self._is_lost:
            raise DatabaseError(
                "the rest of the rows is gone: the transaction or the message that they were read in has ended; read "
                f"them before it does: {shown(self._sql)}",
                "OperationalError",
            )
        return self._cursor

    def take(self, answer: Chunk | Failed) -> None:
        """Raises `DatabaseError` when the rest could not be read."""
        if isinstance(answer, Failed):
            self._cursor = None
            raise failure(answer, self._sql)
        self.waiting.extend(answer.rows)
        if answer.is_last:
            self._cursor = None

    def next(self) -> list[dict[str, Any]] | None:
        """The rows of the next piece; None when none is waiting."""
        return self._unpack(self.waiting.popleft()) if self.waiting else None

    def end(self) -> int | None:
        """Nothing more is wanted; the cursor that is to be closed."""
        self.waiting.clear()
        cursor, self._cursor = self._cursor, None
        return None if self._is_lost else cursor

    def lose(self) -> None:
        """See `StubStream.lose`."""
        self._is_lost = self._cursor is not None


def failure(failed: Failed, sql: str) -> DatabaseError:
    """What the loop's side answered, as the statement's caller gets it."""
    if failed.code is not None and failed.code & _PRIMARY == sqlite3.SQLITE_BUSY:
        return DatabaseBusy(failed.text)
    return DatabaseError(f"{failed.text}; the rest of the rows was not read: {shown(sql)}", failed.name)
