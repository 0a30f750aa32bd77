"""What comes from the bus, and where it goes; `deliver` is the bus's sink and only enqueues.

```
 deliver ─▶ redelivered? joins its running work, or is acked again
         ─▶ stopping? handed back
         ─▶ may have ended a service? counted first, and run one at a time
         ─▶ too long? settled as a dead letter, unread
         ─▶ async def? a coroutine     plain? the dispatcher, and the filler is woken
```
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog

from penstock.app.decode import too_long
from penstock.app.outcomes import Unreadable
from penstock.buses.contract import Delivery
from penstock.reactor.apart import Apart
from penstock.reactor.coroutines import Coroutines
from penstock.reactor.counting import Counting
from penstock.reactor.dispatch import Dispatcher
from penstock.reactor.join import Joiner
from penstock.reactor.settle import Settlement
from penstock.reactor.suspicion import Suspicion, suspicion
from penstock.reactor.work import Served, Work

_log = structlog.get_logger("penstock.consume")


class Intake:
    """Takes deliveries on; prefetch bounds how many."""

    def __init__(
        self,
        served: Sequence[Served],
        *,
        body_bytes: int,
        joiner: Joiner,
        settlement: Settlement,
        coroutines: Coroutines,
        dispatcher: Dispatcher,
        counting: Counting,
        apart: Apart,
        wake: Callable[[], None],
        on_delivered: Callable[[], None],
    ) -> None:
        self._by_queue = {one.handler.queue.name: one for one in served}
        self._body_bytes = body_bytes
        self._joiner = joiner
        self._settlement = settlement
        self._coroutines = coroutines
        self._dispatcher = dispatcher
        self._counting = counting
        self._apart = apart
        self._wake = wake
        self._on_delivered = on_delivered
        self._is_stopped = False
        self.delivered = 0
        """Deliveries taken on; those that joined an earlier one are not counted again."""

    def stop(self) -> None:
        """From now on every delivery is handed back."""
        self._is_stopped = True

    def deliver(self, delivery: Delivery) -> None:
        """Take one delivery on; never blocks, never raises for what it holds."""
        if delivery.redelivered and self._joins(delivery):
            self._by_queue[delivery.queue].tally.joined += 1
            return
        self.delivered += 1
        served = self._by_queue[delivery.queue]
        served.tally.delivered += 1
        work = Work(delivery, served, alone=delivery.history.crashes > 0 or delivery.history.alone)
        self._joiner.begin(work)
        suspected = suspicion(delivery)
        if self._is_stopped:
            self._settlement.hand_back(work)
        elif suspected is Suspicion.CLEAR:
            if delivery.history.may_have_run:
                self._counting.admit(work, self.begin)
            else:
                self.begin(work)
        elif suspected is Suspicion.UNCOUNTED:
            self._counting.count(work)
        else:
            self._apart.take_on(work)
        self._on_delivered()

    def begin(self, work: Work) -> None:
        """It is its turn: to a coroutine, or to the line for a slot."""
        delivery, served = work.delivery, work.served
        if len(delivery.body) > self._body_bytes:
            # Refused here: it would be copied twice to reach a worker.
            self._settlement.settle([(work, Unreadable(too_long(len(delivery.body), self._body_bytes)))])
        elif served.handler.is_async:
            self._coroutines.start(work)
        else:
            self._dispatcher.add(work)
            self._wake()

    def _joins(self, delivery: Delivery) -> bool:
        running = self._joiner.find_running(delivery)
        if running is not None:
            running.delivery = delivery
            _log.info(
                "a redelivered message joins its work, which is still running",
                message_id=delivery.message_id,
                queue=delivery.queue,
            )
            return True
        if self._joiner.has_ended(delivery, time.monotonic()):
            self._settlement.ack_again(delivery)
            _log.info(
                "a redelivered message had ended here, its ack was lost: it is acked again",
                message_id=delivery.message_id,
                queue=delivery.queue,
            )
            return True
        return False
