"""N slots that are kept alive: filled when idle, replaced when dead, renewed when used up.

```
 dispatcher ──batch──▶ idle slot ──BatchEnd──▶ settlement
     ▲                     │ overrun: taken back
     └─────────────────────┘
 each seat: boot ─▶ serve ─▶ (died: boot again after backoff | used up: boot the next, then close this one)
```
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Final

import structlog

from penstock.app.backoff import Backoff
from penstock.app.outcomes import Died, Outcome
from penstock.channels import wire
from penstock.channels.plan import WorkerPlan
from penstock.channels.service import Service
from penstock.config.workers import WorkersSection
from penstock.reactor.batch_end import BatchEnd
from penstock.reactor.deadlines import watch_deadlines
from penstock.reactor.dispatch import Dispatcher
from penstock.reactor.launch import start_fork_server
from penstock.reactor.processes import resident_bytes
from penstock.reactor.side_tasks import SideTasks
from penstock.reactor.slots import Slot, SlotDied, SlotFault, SlotState
from penstock.reactor.work import Work

#: A batch that runs longer gives its unstarted deliveries back when another slot is idle.
OVERRUN_S: Final = 0.02
#: A service none of whose workers has ever been ready gives up after so many of one seat died while booting.
BOOTS_BEFORE_GIVING_UP: Final = 5
#: A worker that had read the old stop index has announced its delivery after so long: a memory write's way, and spare.
ANNOUNCED_S: Final = 0.001
#: Work that comes so soon after the batch before is a stream: below 100 messages a second nothing waits.
STREAM_S: Final = 0.01
#: Quick work of a stream waits so long for company.
GATHER_S: Final = 0.002
#: Between two attempts to boot a slot that keeps dying; the first one comes at once.
RESPAWN: Final = Backoff(attempts=1, first_s=0.1, cap_s=5.0)

_log = structlog.get_logger("penstock.pool")

Settle = Callable[[Sequence[tuple[Work, Outcome]]], None]


class Pool:
    """Keeps the slots and gives them work; `start`, then `wake` whenever work was added, then `drain`."""

    def __init__(
        self,
        make_plan: Callable[[str], WorkerPlan],
        section: WorkersSection,
        dispatcher: Dispatcher,
        services: Mapping[str, Service],
        side_tasks: SideTasks,
        *,
        settle: Settle,
        on_line: Callable[[wire.Line], None],
        random: Random,
        in_process: bool = False,
    ) -> None:
        self._make_plan = make_plan
        self._section = section
        self._size = 1 if in_process else section.processes
        self._in_process = in_process
        self._dispatcher = dispatcher
        self._services = services
        self._side_tasks = side_tasks
        self._settle = settle
        self._on_line = on_line
        self._random = random
        self._slots: set[Slot] = set()
        self._idle: deque[Slot] = deque()
        self._retired: set[Slot] = set()
        self._used_up: dict[Slot, asyncio.Event] = {}
        self._seats: list[asyncio.Task[None]] = []
        self._batches: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._fills_soon = False
        self._fills_later: asyncio.TimerHandle | None = None
        self._busy = 0
        self._filled_at_s = 0.0
        self._is_draining = False
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
    def deaths(self) -> int:
        """Workers that died without being asked to."""
        return self._deaths

    async def start(self) -> None:
        """Start the fork server and the first slots; returns when one of them is ready.

        Raises `SlotFault` when the first worker says that it can never work, `SlotDied` when none gets that far.
        """
        if not self._size:
            return
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

    def wake(self) -> None:
        """Work was added, or a slot became idle: fill in the next turn of the loop.

        While quick work streams in, or another slot is busy with it, a moment later: a batch of three messages costs as
        much as one of a hundred.
        """
        if self._fills_soon or not self._idle:
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
        for seat in self._seats:
            seat.cancel()
        await self._take_back_all()
        if self._batches:
            hurried = asyncio.create_task(hurry.wait())
            running = asyncio.gather(*self._batches)
            await asyncio.wait((hurried, running), timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            if not running.done():
                for slot in list(self._slots):
                    if slot.state is SlotState.BUSY:
                        _log.warning(
                            "a handler did not end within the drain deadline: its worker is killed, the message is handed back",
                            slot=slot.name,
                            pid=slot.pid,
                            deadline_s=deadline_s,
                        )
                        await slot.kill("the service stopped")
                await running
        if self._seats:
            await asyncio.wait(self._seats)
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.gather(*(self._close(slot) for slot in list(self._slots)))

    # --- filling

    def _fill(self) -> None:
        self._fills_soon = False
        if self._fills_later is not None:
            self._fills_later.cancel()
            self._fills_later = None
        if self._is_draining:
            return
        while self._idle and len(self._dispatcher):
            works = self._dispatcher.take(len(self._idle))
            if not works:
                return
            slot = self._idle.popleft()
            self._busy += 1
            self._filled_at_s = asyncio.get_running_loop().time()
            self._spawn(self._run(slot, works))

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
        if slot.state is SlotState.DEAD:
            self._mark_dead(slot)
            if self._is_draining:
                # Killed by the stop, not by the message: it is handed back, nothing is charged.
                died = [work for work, outcome in end.ended if isinstance(outcome, Died)]
                end.ended = [(work, outcome) for work, outcome in end.ended if not isinstance(outcome, Died)]
                self._dispatcher.put_back(died)
        elif slot in self._retired:
            self._spawn(self._close(slot))
        else:
            self._idle.append(slot)
            self._check_used_up(slot)
        self._settle(end.ended)
        if len(self._dispatcher):
            self.wake()

    def _overran(self, slot: Slot) -> None:
        if slot.state is not SlotState.BUSY:
            return
        loop = asyncio.get_running_loop()
        if self._idle and not len(self._dispatcher) and slot.ask_back():
            loop.call_later(ANNOUNCED_S, self._take_back, slot)
        loop.call_later(OVERRUN_S, self._overran, slot)

    def _take_back(self, slot: Slot) -> None:
        taken = slot.take_back()
        if taken:
            self._dispatcher.put_back(taken)
            self.wake()

    async def _take_back_all(self) -> None:
        asked = [slot for slot in self._slots if slot.ask_back()]
        if asked:
            await asyncio.sleep(ANNOUNCED_S)
            for slot in asked:
                self._dispatcher.put_back(slot.take_back())

    # --- keeping

    async def _keep(self, name: str) -> None:
        slot = await self._boot(name)
        while True:
            event = self._used_up[slot] = asyncio.Event()
            self._idle.append(slot)
            self.wake()
            await event.wait()
            successor = await self._boot(name)
            if slot.state is not SlotState.DEAD:
                self._retire(slot)
            slot = successor

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
        self._spawn(self._bury_idle(slot))

    async def _bury_idle(self, slot: Slot) -> None:
        await slot.kill("it died while it was idle")
        self._mark_dead(slot)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = self._side_tasks.start(coroutine, "penstock-slot")
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)

    def _mark_dead(self, slot: Slot) -> None:
        self._slots.discard(slot)
        self._retired.discard(slot)
        if not self._is_draining:
            self._deaths += 1
        slot.forget()
        event = self._used_up.pop(slot, None)
        if event is not None:
            event.set()

    def _check_used_up(self, slot: Slot) -> None:
        event = self._used_up.get(slot)
        if event is None or event.is_set():
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
            event.set()

    def _retire(self, slot: Slot) -> None:
        self._used_up.pop(slot, None)
        if slot in self._idle:
            self._idle.remove(slot)
            self._spawn(self._close(slot))
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
