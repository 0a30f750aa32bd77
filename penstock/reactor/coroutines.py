"""`async def` handlers: they run on the loop, one task a delivery; prefetch bounds how many.

A coroutine that blocks the loop blocks everything; work that needs a core belongs into a plain function.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Final

import structlog

from penstock.app.context import AsyncContext
from penstock.app.decode import Decoder
from penstock.app.failure import failure_of, outcome_of
from penstock.app.outcomes import (
    DONE,
    Outcome,
    Returned,
    Unreadable,
)
from penstock.channels.bus import LocalBus
from penstock.channels.db.local import LocalDatabase
from penstock.channels.db.preparing import Preparer
from penstock.channels.jobs import message_info
from penstock.channels.service import Caller, Service
from penstock.config.limits import LimitsSection
from penstock.errors import DatabaseBusy, DatabaseLost, DeadlineExceeded, PayloadError
from penstock.reactor.settle import Settle
from penstock.reactor.side_tasks import SideTasks
from penstock.reactor.work import Served, Work, job_of, note_run

#: A cancelled handler gets so long for its clean-up.
CANCEL_WAIT_S: Final = 2.0

_log = structlog.get_logger("penstock.coroutines")


class Coroutines:
    """Runs async handlers and hands their outcomes to `settle`; `preparer` is of the database that "db" leads to."""

    def __init__(
        self,
        served: Sequence[Served],
        services: Mapping[str, Service],
        side_tasks: SideTasks,
        *,
        limits: LimitsSection,
        preparer: Preparer,
        settle: Settle,
        state: SimpleNamespace | None = None,
    ) -> None:
        self._decoders = {one.index: Decoder(one.handler, body_bytes=limits.body_bytes) for one in served}
        self._frame_bytes = limits.frame_bytes
        self._services = services
        self._preparer = preparer
        self._side_tasks = side_tasks
        self._settle = settle
        self._state = SimpleNamespace() if state is None else state
        self._running: dict[asyncio.Task[None], Work] = {}

    def __repr__(self) -> str:
        return f"<Coroutines [{len(self._running)} running]>"

    def start(self, work: Work) -> None:
        """Run the delivery's handler; returns at once."""
        task = self._side_tasks.start(self._run(work), f"penstock-{work.served.handler.name}")
        self._running[task] = work
        task.add_done_callback(self._running.pop)

    async def drain(self, deadline_s: float, hurry: asyncio.Event) -> list[Work]:
        """Wait so many seconds for what runs; cancel the rest and return it for handing back.

        A handler that swallows its cancellation is waited for no longer than `CANCEL_WAIT_S`.
        """
        if not self._running:
            return []
        hurried = asyncio.create_task(hurry.wait())
        ended = asyncio.gather(*self._running, return_exceptions=True)
        await asyncio.wait((hurried, ended), timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        left = dict(self._running)
        for task in left:
            task.cancel()
        await asyncio.wait((ended,), timeout=CANCEL_WAIT_S)
        for work in self._running.values():
            _log.error(
                "an async handler goes on although it was cancelled: its message is handed back and may run twice; "
                "let CancelledError pass in it",
                **work.fields,
            )
        return [work for work in left.values() if not work.is_settled]

    async def _run(self, work: Work) -> None:
        handler, delivery = work.served.handler, work.delivery
        caller = Caller(f"handler {handler.name}")
        bus = LocalBus(self._services["bus"], caller, limit_bytes=self._frame_bytes)
        bus.begin(delivery.message_id, handler.name)
        began_s = time.monotonic()
        try:
            outcome = await self._handle(work, bus, caller)
        finally:
            # Also when cancelled: an open transaction must not outlive its message.
            for service in self._services.values():
                service.forget(caller)
        note_run(work, began_s, time.monotonic())
        self._settle([(work, outcome)])

    async def _handle(self, work: Work, bus: LocalBus, caller: Caller) -> Outcome:
        handler, delivery = work.served.handler, work.delivery
        decoder = self._decoders[work.served.index]
        try:
            payload = decoder.decode(delivery.body, delivery.content_type, delivery.content_encoding)
        except PayloadError as error:
            return Unreadable(error.reason)
        except Exception as error:  # noqa: BLE001 - a validator of the author's may raise anything
            reason = f"the body could not be decoded: {type(error).__name__}: {error}"
            return Unreadable(reason, failure_of(error))
        arguments = (payload, self._context(work, bus, caller)) if handler.wants_context else (payload,)
        deadline = asyncio.timeout(handler.options.timeout_s)
        try:
            async with deadline:
                await handler.function(*arguments)
            published = bus.take()
        except asyncio.CancelledError as error:
            # A stop cancels the task; a bare one comes from a library whose connection is frozen.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return outcome_of(error, charged=True)
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are failures like others
            if deadline.expired() and isinstance(error, TimeoutError):
                exceeded = DeadlineExceeded(
                    f"the handler ran longer than its timeout of {handler.options.timeout_s:g} s"
                )
                return outcome_of(exceeded.with_traceback(error.__traceback__), charged=True)
            return outcome_of(
                error,
                charged=not isinstance(error, DatabaseBusy),
                lost_amid=isinstance(error, DatabaseLost),
            )
        return Returned(published) if published else DONE

    def _context(self, work: Work, bus: LocalBus, caller: Caller) -> AsyncContext:
        handler = work.served.handler
        message = message_info(handler, job_of(work))
        log = structlog.get_logger(handler.name).bind(**work.fields, slot="loop", attempt=message.attempt)
        db = LocalDatabase(self._services["db"], caller, self._preparer)
        return AsyncContext(message, bus=bus, db=db, state=self._state, log=log)
