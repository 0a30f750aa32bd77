"""Idle slots are filled with work, and give back what they could not begin.

```
 dispatcher ──batch──▶ idle slot ──BatchEnd──▶ settlement
     ▲                     │ overrun: taken back
     └─────────────────────┘
```
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from penstock.app.outcomes import Died
from penstock.reactor.batch_end import BatchEnd
from penstock.reactor.dispatch import Dispatcher
from penstock.reactor.pool import Pool
from penstock.reactor.settle import Settle
from penstock.reactor.side_tasks import SideTasks
from penstock.reactor.slot_state import SlotState
from penstock.reactor.slots import Slot
from penstock.reactor.work import Work

#: A batch that runs longer gives its unstarted deliveries back when another slot is idle.
OVERRUN_S: Final = 0.02
#: A worker that had read the old stop index has announced its delivery after so long: a memory write's way, and spare.
ANNOUNCED_S: Final = 0.001
#: Work that comes so soon after the batch before is a stream: below 100 messages a second nothing waits.
STREAM_S: Final = 0.01
#: Quick work of a stream waits so long for company.
GATHER_S: Final = 0.002

_log = structlog.get_logger("penstock.filling")


class Filler:
    """Gives the pool's idle slots work; `start`, then `wake` whenever work was added, then `drain`."""

    def __init__(self, pool: Pool, dispatcher: Dispatcher, side_tasks: SideTasks, *, settle: Settle) -> None:
        self._pool = pool
        self._dispatcher = dispatcher
        self._side_tasks = side_tasks
        self._settle = settle
        self._batches: set[asyncio.Task[None]] = set()
        self._fills_soon = False
        self._fills_later: asyncio.TimerHandle | None = None
        self._busy = 0
        self._filled_at_s = 0.0
        self._is_draining = False

    def __repr__(self) -> str:
        return f"<Filler [{self._busy} batches out]>"

    async def start(self) -> None:
        """Start the pool; raises what `Pool.start` raises."""
        await self._pool.start(self.wake)

    def wake(self) -> None:
        """Work was added, or a slot became idle: fill in the next turn of the loop.

        While quick work streams in, or another slot is busy with it, a moment later: a batch of three messages costs as
        much as one of a hundred.
        """
        if self._fills_soon or not self._pool.idle:
            return
        loop = asyncio.get_running_loop()
        streams = self._busy or loop.time() - self._filled_at_s < STREAM_S
        if not streams or self._dispatcher.is_worth_a_slot():
            if self._fills_later is not None:
                self._fills_later.cancel()
                self._fills_later = None
            self._fills_soon = True
            loop.call_soon(self._fill)
        elif self._fills_later is None:
            self._fills_later = loop.call_later(GATHER_S, self._fill)

    async def drain(self, deadline_s: float, hurry: asyncio.Event) -> None:
        """Begin nothing more; take unstarted deliveries back; let what runs end for so many seconds; close the slots.

        What still runs at the deadline, or when `hurry` is set, is killed and handed back.
        """
        self._is_draining = True
        self._pool.stop()
        await self._take_back_all()
        if self._batches:
            hurried = asyncio.create_task(hurry.wait())
            running = asyncio.gather(*self._batches)
            await asyncio.wait((hurried, running), timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            if not running.done():
                for slot in self._pool.slots:
                    if slot.state is SlotState.BUSY:
                        _log.warning(
                            "a handler did not end within the drain deadline: its worker is killed, the message is handed back",
                            slot=slot.name,
                            pid=slot.pid,
                            deadline_s=deadline_s,
                        )
                        await slot.kill("the service stopped")
                await running
        await self._pool.aclose()

    def _fill(self) -> None:
        self._fills_soon = False
        if self._fills_later is not None:
            self._fills_later.cancel()
            self._fills_later = None
        if self._is_draining:
            return
        while self._pool.idle and len(self._dispatcher):
            works = self._dispatcher.take(self._pool.idle)
            if not works:
                return
            slot = self._pool.lend()
            self._busy += 1
            self._filled_at_s = asyncio.get_running_loop().time()
            batch = self._side_tasks.start(self._run(slot, works), "penstock-batch")
            self._batches.add(batch)
            batch.add_done_callback(self._batches.discard)

    async def _run(self, slot: Slot, works: list[Work]) -> None:
        overrun = (
            asyncio.get_running_loop().call_later(OVERRUN_S, self._overran, slot) if len(works) > 1 else None
        )
        end = await slot.run(works)
        self._busy -= 1
        if overrun is not None:
            overrun.cancel()
        self._after(slot, end)

    def _after(self, slot: Slot, end: BatchEnd) -> None:
        if end.unstarted:
            self._dispatcher.put_back(end.unstarted)
        if slot.state is SlotState.DEAD and self._is_draining:
            # Killed by the stop, not by the message: it is handed back, nothing is charged.
            died = [work for work, outcome in end.ended if isinstance(outcome, Died)]
            end.ended = [(work, outcome) for work, outcome in end.ended if not isinstance(outcome, Died)]
            self._dispatcher.put_back(died)
        self._pool.give_back(slot)
        self._settle(end.ended)
        if len(self._dispatcher):
            self.wake()

    def _overran(self, slot: Slot) -> None:
        if slot.state is not SlotState.BUSY:
            return
        loop = asyncio.get_running_loop()
        if self._pool.idle and not len(self._dispatcher) and slot.ask_back():
            loop.call_later(ANNOUNCED_S, self._take_back, slot)
        loop.call_later(OVERRUN_S, self._overran, slot)

    def _take_back(self, slot: Slot) -> None:
        taken = slot.take_back()
        if taken:
            self._dispatcher.put_back(taken)
            self.wake()

    async def _take_back_all(self) -> None:
        asked = [slot for slot in self._pool.slots if slot.ask_back()]
        if asked:
            await asyncio.sleep(ANNOUNCED_S)
            for slot in asked:
                self._dispatcher.put_back(slot.take_back())
