"""`async def` handlers: they run on the loop, one task a delivery; prefetch bounds how many.

A coroutine that blocks the loop blocks everything; work that needs a core belongs into a plain function.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Final

import structlog

from penstock.app.context import COMMIT_UNKNOWN, AsyncContext, MessageInfo
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
from penstock.channels.service import Caller, Service
from penstock.config.limits import LimitsSection
from penstock.errors import DatabaseBusy, DeadlineExceeded, PayloadError
from penstock.reactor.side_tasks import SideTasks
from penstock.reactor.work import Served, Work

#: A cancelled handler gets so long for its clean-up.
CANCEL_WAIT_S: Final = 2.0

_log = structlog.get_logger("penstock.coroutines")

Settle = Callable[[Sequence[tuple[Work, Outcome]]], None]


class Coroutines:
    """Runs async handlers and hands their outcomes to `settle`."""

    def __init__(
        self,
        served: Sequence[Served],
        services: Mapping[str, Service],
        side_tasks: SideTasks,
        *,
        limits: LimitsSection,
        settle: Settle,
        state: SimpleNamespace | None = None,
    ) -> None:
        self._decoders = {one.index: Decoder(one.handler, body_bytes=limits.body_bytes) for one in served}
        self._frame_bytes = limits.frame_bytes
        self._services = services
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
                handler=work.served.handler.name,
                queue=work.delivery.queue,
                message_id=work.delivery.message_id,
            )
        return [work for work in left.values() if not work.is_settled]

    async def _run(self, work: Work) -> None:
        handler, delivery = work.served.handler, work.delivery
        caller = Caller(f"handler {handler.name}")
        bus = LocalBus(self._services["bus"], caller, limit_bytes=self._frame_bytes)
        bus.begin(delivery.message_id, handler.name)
        try:
            outcome = await self._handle(work, bus, caller)
        finally:
            # Also when cancelled: an open transaction must not outlive its message.
            for service in self._services.values():
                service.forget(caller)
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
            return outcome_of(error, charged=not isinstance(error, DatabaseBusy))
        return Returned(published) if published else DONE

    def _context(self, work: Work, bus: LocalBus, caller: Caller) -> AsyncContext:
        handler, delivery = work.served.handler, work.delivery
        attempt = delivery.history.attempts + 1
        message = MessageInfo(
            id=delivery.message_id,
            queue=delivery.queue,
            handler=handler.name,
            attempt=attempt,
            redelivered=delivery.redelivered,
            headers=delivery.headers,
            correlation_id=delivery.correlation_id,
            reply_to=delivery.reply_to,
            type=delivery.type,
            timestamp_s=delivery.timestamp_s,
            redelivered_after=COMMIT_UNKNOWN if delivery.history.commit_unknown else None,
        )
        log = structlog.get_logger(handler.name).bind(
            message_id=message.id, queue=message.queue, handler=handler.name, slot="loop", attempt=attempt
        )
        return AsyncContext(
            message, bus=bus, db=LocalDatabase(self._services["db"], caller), state=self._state, log=log
        )
