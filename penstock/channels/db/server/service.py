"""The database channel on MySQL, MariaDB and PostgreSQL: whose call is answered by what.

```
             ┌─ execute, fetch_all, fetch_one, stream ─▶ ServerQueries ─┐
call ─▶ ─────┼─ run, fetch, drop, end ─────────────────▶ ServerCursors ─┼─▶ Runner ─▶ Pool ─▶ the server
             └─ begin, commit, rollback ───────────────▶ Transactions ──┘
```
What bounds it: `database.server_connections` for all workers together. Nobody holds one but for a call, between first
statement and end of a transaction, or with a result that is not read to its end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import msgspec
import structlog
from msgspec import Raw
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from penstock.channels.db.calls import End, Fetch, Query, Run, Want
from penstock.channels.db.exact import arrived
from penstock.channels.db.faults import stopping
from penstock.channels.db.secrets import Scrubber, shown_url
from penstock.channels.db.server.address import asynchronous, driver_of
from penstock.channels.db.server.cursors import ServerCursors
from penstock.channels.db.server.driver import USUAL
from penstock.channels.db.server.faults import translated_end
from penstock.channels.db.server.log import ServerLog
from penstock.channels.db.server.pool import Pool
from penstock.channels.db.server.queries import ServerQueries
from penstock.channels.db.server.running import Runner
from penstock.channels.db.server.texts import Texts
from penstock.channels.db.server.transactions import Transaction, Transactions
from penstock.channels.db.server.work import Works
from penstock.channels.service import Caller
from penstock.config.database import DatabaseSection
from penstock.errors import ChannelError

_decode_query: Final = msgspec.msgpack.Decoder(Query, ext_hook=arrived).decode
_decode_run: Final = msgspec.msgpack.Decoder(Run, ext_hook=arrived).decode
_decode_fetch: Final = msgspec.msgpack.Decoder(Fetch).decode
_decode_end: Final = msgspec.msgpack.Decoder(End).decode
_decode_number: Final = msgspec.msgpack.Decoder(int).decode
_decode_numbers: Final = msgspec.msgpack.Decoder(list[int]).decode


class ServerDatabase:
    """What the service named "db" does when `database.url` is a server's."""

    def __init__(self, section: DatabaseSection, *, limit_bytes: int) -> None:
        assert section.url is not None
        written = section.url.get_secret_value()
        url = asynchronous(written)
        driver = driver_of(url)
        log = ServerLog(
            structlog.get_logger("penstock.database").bind(database=shown_url(make_url(written))),
            scrub=Scrubber(url),
            is_foreseen=lambda error: driver.is_error(error) or isinstance(error, DBAPIError),
        )
        self._pool = Pool(url, driver, section, log)
        self._works = Works(driver, log)
        self._transactions = Transactions(section.transaction_idle_s, self._roll_back, log)
        texts = Texts(driver.backend)
        runner = Runner(driver, self._pool, self._transactions, texts, log)
        self._cursors = ServerCursors(
            driver, self._pool, runner, self._works, self._transactions, limit_bytes=limit_bytes
        )
        self._queries = ServerQueries(
            texts, runner, self._works, self._transactions, self._cursors, limit_bytes=limit_bytes
        )
        self._answers: dict[str, tuple[Callable[[Raw], Any], Callable[[Any, Caller], Awaitable[Any]]]] = {
            "run": (_decode_run, self._cursors.run),
            "fetch": (_decode_fetch, self._cursors.fetch),
            "drop": (_decode_numbers, self._cursors.drop),
            "end": (_decode_end, self._cursors.end),
            "stream": (_decode_query, self._queries.stream),
        }
        self._is_closed = False

    def __repr__(self) -> str:
        held = f"{len(self._transactions)} transactions, {len(self._cursors)} open results"
        return f"<ServerDatabase [{self._pool!r}, {held}]>"

    async def call(self, method: str, arguments: Raw, caller: Caller) -> Any:
        """Answer the methods above, and `reset`."""
        if method == "reset":
            return self.forget(caller)
        if self._is_closed:
            raise stopping()
        if method in ("execute", "fetch_all", "fetch_one"):
            return await self._queries.run(_decode_query(arguments), cast("Want", method), caller)
        if method in ("commit", "rollback"):
            return await self._end(_decode_number(arguments), caller, is_commit=method == "commit")
        if method == "begin":
            return self._transactions.open(caller, USUAL).number
        known = self._answers.get(method)
        if known is None:
            msg = f"the database channel knows no {method!r}"
            raise ChannelError(msg)
        decode, answer = known
        return await answer(decode(arguments), caller)

    def forget(self, caller: Caller) -> None:
        """End what the caller runs, on the server too, and roll back its transactions."""
        self._works.forget(caller)
        self._cursors.forget(caller)
        self._transactions.forget(caller)

    async def aclose(self) -> None:
        """Roll back what is open, and close every connection; harmless when repeated."""
        self._is_closed = True
        self._cursors.forget()
        self._transactions.forget()
        await self._works.wait()
        await self._pool.aclose()

    async def _end(self, number: int, caller: Caller, *, is_commit: bool) -> None:
        try:
            known = self._transactions.known_as(number, caller)
            self._transactions.forget_chosen(number, caller)
            await self._cursors.finish(known, caller, is_commit=is_commit)
        except Exception as failure:  # noqa: BLE001 - raised again in words
            raise translated_end(failure, is_commit=is_commit) from None

    def _roll_back(self, transaction: Transaction) -> None:
        lent, opened = transaction.lent, transaction.result
        if lent is None:
            return
        if opened is not None and not opened.is_read:
            # Its rows are on the wire, and nobody reads them; a server whose client has gone rolls back too.
            lent.is_spoilt = True
        self._works.in_background(self._pool.give(lent))
