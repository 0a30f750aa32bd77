"""The end of a service, in order; a step that fails does not skip the ones behind it."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import structlog

from penstock.buses.contract import Bus
from penstock.channels.db.service import DatabaseService
from penstock.reactor.apart import Apart
from penstock.reactor.consume import Intake
from penstock.reactor.coroutines import Coroutines
from penstock.reactor.counting import Counting
from penstock.reactor.dispatch import Dispatcher
from penstock.reactor.filling import Filler
from penstock.reactor.pace import Pace
from penstock.reactor.settle import Settlement

#: After the drain deadline: what is still being published gets so long before it is handed back.
LAST_PUBLISH_S: Final = 2.0
#: A broker that says nothing to the first step will say nothing later.
ANSWER_S: Final = 3.0

_log = structlog.get_logger("penstock.drain")


@dataclass(frozen=True, slots=True)
class Drain:
    """Everything that has to end, and how long what runs may take."""

    bus: Bus
    intake: Intake
    pace: Pace
    dispatcher: Dispatcher
    counting: Counting
    apart: Apart
    coroutines: Coroutines
    filler: Filler
    settlement: Settlement
    database: DatabaseService
    deadline_s: float

    async def run(self, hurry: asyncio.Event) -> None:
        """Stop, finish, hand back, close; `hurry` cuts the waiting for handlers short.

        Raises the fault of a step after all of them were done.
        """
        ends_s = time.monotonic() + self.deadline_s
        async with AsyncExitStack() as steps:
            # Read upwards: what is pushed last is done first.
            # 7. Connections last: acks and confirms needed them.
            steps.push_async_callback(self.bus.aclose)
            # 6. Nobody asks it any more.
            steps.push_async_callback(self.database.aclose)
            # 5. The last acks are on the wire before their AMQP channel is closed.
            steps.push_async_callback(self.bus.flush)
            # 4. What ended is published and acked; the bus is still there.
            steps.push_async_callback(self._settle_the_rest, ends_s)
            # 3. What runs may end; the workers close their connections.
            steps.push_async_callback(self._let_running_end, ends_s, hurry)
            # 2. What has not begun goes back before anything is waited for: another reactor has it at once.
            steps.callback(self._hand_back_waiting)
            # 1. Nothing new: what the bus still holds goes to another reactor.
            steps.push_async_callback(self._stop_consuming, ends_s)
            self.intake.stop()
            self.pace.stop()

    async def _stop_consuming(self, ends_s: float) -> None:
        stopping = asyncio.create_task(self.bus.stop_consuming(), name="penstock-stop-consuming")
        await asyncio.wait((stopping,), timeout=min(ANSWER_S, _left_s(ends_s)))
        if stopping.done():
            stopping.result()
        else:
            _log.warning(
                "the bus does not answer: the stop goes on, what was delivered and is not settled is handed out again"
            )
            stopping.cancel()

    async def _let_running_end(self, ends_s: float, hurry: asyncio.Event) -> None:
        left_s = _left_s(ends_s)
        try:
            unfinished, _ = await asyncio.gather(
                self.coroutines.drain(left_s, hurry), self.filler.drain(left_s, hurry)
            )
            for work in unfinished:
                self.settlement.hand_back(work)
        finally:
            self._hand_back_waiting()

    async def _settle_the_rest(self, ends_s: float) -> None:
        settled = asyncio.create_task(self.settlement.wait_settled(), name="penstock-last-settlements")
        await asyncio.wait((settled,), timeout=_left_s(ends_s) + LAST_PUBLISH_S)
        self.settlement.give_up()
        await settled

    def _hand_back_waiting(self) -> None:
        for work in [*self.apart.clear(), *self.counting.clear(), *self.dispatcher.clear()]:
            self.settlement.hand_back(work)


def _left_s(ends_s: float) -> float:
    return max(0.0, ends_s - time.monotonic())
