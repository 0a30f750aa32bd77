"""The reactor: one event loop that consumes, fans out and settles.

```
 bus ─▶ intake ─▶ dispatcher ─▶ filler ══ slots ══▶ outcomes ─▶ settlement ─▶ bus
          │  ├▶ coroutines (async def) ────────────────▲
          │  └▶ counting, apart: suspects, one by one  │
          └▶ too long: straight to the settlement ─────┘
```
Prefetch bounds everything in here: a delivery is in exactly one of these places until it is settled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import structlog

from penstock.app.application import App
from penstock.app.messages import Outgoing
from penstock.buses.contract import Bus, Subscription
from penstock.channels.bus import BusService
from penstock.channels.db.exact import is_server
from penstock.channels.db.preparing import Preparer
from penstock.channels.db.service import DatabaseService
from penstock.channels.service import Service
from penstock.config import Settings
from penstock.errors import ConfigurationError, PublishError
from penstock.reactor.apart import Apart
from penstock.reactor.calls import Calls
from penstock.reactor.consume import Intake
from penstock.reactor.coroutines import Coroutines
from penstock.reactor.counting import Counting
from penstock.reactor.decide import Judge, Verdict
from penstock.reactor.dispatch import Dispatcher
from penstock.reactor.drain import Drain
from penstock.reactor.figures import Figures, figures_of
from penstock.reactor.filling import Filler
from penstock.reactor.join import Joiner
from penstock.reactor.launch import make_plan
from penstock.reactor.log import write_worker_line
from penstock.reactor.pace import Pace
from penstock.reactor.pool import Pool
from penstock.reactor.prefetch import refuse_endless, share_prefetch
from penstock.reactor.settle import Settlement
from penstock.reactor.side_tasks import SideTasks
from penstock.reactor.work import Served, Work

#: A sentence names no more queues than this.
NAMED_QUEUES: Final = 5

_log = structlog.get_logger("penstock.reactor")


class Stop:
    """A request to stop that is remembered whenever it comes; a second one hurries."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.hurry = asyncio.Event()

    def request(self) -> None:
        """Ask for a drain; asked again, what runs is no longer waited for."""
        if self.requested.is_set():
            self.hurry.set()
        self.requested.set()


@dataclass(frozen=True, slots=True)
class Statistics:
    """A moment of the reactor, for a progress bar and for tests."""

    delivered: int
    acked: int
    retried: int
    dead: int
    handed_back: int
    waiting: int
    unsettled: int
    worker_deaths: int


class Reactor:
    """Runs an application's handlers on a bus until it is asked to stop."""

    def __init__(
        self,
        app: App,
        address: str,
        bus: Bus,
        settings: Settings,
        *,
        only: Sequence[str] = (),
        inline: bool = False,
        random: Random | None = None,
    ) -> None:
        """`address` is `module:attribute` of the same application, for the workers to import.

        Raises `ConfigurationError` when no handler is left, when handlers need workers and there are none, and when a
        deadline exceeds the broker's consumer timeout;
        `HandlerError` when a pattern in `only` matches nothing or an annotation cannot be read.
        """
        random = random or Random()
        handlers = app.select(only)
        if not handlers:
            msg = f"application {address!r} has no handlers; declare one with @app.handler('queue')"
            raise ConfigurationError(msg)
        plain = [handler.queue.name for handler in handlers if not handler.is_async]
        if plain and not inline and settings.workers.processes == 0:
            msg = (
                f"workers.processes is 0 and these queues have plain handlers, which need a worker: {', '.join(plain)}; "
                "choose the async ones with --only, or set --processes"
            )
            raise ConfigurationError(msg)
        if not settings.bus.is_embedded:
            refuse_endless(
                handlers,
                kill_after_s=settings.workers.kill_after_s,
                consumer_timeout_s=settings.bus.consumer_timeout_s,
            )
        self._settings = settings
        self._in_process = inline
        self._changed = asyncio.Event()
        self._bus = bus
        self._served = [
            Served(index, handler, prefetch)
            for index, (handler, prefetch) in enumerate(
                zip(handlers, share_prefetch(handlers, settings.bus.prefetch_total), strict=True)
            )
        ]
        self._side_tasks = SideTasks()
        joiner = Joiner(remembered=sum(served.prefetch for served in self._served))
        self._settlement = Settlement(
            bus,
            Judge(settings.workers.crash_attempts, random),
            joiner,
            self._side_tasks,
            confirm_timeout_s=settings.bus.confirm_timeout_s,
            random=random,
            on_settled=self._note_settled,
        )
        self._counting = Counting(
            self._side_tasks, count_start=self._settlement.count_start, acks_taken=bus.acks_taken
        )
        self._apart = Apart(
            self._counting,
            set_apart=self._settlement.set_apart,
            set_free=self._settlement.set_free,
            run=self._begin,
        )
        self._database = DatabaseService(settings.database, frame_bytes=settings.limits.frame_bytes)
        services: Mapping[str, Service] = {
            "bus": BusService(self._publish, settings.bus.confirm_timeout_s),
            "db": self._database,
        }
        self._calls = Calls()
        services = self._calls.watch(services)
        self._dispatcher = Dispatcher()
        queues = tuple(handler.queue.name for handler in handlers)
        self._pool = Pool(
            lambda slot: make_plan(address, queues, slot, settings, in_process=inline),
            settings.workers if plain else settings.workers.model_copy(update={"processes": 0}),
            services,
            self._side_tasks,
            on_line=write_worker_line,
            random=random,
            in_process=inline and bool(plain),
        )
        self._filler = Filler(self._pool, self._dispatcher, self._side_tasks, settle=self._settlement.settle)
        coroutines = Coroutines(
            [served for served in self._served if served.handler.is_async],
            services,
            self._side_tasks,
            limits=settings.limits,
            preparer=Preparer(is_server=is_server(settings.database)),
            settle=self._settlement.settle,
        )
        self._intake = Intake(
            self._served,
            body_bytes=settings.limits.body_bytes,
            joiner=joiner,
            settlement=self._settlement,
            coroutines=coroutines,
            dispatcher=self._dispatcher,
            counting=self._counting,
            apart=self._apart,
            wake=self._filler.wake,
            on_delivered=self._changed.set,
        )
        self._pace = Pace(
            self._served,
            bus,
            self._dispatcher,
            self._settlement,
            count_slots=lambda: len(self._pool.slots),
            consumer_timeout_s=settings.bus.consumer_timeout_s,
        )
        self._drain = Drain(
            bus,
            self._intake,
            self._pace,
            self._dispatcher,
            self._counting,
            self._apart,
            coroutines,
            self._filler,
            self._settlement,
            self._database,
            settings.service.drain_seconds,
        )
        self.ready = asyncio.Event()
        """Set once messages are consumed."""

    def __repr__(self) -> str:
        unsettled = self.statistics().unsettled
        return f"<Reactor [{len(self._served)} handlers, {unsettled} unsettled, {self._pool!r}]>"

    def statistics(self) -> Statistics:
        """Counts since the start."""
        counts = self._settlement.counts
        return Statistics(
            delivered=self._intake.delivered,
            acked=counts[Verdict.ACKED],
            retried=counts[Verdict.RETRIED],
            dead=counts[Verdict.DEAD],
            handed_back=counts[Verdict.HANDED_BACK],
            waiting=len(self._dispatcher),
            unsettled=self._intake.delivered - sum(counts.values()),
            worker_deaths=self._pool.deaths,
        )

    def figures(self) -> Figures:
        """Everything that is counted, for metrics."""
        return figures_of(
            self._served,
            bus=self._bus,
            dispatcher=self._dispatcher,
            pool=self._pool,
            calls=self._calls,
            database=self._database,
        )

    def why_not_ready(self) -> list[str]:
        """Why messages are not handled now, in words; empty when they are."""
        if not self.ready.is_set():
            return ["it is starting"]
        consuming = self._bus.consuming()
        missing = [served.handler.queue.name for served in self._served]
        missing = [queue for queue in missing if queue not in consuming]
        words = []
        if missing:
            shown = ", ".join(repr(queue) for queue in missing[:NAMED_QUEUES])
            more = len(missing) - NAMED_QUEUES
            words.append(f"not consumed: {shown}" + (f" and {more} more" if more > 0 else ""))
        if not self._pool.is_ready:
            words.append("no worker is booted")
        return words

    def warnings(self) -> list[str]:
        """What does not keep messages from being handled and should be known, in words."""
        waits = self._bus.statistics().publishing_waits
        return [] if waits is None else [f"the bus takes no messages, what is published waits: {waits}"]

    async def wait_until(self, condition: Callable[[Statistics], bool]) -> Statistics:
        """Returns the statistics once the condition holds; looked at after every delivery and settlement."""
        while not condition(statistics := self.statistics()):
            self._changed.clear()
            await self._changed.wait()
        return statistics

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the workers that live."""
        return tuple(slot.pid for slot in self._pool.slots if slot.pid is not None)

    def renew_workers(self) -> None:
        """Replace the workers one by one, so that they import the handlers anew; nothing is lost, nothing pauses.

        Which queues there are, and what runs on the loop, stays as it was at the start.
        """
        if self._pool.slots and not self._in_process:
            self._pool.renew()
        else:
            _log.warning(
                "there is no worker to replace: start the service again to take its handlers anew",
                handlers=len(self._served),
            )

    async def run(self, stop: Stop) -> None:
        """Consume until `stop` is requested, then drain and return.

        Raises, before anything is consumed: `BusUnavailable`, `TopologyMismatch`, `SlotFault` when the workers can
        never work.
        """
        try:
            if await self._started_before(stop):
                _log.info(
                    "consuming", handlers=len(self._served), slots=len(self._pool.slots), bus=str(self._bus)
                )
                self.ready.set()
                await self._until(stop)
        finally:
            began_s = time.monotonic()
            await self._drain.run(stop.hurry)
            self._say_stopped(time.monotonic() - began_s)

    def _begin(self, work: Work) -> None:
        self._intake.begin(work)

    def _note_settled(self, work: Work) -> None:
        self._changed.set()
        if work.is_watched:
            self._counting.note_settled(work)
            self._apart.note_settled(work)

    async def _until(self, stop: Stop) -> None:
        """Returns when a stop is requested; raises the fault of a side task, which must not die quietly."""
        requested = asyncio.create_task(stop.requested.wait(), name="penstock-stop")
        fault = asyncio.create_task(self._side_tasks.wait_fault(), name="penstock-faults")
        done, waiting = await asyncio.wait((requested, fault), return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        for task in done:
            task.result()

    async def _started_before(self, stop: Stop) -> bool:
        """Start; False when a stop was requested before everything was up."""
        starting = asyncio.create_task(self._start(), name="penstock-start")
        stopping = asyncio.create_task(stop.requested.wait(), name="penstock-stop")
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait((starting,))
        if starting.cancelled():
            return False
        starting.result()
        return True

    async def _start(self) -> None:
        # The topology first: a mismatch must stop the start before a worker opens a connection.
        await self._bus.connect()
        declarations = [served.handler.queue for served in self._served]
        await self._bus.declare(declarations)
        if self._settings.database.url is not None:
            await self._database.start()
        await self._filler.start()
        self._side_tasks.start(self._pace.run(), "penstock-pace")
        subscriptions = [Subscription(served.handler.queue, served.prefetch) for served in self._served]
        await self._bus.consume(subscriptions, self._intake.deliver)

    def _say_stopped(self, took_s: float) -> None:
        statistics = self.statistics()
        _log.info(
            "stopped",
            acked=statistics.acked,
            retried=statistics.retried,
            dead=statistics.dead,
            handed_back=statistics.handed_back,
            took_s=round(took_s, 3),
        )

    async def _publish(self, messages: Sequence[Outgoing], timeout_s: float) -> list[PublishError | None]:
        return await self._bus.publish(messages, timeout_s=timeout_s)
