"""The loop's end of PEP 249: the cursors that workers hold, each in its caller's transaction or on a lent reader.

```
            ┌─ in a transaction ─▶ a step of it, on the writer's thread ── closed with it
run ─▶ ─────┼─ reads ────────────▶ Lending ─▶ a reader of its own ──────── given back with the last row
            └─ writes ───────────▶ the Writer's group, all rows at once
fetch ─▶ the next chunk, from where the cursor is open: nothing is read ahead of the worker
```
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from msgspec.structs import replace

from penstock.channels.db.calls import Chunk, Failed, Fetch, Ran, Run
from penstock.channels.db.faults import over
from penstock.channels.db.sqlite import stepping
from penstock.channels.db.sqlite.faults import would_write
from penstock.channels.db.sqlite.group import Statement
from penstock.channels.db.sqlite.lending import Lending, LentReader
from penstock.channels.db.sqlite.pragmas import writes_file
from penstock.channels.db.sqlite.transaction import OpenTransaction, Work
from penstock.channels.db.sqlite.writer import Writer
from penstock.channels.db.statements import READS, shown, verb_of
from penstock.channels.service import Caller
from penstock.errors import DatabaseError

#: Run on a reader when no transaction is open.
_READ_VERBS: Final = READS | {"PRAGMA", ""}


@dataclass(frozen=True, slots=True)
class _Held:
    """Where a worker's open cursor is."""

    caller: Caller
    transaction: OpenTransaction | None
    lent: LentReader | None


class CursorService:
    """Cursors of all callers; `begin`, `find` and `check_own` are the database service's.

    `check_own` raises when a write would wait for the caller's own transaction.
    """

    def __init__(
        self,
        writer: Writer,
        lending: Lending,
        *,
        begin: Callable[[Caller], Awaitable[int]],
        find: Callable[[int, Caller], OpenTransaction],
        check_own: Callable[[Caller], None],
        limit_bytes: int,
    ) -> None:
        self._writer = writer
        self._lending = lending
        self._begin = begin
        self._find = find
        self._check_own = check_own
        self._limit_bytes = limit_bytes
        self._numbers = itertools.count(1)
        self._held: dict[int, _Held] = {}

    def __repr__(self) -> str:
        return f"<CursorService [{len(self._held)} open, {self._lending!r}]>"

    async def run(self, asked: Run, caller: Caller) -> Ran | Failed:
        """Run a statement. Raises `ChannelClosed`; whatever else happens is the answer."""
        number = asked.transaction
        try:
            await self._drop(asked.dropped, caller)
            if number is None and asked.begins:
                number = await self._begin(caller)
            return await self._run(asked, number, caller)
        except Exception as error:  # noqa: BLE001 - what is no fault of the statement is raised again in there
            is_inside = asked.transaction is not None
            return stepping.failed(error, self._if_open(number, caller), was_inside=is_inside)

    async def stream(self, asked: Run, caller: Caller) -> Ran:
        """Run a statement of `ctx.db.stream`. Raises `sqlite3.Error`, and what else there is."""
        return await self._run(asked, asked.transaction, caller)

    async def fetch(self, asked: Fetch, caller: Caller) -> Chunk | Failed:
        """More rows. Raises `ChannelClosed`."""
        held = self._held.get(asked.cursor)
        try:
            if held is None or held.caller is not caller:
                raise over()  # noqa: TRY301 - answered below like every refusal
            work = partial(stepping.fetch, number=asked.cursor, limit_bytes=self._limit_bytes)
            chunk: Chunk
            if held.lent is not None:
                chunk = await self._lending.run(held.lent, work)
            else:
                assert held.transaction is not None
                chunk = await held.transaction.perform(Work("fetch", work))
        except Exception as error:  # noqa: BLE001 - see `run`
            self._forget(asked.cursor)
            transaction = held.transaction if held is not None else None
            number = None if transaction is None else self._if_open(transaction.number, caller)
            return stepping.failed(error, number, was_inside=transaction is not None)
        if chunk.is_last:
            self._forget(asked.cursor)
        return chunk

    async def drop(self, numbers: list[int], caller: Caller) -> None:
        """Close cursors; harmless for those that are closed."""
        await self._drop(numbers, caller)

    def transaction_ended(self, number: int) -> None:
        """Its cursors are closed."""
        for cursor, held in list(self._held.items()):
            if held.transaction is not None and held.transaction.number == number:
                del self._held[cursor]

    def forget(self, caller: Caller) -> None:
        """The caller is gone, or its message over: nothing of it stays open."""
        for number, held in list(self._held.items()):
            if held.caller is caller:
                self._forget(number)
        self._lending.forget(caller)

    async def aclose(self) -> None:
        """Close every reading connection."""
        await self._lending.aclose()
        self._held.clear()

    async def _run(self, asked: Run, number: int | None, caller: Caller) -> Ran:
        if number is not None:
            return await self._run_inside(asked, number, caller)
        if asked.is_read_only or (
            verb_of(asked.statement) in _READ_VERBS and not writes_file(asked.statement)
        ):
            return await self._read(asked, caller)
        return await self._write(asked, caller)

    async def _run_inside(self, asked: Run, number: int, caller: Caller) -> Ran:
        transaction = self._find(number, caller)
        cursor = next(self._numbers)
        work = partial(stepping.run, asked=asked, number=cursor, limit_bytes=self._limit_bytes)
        ran: Ran = await transaction.perform(Work(shown(asked.statement), work))
        if ran.cursor is not None:
            self._held[cursor] = _Held(caller, transaction, None)
        return replace(ran, transaction=self._if_open(number, caller))

    async def _read(self, asked: Run, caller: Caller) -> Ran:
        cursor = next(self._numbers)
        lent = await self._lending.lend(caller, shown(asked.statement))
        work = partial(stepping.run, asked=asked, number=cursor, limit_bytes=self._limit_bytes)
        try:
            ran = await self._lending.run(lent, work)
        except BaseException as error:
            self._lending.give(lent)
            if isinstance(error, sqlite3.Error) and would_write(error) and not asked.is_read_only:
                # SQLite knows better than the text; nothing was run.
                return await self._write(asked, caller)
            raise
        if ran.cursor is None:
            self._lending.give(lent)
        else:
            self._held[cursor] = _Held(caller, None, lent)
        return ran

    async def _write(self, asked: Run, caller: Caller) -> Ran:
        self._check_own(caller)
        ran = await self._writer.run(Statement(asked.statement, None, "cursor", asked), caller)
        assert isinstance(ran, Ran)
        return ran

    async def _drop(self, numbers: list[int], caller: Caller) -> None:
        for number in numbers:
            held = self._held.get(number)
            if held is None or held.caller is not caller:
                continue
            self._forget(number)
            if held.lent is not None:
                # Else its caller, in a hurry, would be given one reader after the other.
                await held.lent.back.wait()
            if held.transaction is not None and held.transaction.why_over is None:
                await held.transaction.perform(Work("close a cursor", partial(stepping.close, number=number)))

    def _forget(self, number: int) -> None:
        held = self._held.pop(number, None)
        if held is not None and held.lent is not None:
            self._lending.give(held.lent)

    def _if_open(self, number: int | None, caller: Caller) -> int | None:
        if number is None:
            return None
        try:
            return number if self._find(number, caller).why_over is None else None
        except DatabaseError:
            # It is over and forgotten.
            return None
