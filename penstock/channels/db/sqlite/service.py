"""The database channel on SQLite: whose statement is run by whom.

```
            ┌─ reads ──▶ Readers ──▶ aiosqlite connections (query_only)
call ─▶ ────┼─ writes ─▶ Writer ───▶ groups, one thread, one connection
            ├─ steps of an open transaction ──▶ the Writer's turn that it holds
            └─ cursors of PEP 249 ─▶ CursorService
```
Nothing is opened before the first call.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any, Final, cast

import msgspec
from msgspec import Raw

from penstock.channels.db.calls import Fetch, Query, Ran, Run, Want
from penstock.channels.db.faults import stopping
from penstock.channels.db.sqlite.cursors import CursorService
from penstock.channels.db.sqlite.database_file import DatabaseFile
from penstock.channels.db.sqlite.faults import is_locked, translated, would_write
from penstock.channels.db.sqlite.group import Outcome, Statement
from penstock.channels.db.sqlite.lending import Lending
from penstock.channels.db.sqlite.opening import find_file
from penstock.channels.db.sqlite.reading import Readers
from penstock.channels.db.sqlite.transaction import OpenTransaction
from penstock.channels.db.sqlite.writer import Writer, WriterStatistics
from penstock.channels.db.statements import check_allowed, may_write
from penstock.channels.service import Caller
from penstock.config.database import DatabaseSection
from penstock.errors import ChannelError, ConfigurationError, DatabaseBusy, DatabaseError

_decode_query: Final = msgspec.msgpack.Decoder(Query).decode
_decode_number: Final = msgspec.msgpack.Decoder(int).decode
_decode_run: Final = msgspec.msgpack.Decoder(Run).decode
_decode_fetch: Final = msgspec.msgpack.Decoder(Fetch).decode
_decode_numbers: Final = msgspec.msgpack.Decoder(list[int]).decode


class SqliteDatabase:
    """What the service named "db" does when `database.url` is a file's; `limit_bytes` is what a result may fill."""

    def __init__(self, section: DatabaseSection, *, limit_bytes: int) -> None:
        self._section = section
        self._limit_bytes = limit_bytes
        self._file: DatabaseFile | ConfigurationError | None = None
        self._writer: Writer | None = None
        self._readers: Readers | None = None
        self._cursors: CursorService | None = None
        self._opening: asyncio.Task[tuple[Writer, Readers]] | None = None
        # Those that are over stay until their holder has heard of it.
        self._transactions: dict[int, OpenTransaction] = {}
        # Those that a cursor began.
        self._of_cursors: set[int] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        return (
            f"<SqliteDatabase [{self._writer!r}, {self._readers!r}, {len(self._transactions)} transactions]>"
        )

    def statistics(self) -> WriterStatistics | None:
        """The writer's counts and who holds it; None before the first call."""
        return self._writer.statistics() if self._writer is not None else None

    def start(self) -> None:
        """Look which file it is. Raises `ConfigurationError` for a URL that no call could use."""
        self._is_closed = False
        self._look()
        if self._section.url is not None:
            self._found()

    async def aclose(self) -> None:
        """Roll back what is open, finish what is being written, close every connection; harmless when repeated."""
        self._is_closed = True
        opening, self._opening = self._opening, None
        if opening is not None:
            await asyncio.wait({opening})
        writer, self._writer = self._writer, None
        readers, self._readers = self._readers, None
        cursors, self._cursors = self._cursors, None
        # Readers first: the last connection to close checkpoints the log, and only the writer may.
        if cursors is not None:
            await cursors.aclose()
        if readers is not None:
            await readers.aclose()
        if writer is not None:
            await writer.aclose()
        self._transactions.clear()

    async def call(self, method: str, arguments: Raw, caller: Caller) -> Any:  # noqa: PLR0911 - one a method
        """Answer `execute`, `fetch_all`, `fetch_one`, `begin`, `commit`, `rollback`, `reset`; `stream`, `run`, `fetch`, `drop` of cursors."""
        if method in ("execute", "fetch_all", "fetch_one"):
            return await self._run(_decode_query(arguments), cast("Want", method), caller)
        if method == "stream":
            return await self._stream(_decode_query(arguments), caller)
        if method == "run":
            return await (await self._opened_cursors()).run(_decode_run(arguments), caller)
        if method == "fetch":
            return await (await self._opened_cursors()).fetch(_decode_fetch(arguments), caller)
        if method == "drop":
            return await (await self._opened_cursors()).drop(_decode_numbers(arguments), caller)
        if method == "begin":
            self._check_own(caller)
            return await self._begin(caller)
        if method in ("commit", "rollback"):
            return await self._end(_decode_number(arguments), method, caller)
        if method == "reset":
            return self.forget(caller)
        msg = f"the database channel knows no {method!r}"
        raise ChannelError(msg)

    def forget(self, caller: Caller) -> None:
        """Roll back the caller's open transaction at once, end what it reads and withdraw its waiting calls."""
        if self._writer is not None:
            self._writer.forget(caller)
        if self._readers is not None:
            self._readers.forget(caller)
        if self._cursors is not None:
            self._cursors.forget(caller)
        for number, transaction in list(self._transactions.items()):
            if transaction.caller is caller:
                del self._transactions[number]
                self._of_cursors.discard(number)

    async def _run(self, query: Query, want: Want, caller: Caller) -> Outcome:
        check_allowed(query.statement)
        statement = Statement(query.statement, query.parameters, want)
        if query.transaction is not None:
            return await self._holders(query.transaction, caller).run(statement)
        writer, readers = await self._opened()
        if may_write(query.statement):
            self._check_own(caller)
            return await writer.run(statement, caller)
        try:
            rows = await readers.run(statement, caller)
        except sqlite3.Error as error:
            if would_write(error):
                # SQLite knows better than the text; nothing was run.
                return await writer.run(statement, caller)
            raise self._reading_failed(error, statement.text) from error
        return rows if want != "execute" else 0

    async def _stream(self, query: Query, caller: Caller) -> Ran:
        check_allowed(query.statement)
        asked = Run(query.statement, query.parameters, transaction=query.transaction)
        try:
            return await (await self._opened_cursors()).stream(asked, caller)
        except sqlite3.Error as error:
            raise self._reading_failed(error, query.statement) from error

    async def _begin(self, caller: Caller) -> int:
        writer, _ = await self._opened()
        transaction = await writer.begin(caller)
        self._transactions[transaction.number] = transaction
        return transaction.number

    async def _begin_for_cursor(self, caller: Caller) -> int:
        # A worker waits for each answer, so what it waits for must not be its own. An async handler may have
        # several tasks, of which one waits for the other, but it has no cursors.
        if any(held.caller is caller and held.why_over is None for held in self._transactions.values()):
            raise _own_transaction()
        number = await self._begin(caller)
        self._of_cursors.add(number)
        return number

    def _check_own(self, caller: Caller) -> None:
        for number, transaction in self._transactions.items():
            # An async handler's task may wait for another one's transaction; a worker that waits does nothing else.
            may_wait = not caller.is_worker and number not in self._of_cursors
            if transaction.caller is caller and transaction.why_over is None and not may_wait:
                raise _own_transaction()

    async def _end(self, number: int, how: str, caller: Caller) -> None:
        transaction = self._holders(number, caller)
        try:
            if how == "commit":
                await transaction.commit()
            else:
                await transaction.roll_back()
        finally:
            self._transactions.pop(number, None)
            self._of_cursors.discard(number)
            if self._cursors is not None:
                self._cursors.transaction_ended(number)

    def _holders(self, number: int, caller: Caller) -> OpenTransaction:
        transaction = self._transactions.get(number)
        if transaction is None or transaction.caller is not caller:
            msg = "the transaction is over: its block or its message has ended; nothing of the statement was run"
            raise DatabaseError(msg, "OperationalError")
        return transaction

    async def _opened(self) -> tuple[Writer, Readers]:
        if self._writer is not None and self._readers is not None:
            return self._writer, self._readers
        if self._is_closed:
            raise stopping()
        if self._opening is None:
            # One for all who wait, and not ended with the first of them.
            self._opening = asyncio.create_task(self._open(self._found()), name="penstock-db-open")
            self._opening.add_done_callback(self._open_ended)
        return await asyncio.shield(self._opening)

    async def _open(self, file: DatabaseFile) -> tuple[Writer, Readers]:
        # The writer first: it makes the file and turns it to WAL, in which readers and writer never wait for each other.
        writer = Writer(file, self._section, limit_bytes=self._limit_bytes)
        try:
            await writer.open()
        except BaseException:
            await writer.aclose()
            raise
        self._writer = writer
        self._readers = Readers(file, self._section, limit_bytes=self._limit_bytes)
        self._cursors = CursorService(
            writer,
            Lending(file, self._section),
            begin=self._begin_for_cursor,
            check_own=self._check_own,
            find=self._holders,
            limit_bytes=self._limit_bytes,
        )
        return self._writer, self._readers

    async def _opened_cursors(self) -> CursorService:
        await self._opened()
        assert self._cursors is not None
        return self._cursors

    def _open_ended(self, opening: asyncio.Task[tuple[Writer, Readers]]) -> None:
        self._opening = None
        if not opening.cancelled():
            # Those who wait have it; should they all have gone, nobody is left to hear of it.
            opening.exception()

    def _look(self) -> None:
        if self._file is None:
            try:
                self._file = find_file(self._section)
            except ConfigurationError as error:
                self._file = error

    def _found(self) -> DatabaseFile:
        self._look()
        if isinstance(self._file, DatabaseFile):
            return self._file
        # Each caller gets its own, because a traceback grows with every raise.
        raise ConfigurationError(str(self._file))

    def _reading_failed(self, error: sqlite3.Error, statement: str) -> DatabaseError:
        if is_locked(error):
            words = f"waited {self._section.busy_timeout_s:g} s (database.busy_timeout_s): another process holds the file"
            return DatabaseBusy(f"{words}; nothing was read")
        return translated(error, statement)


def _own_transaction() -> DatabaseBusy:
    return DatabaseBusy(
        "this worker holds the writer already, in another transaction of the same message (ctx.db.transaction(), or "
        "another connection over the channel): each would wait for the other; nothing was run"
    )
