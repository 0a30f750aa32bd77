"""A server's rows on their way to the worker: packed chunk by chunk as it asks for them, nothing read ahead of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import msgspec
from msgspec import Raw

from penstock.channels.db.calls import AROUND_BYTES, CHUNK_BYTES, Chunk
from penstock.channels.db.exact import crossing
from penstock.channels.db.faults import over
from penstock.channels.db.rows import Rows, fitting
from penstock.channels.db.rows import too_large as result_too_large
from penstock.channels.db.server.driver import Result
from penstock.errors import DatabaseError

#: Reading and packing let the loop's other work in between at least so often.
_TURN_S: Final = 0.002
#: What is read of a result that nobody wants, to have its connection back.
_LITTLE_ROWS: Final = 2048

_encode: Final = msgspec.msgpack.Encoder().encode


class OpenResult:
    """A result that may not be read to its end; one task at a time reads it."""

    def __init__(self, result: Result) -> None:
        self.result = result
        # Read, and too large for the last chunk.
        self._kept: list[Any] = []
        self._is_cut = False
        self._turned_s = time.monotonic()

    @property
    def is_read(self) -> bool:
        """True when it holds its connection no more."""
        return self.result.is_read

    @property
    def is_done(self) -> bool:
        """True when there is nothing more to fetch."""
        return self.is_read and not self._kept

    async def chunk(self, limit_bytes: int) -> Chunk:
        """The next rows. Raises what the driver raises, and `DatabaseError` for a row that no frame can carry, or when others were passed over."""
        if self._is_cut:
            raise over()
        limit_bytes -= AROUND_BYTES
        most = min(CHUNK_BYTES, limit_bytes)
        pieces: list[Raw] = []
        size = 0
        while size < most:
            rows = self._kept or await self._rows()
            if not rows:
                return Chunk(pieces, is_last=True, row_count=self.result.row_count)
            taken, encoded = fitting(rows, limit_bytes - size)
            self._kept = rows[taken:]
            if taken:
                pieces.append(Raw(encoded))
                size += len(encoded)
            elif not pieces:
                raise _row_too_large(limit_bytes)
            if self._kept:
                break
            await self._take_turns()
        if self.is_done:
            return Chunk(pieces, is_last=True, row_count=self.result.row_count)
        return Chunk(pieces, is_last=False)

    async def all_rows(self, limit_bytes: int) -> Rows:
        """Raises as `chunk`, and `DatabaseError` when they exceed the limit; the rest is unread then."""
        columns = self.result.columns or []
        pieces: list[Raw] = []
        left = limit_bytes - AROUND_BYTES - len(_encode(columns))
        while rows := await self._rows():
            piece = _encode(rows)
            left -= len(piece)
            if left < 0:
                raise result_too_large(limit_bytes)
            pieces.append(Raw(piece))
            await self._take_turns()
        return Rows(columns, pieces)

    async def first_row(self, limit_bytes: int) -> Rows:
        """As `all_rows`, of the first one; what is behind it stays unread."""
        columns = self.result.columns or []
        rows = await self._rows()
        if not rows:
            return Rows(columns, [])
        piece = _encode(rows[:1])
        if len(piece) + AROUND_BYTES + len(_encode(columns)) > limit_bytes:
            raise result_too_large(limit_bytes)
        return Rows(columns, [Raw(piece)])

    async def pass_little(self) -> bool:
        """Read on and throw away; False when much is left."""
        left = _LITTLE_ROWS
        while left > 0 and not self.is_read:
            left -= len(await self.result.rows())
            await self._take_turns()
        return self.is_read

    async def pass_all(self) -> None:
        """Read it to its end and throw it away. Raises what the driver raises."""
        self._is_cut = self._is_cut or not self.is_done
        self._kept = []
        while not self.is_read:
            await self.result.rows()
            await self._take_turns()

    async def _rows(self) -> list[Any]:
        rows = await self.result.rows()
        exotic = self.result.exotic
        if not exotic:
            return rows
        columns = self.result.columns or []
        crossed = [list(row) for row in rows]
        for position in exotic:
            name = columns[position]
            for row in crossed:
                try:
                    row[position] = crossing(row[position], name)
                except DatabaseError as error:
                    # Words for parameters, of which nothing has run yet.
                    words = str(error).removeprefix("parameter ").removesuffix("; nothing was run")
                    msg = (
                        f"a value of column {words}, and does not cross the database channel; the statement has run, and "
                        "outside a transaction what it changed is committed"
                    )
                    raise DatabaseError(msg, error.kind) from None
        return crossed

    async def _take_turns(self) -> None:
        if time.monotonic() - self._turned_s > _TURN_S:
            await asyncio.sleep(0)
            self._turned_s = time.monotonic()


def _row_too_large(limit_bytes: int) -> DatabaseError:
    msg = f"a row exceeds a frame ({limit_bytes} bytes, limits.frame_bytes): raise the limit"
    return DatabaseError(msg, "DataError")
