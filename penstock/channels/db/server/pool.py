"""The connections to the server, and who has one: SQLAlchemy's pool counts them, statements run on the driver's own connection."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import greenlet_spawn

from penstock.channels.db.server.driver import Driver
from penstock.channels.db.server.log import ServerLog
from penstock.channels.db.server.patience import within
from penstock.channels.service import Caller
from penstock.config.database import DatabaseSection
from penstock.errors import DatabaseBusy

#: What a server gets for an answer: to a sign of life, to a rollback, to a goodbye.
_PING_S: Final = 5.0
_ROLLBACK_S: Final = 10.0
_CLOSE_S: Final = 2.0
#: Who has waited so long for a connection is told of, and who has them.
_TELL_WAIT_S: Final = 5.0
_MOST_HOLDERS: Final = 5
#: When a connection was given back, in its record.
_USED_S: Final = "penstock_used_s"


class Lent:
    """One connection in one caller's hands."""

    __slots__ = ("caller", "is_spoilt", "proxied", "raw", "since_s")

    def __init__(self, caller: Caller, proxied: Any) -> None:
        self.caller = caller
        self.proxied = proxied
        self.raw: Any = proxied.driver_connection
        self.since_s = time.monotonic()
        self.is_spoilt = False
        """Nobody else may have it."""


class Pool:
    """Lends `database.server_connections` connections; who finds none waits `database.wait_s`, in order of arrival."""

    def __init__(self, url: URL, driver: Driver, section: DatabaseSection, log: ServerLog) -> None:
        self._driver = driver
        self._log = log
        self._section = section
        self._engine = create_async_engine(
            url,
            pool_size=section.server_connections,
            max_overflow=0,
            pool_timeout=section.wait_s,
            pool_reset_on_return=None,
            **driver.engine_options(url),
        )
        # When a connection was lost: those that were used before then are asked for a sign of life.
        self._lost_s = 0.0
        self._lent: set[Lent] = set()

    def __repr__(self) -> str:
        return f"<Pool [{self._engine.pool.status()}]>"

    @property
    def size(self) -> int:
        """How many there are at most."""
        return self._section.server_connections

    async def lend(self, caller: Caller) -> Lent:
        """A connection that lives. Raises `DatabaseBusy` when none is free in time, or the server is not there."""
        while True:
            lent = Lent(caller, await self._connect(caller))
            self._lent.add(lent)
            lives = False
            try:
                lives = await self._lives(lent)
            finally:
                # Also when the test failed as nobody has foreseen: it must not be missing from the pool.
                if not lives:
                    lent.is_spoilt = True
                    await self.give(lent)
            if lives:
                self._log.answers()
                return lent
            self._log.idle_ended()

    async def give(self, lent: Lent) -> None:
        """The caller needs it no more; what is not as it was is closed. Raises nothing: what fails here is told in the log."""
        self._lent.discard(lent)
        raw = lent.raw
        try:
            if not lent.is_spoilt and not self._driver.is_closed(raw) and self._driver.in_transaction(raw):
                await within(_ROLLBACK_S, self._driver.roll_back(raw))
        except Exception as error:  # noqa: BLE001 - told, and it is closed then
            lent.is_spoilt = True
            self._log.rollback_failed(lent.caller, error)
        if lent.is_spoilt or self._driver.is_closed(raw):
            try:
                await within(_CLOSE_S, greenlet_spawn(lent.proxied.invalidate))
            except Exception as error:  # noqa: BLE001 - told, and nobody can do more about it
                self._log.close_failed(lent.caller, error)
        else:
            lent.proxied.info[_USED_S] = time.monotonic()
        lent.proxied.close()

    def note_lost(self, caller: Caller, error: BaseException, *, is_commit: bool) -> None:
        """A connection was lost under a caller, and maybe the others with it."""
        self._lost_s = time.monotonic()
        self._log.lost(caller, error, is_commit=is_commit)

    async def aclose(self) -> None:
        """Close what is not lent."""
        await self._engine.dispose()

    async def _connect(self, caller: Caller) -> Any:
        began_s = time.monotonic()
        telling = self._tell_wait_later(caller, began_s)
        try:
            return await self._engine.raw_connection()
        except PoolTimeoutError as error:
            holders = self._holders()
            self._log.refused(caller, time.monotonic() - began_s, self._section.server_connections, holders)
            msg = (
                f"waited {self._section.wait_s:g} s (database.wait_s) for one of {self._section.server_connections} "
                f"connections (database.server_connections), which are held by {', '.join(holders)}; nothing was run"
            )
            raise DatabaseBusy(msg) from error
        except Exception as error:
            if not isinstance(error, DBAPIError) and not self._driver.is_error(error):
                raise
            self._log.unreachable(caller, error)
            msg = f"the database server cannot be reached: {self._log.words_of(error)}; nothing was run"
            raise DatabaseBusy(msg) from error
        finally:
            if telling is not None:
                telling.cancel()

    def _tell_wait_later(self, caller: Caller, began_s: float) -> asyncio.TimerHandle | None:
        if len(self._lent) < self._section.server_connections or self._section.wait_s <= _TELL_WAIT_S:
            # It need not wait, or is refused before long, which is told.
            return None

        def tell() -> None:
            self._log.waiting(
                caller, time.monotonic() - began_s, self._section.server_connections, self._holders()
            )

        return asyncio.get_running_loop().call_later(_TELL_WAIT_S, tell)

    def _holders(self) -> list[str]:
        """Who has had a connection for longest, and for how long."""
        now_s = time.monotonic()
        longest = sorted(self._lent, key=lambda lent: lent.since_s)[:_MOST_HOLDERS]
        return [f"{lent.caller.name} for {now_s - lent.since_s:.1f} s" for lent in longest]

    async def _lives(self, lent: Lent) -> bool:
        if self._driver.is_closed(lent.raw):
            return False
        used_s = lent.proxied.info.get(_USED_S)
        if used_s is None:
            return True
        is_recent = used_s > self._lost_s and time.monotonic() - used_s < self._section.idle_test_s
        # What it has heard may be a goodbye, or a harmless notice.
        if is_recent and not self._driver.has_heard(lent.raw):
            return True
        try:
            await within(_PING_S, self._driver.ping(lent.raw))
        except Exception as error:
            if not self._driver.is_error(error):
                raise
            return False
        return True
