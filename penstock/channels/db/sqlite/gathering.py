"""Whether the next group waits for those whom the last one answered: while they come back within a group's time.

Workers that write row after row then share one commit, instead of each half waiting for the other half's. Those that do
something else between two writes would only be kept from it: they are not waited for, but for a try now and then.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from penstock.channels.service import Caller

#: Nobody waits longer for those who may come.
GATHER_S: Final = 0.002
#: One wait in so many groups shows whether it would pay again.
TRIED_EACH: Final = 64
#: So many waits in a row may fail to pay when they have paid for long.
MOST_TRUST: Final = 8


class Gathering:
    """Those who were answered together and have not asked again."""

    def __init__(self) -> None:
        self._missing: Counter[Caller] = Counter()
        self._answered_at_s = 0.0
        self._group_s = 0.0
        # Waits that paid, less those that did not.
        self._trust = 0
        self._untried = 0
        # Made by a group that waits.
        self._all_came: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<Gathering [{self._missing.total()} missing, trust {self._trust}]>"

    def answered(self, callers: Iterable[Caller], *, waiting: int, took_s: float) -> None:
        """A group has ended in `took_s`: these were answered and may ask again, so many others came while it ran."""
        self._missing = Counter(callers)
        self._answered_at_s = time.monotonic()
        self._group_s = took_s
        if self._missing.total() + waiting <= 1:
            # Who writes alone waits for nobody.
            self._missing.clear()

    def came(self, caller: Caller) -> None:
        """It has asked again."""
        self._left(caller, 1)

    def forget(self, caller: Caller) -> None:
        """It never will."""
        self._left(caller, self._missing[caller])

    async def wait(self) -> None:
        """Returns when all who were answered have asked again; at once when that does not pay."""
        is_late = time.monotonic() - self._answered_at_s > GATHER_S
        if not self._missing.total() or is_late or not self._is_tried():
            return
        began_s = time.monotonic()
        self._all_came = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._all_came.wait()
        self._all_came = None
        # In that time those who waited could have had a group of their own.
        pays = time.monotonic() - began_s <= self._group_s
        self._trust = min(self._trust + 1, MOST_TRUST) if pays else max(self._trust - 1, -1)

    def _left(self, caller: Caller, times: int) -> None:
        if not self._missing[caller]:
            return
        # Counted, because an async handler may have several tasks.
        self._missing[caller] -= times
        if self._all_came is not None and not self._missing.total():
            self._all_came.set()

    def _is_tried(self) -> bool:
        if self._trust >= 0:
            return True
        self._untried = (self._untried + 1) % TRIED_EACH
        return not self._untried
