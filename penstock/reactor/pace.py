"""Keeps prefetch in step with how slow each handler is: once a second, while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from penstock.buses.contract import Bus
from penstock.reactor.dispatch import Dispatcher
from penstock.reactor.prefetch import safe_prefetch
from penstock.reactor.settle import Settlement
from penstock.reactor.work import Served

#: How often the pace of handlers is looked at.
TICK_S: Final = 1.0
#: Up again only by half or more, so that a run time that wavers does not renew the consumer each second.
UP_BY: Final = 1.5

_log = structlog.get_logger("penstock.pace")


class Pace:
    """Lowers the prefetch of a handler that turned slow, hands back what would wait too long, and undoes it."""

    def __init__(
        self,
        served: Sequence[Served],
        bus: Bus,
        dispatcher: Dispatcher,
        settlement: Settlement,
        *,
        count_slots: Callable[[], int],
        consumer_timeout_s: float,
    ) -> None:
        # What runs on the loop runs at once, it never waits here.
        self._served = [one for one in served if not one.handler.is_async]
        self._bus = bus
        self._dispatcher = dispatcher
        self._settlement = settlement
        self._count_slots = count_slots
        self._consumer_timeout_s = consumer_timeout_s
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ends `run` soon; it is not cancelled, because that would close a consuming AMQP channel amid a call."""
        self._stopping.set()

    async def run(self) -> None:
        """Look at every handler's pace until stopped."""
        while not self._stopping.is_set():
            try:
                await asyncio.wait_for(self._stopping.wait(), TICK_S)
            except TimeoutError:
                await self._look()

    async def _look(self) -> None:
        at_once = max(1, self._count_slots())
        for served in self._served:
            if served.run_s is None or self._stopping.is_set():
                continue
            safe = safe_prefetch(served.run_s, at_once=at_once, consumer_timeout_s=self._consumer_timeout_s)
            allowed = min(served.prefetch, safe)
            if allowed < served.allowed or allowed >= served.allowed * UP_BY:
                await self._allow(served, allowed)

    async def _allow(self, served: Served, allowed: int) -> None:
        _log.info(
            "prefetch changed, because of the broker's consumer timeout",
            queue=served.handler.queue.name,
            run_s=round(served.run_s or 0, 3),
            before=served.allowed,
            now=allowed,
        )
        served.allowed = allowed
        await self._bus.set_prefetch(served.handler.queue.name, allowed)
        for work in self._dispatcher.take_beyond(served, allowed):
            self._settlement.hand_back(work)
