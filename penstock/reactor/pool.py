"""N slots that are kept alive: booted at their seats, lent out when idle, replaced when dead, renewed when used up.

```
 each seat: boot ─▶ idle ◀──▶ lent ─▶ (died: boot again after backoff | used up: boot the next, then close this one)
```
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from random import Random
from typing import Final

import structlog

from penstock.app.backoff import Backoff
from penstock.channels import wire
from penstock.channels.plan import WorkerPlan
from penstock.channels.service import Service
from penstock.config.workers import WorkersSection
from penstock.reactor.deadlines import watch_deadlines
from penstock.reactor.launch import start_fork_server
from penstock.reactor.processes import resident_bytes
from penstock.reactor.side_tasks import SideTasks
from penstock.reactor.slot_state import SlotDied, SlotFault, SlotState
from penstock.reactor.slots import Slot

#: A service none of whose workers has ever been ready gives up after so many of one seat died while booting.
BOOTS_BEFORE_GIVING_UP: Final = 5
#: Between two attempts to boot a slot that keeps dying; the first one comes at once.
RESPAWN: Final = Backoff(attempts=1, first_s=0.1, cap_s=5.0)

_log = structlog.get_logger("penstock.pool")


class Tenure:
    """The time of one slot on its seat."""

    def __init__(self) -> None:
        self.used_up = asyncio.Event()
        """Somebody has to take its place."""
        self.ended = asyncio.Event()
        """Somebody has."""


class Pool:
    """Keeps the slots alive; `start`, then `lend` and `give_back`, then `stop` and `aclose`."""

    def __init__(
        self,
        make_plan: Callable[[str], WorkerPlan],
        section: WorkersSection,
        services: Mapping[str, Service],
        side_tasks: SideTasks,
        *,
        on_line: Callable[[wire.Line], None],
        random: Random,
        in_process: bool = False,
    ) -> None:
        self._make_plan = make_plan
        self._section = section
        self._size = 1 if in_process else section.processes
        self._in_process = in_process
        self._services = services
        self._side_tasks = side_tasks
        self._on_line = on_line
        self._random = random
        self._slots: set[Slot] = set()
        self._idle: deque[Slot] = deque()
        self._retired: set[Slot] = set()
        self._tenures: dict[Slot, Tenure] = {}
        self._renewal: asyncio.Task[None] | None = None
        self._seats: list[asyncio.Task[None]] = []
        self._endings: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._on_idle: Callable[[], None]
        self._first_ready: asyncio.Future[None]
        self._deaths = 0

    def __repr__(self) -> str:
        busy = sum(1 for slot in self._slots if slot.state is SlotState.BUSY)
        return f"<Pool [{self._size} seats, {len(self._idle)} idle, {busy} busy, {self._deaths} died]>"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The slots that are booting or alive."""
        return tuple(self._slots)

    @property
    def idle(self) -> int:
        """How many slots can be lent."""
        return len(self._idle)

    @property
    def is_ready(self) -> bool:
        """True while a slot is booted, or none is wanted."""
        return not self._size or any(slot.state.value in ("idle", "busy") for slot in self._slots)

    @property
    def deaths(self) -> int:
        """Workers that died without being asked to."""
        return self._deaths

    async def start(self, on_idle: Callable[[], None]) -> None:
        """Start the fork server and the first slots; returns when one of them is ready.

        `on_idle` is called whenever a new slot can be lent. Raises `SlotFault` when the first worker says that it can
        never work, `SlotDied` when none gets that far.
        """
        if not self._size:
            return
        self._on_idle = on_idle
        if not self._in_process and self._section.start_method == "forkserver":
            # In this thread: its signal mask is what the fork server inherits.
            start_fork_server()
        self._first_ready = asyncio.get_running_loop().create_future()
        self._seats = [
            self._side_tasks.start(self._keep(f"{number}"), f"penstock-seat-{number}")
            for number in range(1, self._size + 1)
        ]
        watching = watch_deadlines(lambda: self._slots, self._section.kill_after_s)
        self._watch = self._side_tasks.start(watching, "penstock-deadlines")
        await self._first_ready

    def lend(self) -> Slot:
        """An idle slot, for one batch; there is one while `idle` is not 0."""
        return self._idle.popleft()

    def give_back(self, slot: Slot) -> None:
        """The slot has run its batch, or died of it."""
        if slot.state is SlotState.DEAD:
            self._mark_dead(slot)
        elif slot in self._retired:
            self._end(self._close(slot))
        else:
            self._idle.append(slot)
            self._check_used_up(slot)

    def renew(self) -> None:
        """Replace every slot, one after the other, by a successor that imports the handlers anew; asked again, from the start.

        A slot goes when its successor is ready. While the new code cannot be imported, the old slots serve.
        """
        if self._renewal is not None:
            self._renewal.cancel()
        if not self._is_stopping:
            self._renewal = self._side_tasks.start(self._renew_all(), "penstock-renewal")

    def stop(self) -> None:
        """Replace nobody any more; who dies from here on was asked to."""
        self._is_stopping = True
        if self._renewal is not None:
            self._renewal.cancel()
        for seat in self._seats:
            seat.cancel()

    async def aclose(self) -> None:
        """After `stop`, with every slot given back: end them all in order."""
        if self._seats:
            await asyncio.wait(self._seats)
        if self._watch is not None:
            self._watch.cancel()
        while self._endings:
            await asyncio.wait(set(self._endings))
        await asyncio.gather(*(self._close(slot) for slot in list(self._slots)))

    async def _keep(self, name: str) -> None:
        slot = await self._boot(name)
        while True:
            tenure = self._tenures[slot] = Tenure()
            self._idle.append(slot)
            self._on_idle()
            await tenure.used_up.wait()
            successor = await self._boot(name)
            if slot.state is not SlotState.DEAD:
                self._retire(slot)
            slot = successor
            tenure.ended.set()

    async def _renew_all(self) -> None:
        tenures = list(self._tenures.values())
        _log.info("the workers are replaced one by one, to import the handlers anew", slots=len(tenures))
        for tenure in tenures:
            tenure.used_up.set()
            await tenure.ended.wait()
        _log.info("every worker has been replaced", slots=len(tenures))

    async def _boot(self, name: str) -> Slot:
        failures = 0
        while True:
            slot: Slot | None = None
            try:
                slot = Slot(self._make_plan(name), self._services, self._on_line, self._died_idle)
                self._slots.add(slot)
                await slot.boot()
            except (SlotFault, SlotDied, OSError) as error:
                failures += 1
                self._forget(slot)
                hopeless = isinstance(error, SlotFault) or failures >= BOOTS_BEFORE_GIVING_UP
                if hopeless and not self._first_ready.done():
                    self._first_ready.set_exception(error)
                wait_s = RESPAWN.delay_s(failures, self._random)
                _log.error(
                    "a worker could not be started: tried again",
                    slot=name,
                    error=str(error),
                    after_s=round(wait_s, 2),
                )
                await asyncio.sleep(wait_s)
            except asyncio.CancelledError:
                if slot is not None:
                    await slot.kill("the service stopped")
                self._forget(slot)
                raise
            else:
                if not self._first_ready.done():
                    self._first_ready.set_result(None)
                _log.debug("a worker is ready", slot=name, pid=slot.pid)
                return slot

    def _forget(self, slot: Slot | None) -> None:
        if slot is not None:
            self._slots.discard(slot)
            slot.forget()

    def _died_idle(self, slot: Slot) -> None:
        if slot not in self._idle:
            return
        self._idle.remove(slot)
        _log.warning("an idle worker died: its slot comes back by itself", slot=slot.name, pid=slot.pid)
        self._end(self._bury_idle(slot))

    async def _bury_idle(self, slot: Slot) -> None:
        await slot.kill("it died while it was idle")
        self._mark_dead(slot)

    def _end(self, ending: Coroutine[None, None, None]) -> None:
        task = self._side_tasks.start(ending, "penstock-slot")
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    def _mark_dead(self, slot: Slot) -> None:
        self._slots.discard(slot)
        self._retired.discard(slot)
        if not self._is_stopping:
            self._deaths += 1
        slot.forget()
        tenure = self._tenures.pop(slot, None)
        if tenure is not None:
            tenure.used_up.set()

    def _check_used_up(self, slot: Slot) -> None:
        tenure = self._tenures.get(slot)
        if tenure is None or tenure.used_up.is_set():
            return
        most = self._section.recycle_messages
        most_bytes = self._section.recycle_mib * 1024 * 1024
        if (most and slot.messages >= most) or (most_bytes and resident_bytes(slot.pid) > most_bytes):
            _log.info(
                "a slot is used up: its successor is started",
                slot=slot.name,
                pid=slot.pid,
                messages=slot.messages,
            )
            tenure.used_up.set()

    def _retire(self, slot: Slot) -> None:
        self._tenures.pop(slot, None)
        if slot in self._idle:
            self._idle.remove(slot)
            self._end(self._close(slot))
        else:
            self._retired.add(slot)

    async def _close(self, slot: Slot) -> None:
        self._retired.discard(slot)
        if slot in self._idle:
            self._idle.remove(slot)
        if slot.state is not SlotState.DEAD:
            await slot.close(self._section.stop_timeout_s)
        self._slots.discard(slot)
        slot.forget()
