"""Whom the next group of writes waits for: those whom the last one answered, if such callers use to ask again at once.

Workers that write row after row then share one commit, and not each other's wait. Callers that do something else between
two writes are found out soon: a wait for which less than half of them came lets the next groups go without one, twice as
many each time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from penstock.channels.service import Caller

#: So long those who were answered together may take to ask again.
GATHER_S: Final = 0.002
#: So many groups at most begin at once between two that wait: with 2 ms each, what waits in vain cost is some percent.
MOST_AT_ONCE: Final = 127


class Gathering:
    """Those who were answered together and have not asked again."""

    def __init__(self) -> None:
        self._awaited: set[Caller] = set()
        self._answered_at_s = 0.0
        # Made by a group that waits for them.
        self._all_came: asyncio.Event | None = None
        # Groups that begin at once before one waits again, and how many of them have.
        self._at_once = self._begun_at_once = 0

    def __repr__(self) -> str:
        return f"<Gathering [{len(self._awaited)} awaited, {self._at_once} at once]>"

    def answered(self, callers: Iterable[Caller]) -> None:
        """These have been answered together, and may ask again."""
        self._awaited = set(callers)
        self._answered_at_s = time.monotonic()

    def note(self, caller: Caller) -> None:
        """It has asked again, or never will."""
        self._awaited.discard(caller)
        if self._all_came is not None and not self._awaited:
            self._all_came.set()

    async def wait(self) -> None:
        """Wait until they have asked again, `GATHER_S` at most; at once for who writes alone."""
        if not self._awaited or time.monotonic() - self._answered_at_s > GATHER_S:
            return
        if self._begun_at_once < self._at_once:
            self._begun_at_once += 1
            return
        self._begun_at_once = 0
        awaited = len(self._awaited)
        self._all_came = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._all_came.wait()
        self._all_came = None
        was_in_vain = 2 * len(self._awaited) > awaited
        self._at_once = min(2 * self._at_once + 1, MOST_AT_ONCE) if was_in_vain else self._at_once // 2
