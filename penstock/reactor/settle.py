"""The only place of the reactor that acks and requeues: once a delivery, after its effects are durable.

```
 outcome ─▶ decide ─▶ publish what it says, confirmed ─▶ ack
                                   │ refused
                                   ▼
                     unroutable: dead letter of its own; bus away: again until it is back
```
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Final, TypeAlias

import structlog

from penstock.app import header_names
from penstock.app.backoff import Backoff
from penstock.app.messages import Outgoing
from penstock.app.outcomes import DONE, Outcome
from penstock.app.payloads import MAX_SHORT_BYTES
from penstock.app.queues import QueueDeclaration
from penstock.buses.contract import Bus, Delivery
from penstock.errors import BusError, NotCarried, PublishError, Unroutable
from penstock.reactor.decide import Cause, Decision, Judge, Verdict
from penstock.reactor.join import Joiner
from penstock.reactor.side_tasks import SideTasks
from penstock.reactor.tally import Tally
from penstock.reactor.work import Work

#: Pause before publishing again what the bus did not take; drawn from 0 to the ceiling.
PUBLISH_AGAIN: Final = Backoff(attempts=1, first_s=0.2, cap_s=3.0)

#: Why nobody took what a handler published.
UNROUTABLE: Final = "unroutable"
NOT_CARRIED: Final = "not carried"

_log = structlog.get_logger("penstock.settle")

#: How those who run handlers hand over what ended.
Settle: TypeAlias = Callable[[Sequence[tuple[Work, Outcome]]], None]


class Settlement:
    """Applies decisions; every work that comes in is acked or requeued exactly once.

    What bounds its tasks: each holds at least one unsettled delivery, so prefetch does.
    """

    def __init__(
        self,
        bus: Bus,
        judge: Judge,
        joiner: Joiner,
        side_tasks: SideTasks,
        *,
        confirm_timeout_s: float,
        random: Random,
        on_settled: Callable[[Work], None],
    ) -> None:
        self._bus = bus
        self._judge = judge
        self._joiner = joiner
        self._side_tasks = side_tasks
        self._confirm_timeout_s = confirm_timeout_s
        self._random = random
        self._on_settled = on_settled
        self._tasks: set[asyncio.Task[None]] = set()
        self._gives_up = False
        self.counts: Counter[Verdict] = Counter()

    def __repr__(self) -> str:
        return f"<Settlement [{len(self._tasks)} publishing, {sum(self.counts.values())} settled]>"

    def settle(self, ended: Iterable[tuple[Work, Outcome]]) -> None:
        """Settle works that ended: bare ones at once, the others after what they publish is confirmed."""
        now_s = time.monotonic()
        rest: list[tuple[Work, Decision]] = []
        for work, outcome in ended:
            work.served.tally.note_outcome(outcome)
            if not work.ended_s:
                # It died, or was never run: there is no better moment to count its ack's lag from.
                work.ended_s = now_s
            if outcome is DONE:
                self._ack(work, now_s, Verdict.ACKED)
                continue
            decision = self._judge.decide(outcome, work.delivery, work.served.handler, now_s=time.time())
            if decision.publish:
                rest.append((work, decision))
            else:
                self._ack(work, now_s, decision.verdict)
        if rest:
            self._publish_then_ack(rest)

    def count_start(self, work: Work) -> None:
        """It came back, uncounted: it goes to the end of its queue, counted."""
        decide = self._judge.count_start
        self._settle_unrun(work, decide(work.delivery, work.served.handler, now_s=time.time()))

    def set_apart(self, work: Work) -> bool:
        """It may have ended a whole service: it comes back to run alone. False: it is a dead letter now."""
        history = work.delivery.history
        if history.alone:
            _log.warning(
                "a service ended while this message ran alone",
                **work.fields,
                crashes=history.crashes + 1,
                of=self._judge.crash_attempts,
            )
        decide = self._judge.set_apart
        decision = decide(work.delivery, work.served.handler, now_s=time.time())
        self._settle_unrun(work, decision)
        return decision.verdict is not Verdict.DEAD

    def hand_back(self, work: Work) -> None:
        """The bus gives it to somebody else at once; it was not begun, or cannot be ended here."""
        delivery = work.delivery
        if delivery.history.alone and not delivery.redelivered and not self._gives_up:
            self.set_free(work)
        else:
            # What came back with the mark is still to be counted, by whoever has it next.
            self._requeue(work)

    def set_free(self, work: Work) -> None:
        """It was to run alone, and cannot now: it goes to the end of its queue without the mark."""
        if not work.is_settled:
            decide = self._judge.set_free
            self._settle_unrun(work, decide(work.delivery, work.served.handler, now_s=time.time()))

    def _requeue(self, work: Work) -> None:
        if work.is_settled:
            return
        work.is_settled = True
        self._joiner.forget(work)
        work.delivery.settler.requeue(work.delivery.tag)
        self.counts[Verdict.HANDED_BACK] += 1
        work.served.tally.handed_back += 1
        self._on_settled(work)

    def ack_again(self, delivery: Delivery) -> None:
        """A redelivery of what was settled before, and whose ack was lost."""
        delivery.settler.ack(delivery.tag)

    def give_up(self) -> None:
        """What cannot be published now is handed back instead of tried again; for a stop."""
        self._gives_up = True
        for task in self._tasks:
            task.cancel()

    async def wait_settled(self) -> None:
        """Returns when nothing is being published any more."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _settle_unrun(self, work: Work, decision: Decision) -> None:
        work.ended_s = time.monotonic()
        self._publish_then_ack([(work, decision)])

    def _publish_then_ack(self, decided: Sequence[tuple[Work, Decision]]) -> None:
        task = self._side_tasks.start(self._publish_and_ack(decided), "penstock-settle")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _publish_and_ack(self, rest: Sequence[tuple[Work, Decision]]) -> None:
        for work, decision in rest:
            _tell(work, decision)
        pending = list(rest)
        tries = 0
        try:
            while pending := await self._publish_once(pending):
                tries += 1
                await asyncio.sleep(PUBLISH_AGAIN.delay_s(tries, self._random))
        except asyncio.CancelledError:
            if not self._gives_up:
                raise
            # It may have arrived: the next run publishes it with the same ids.
            for work, _ in pending:
                _log.warning(
                    "the bus did not take what a message published before the stop: it is handed back and runs again",
                    **work.fields,
                )
                self._requeue(work)

    async def _publish_once(self, pending: Sequence[tuple[Work, Decision]]) -> list[tuple[Work, Decision]]:
        messages = [message for _, decision in pending for message in decision.publish]
        results = iter(await self._bus.publish(messages, timeout_s=self._confirm_timeout_s))
        left: list[tuple[Work, Decision]] = []
        gone: dict[str, QueueDeclaration] = {}
        for work, decision in pending:
            again: list[Outgoing] = []
            for message, error in [(message, next(results)) for message in decision.publish]:
                if error is not None:
                    again += _after_refusal(work, message, error)
                    if isinstance(error, Unroutable) and _is_dead_letter(work, message):
                        gone[message.routing_key] = work.served.handler.queue
            if again:
                left.append((work, replace(decision, publish=tuple(again))))
            else:
                self._ack(
                    work,
                    time.monotonic(),
                    decision.verdict,
                    has_twin=decision.has_twin,
                    cause=decision.cause,
                )
        if gone:
            await self._declare_again(gone)
        return left

    async def _declare_again(self, gone: Mapping[str, QueueDeclaration]) -> None:
        """Dead-letter queues that somebody deleted: their letters would wait for them for ever."""
        try:
            await self._bus.declare(list(gone.values()))
        except BusError as error:
            _log.error(
                "a dead-letter queue is gone and cannot be declared again: tried again; its messages stay unacked",
                dead_letter_queues=list(gone),
                error=str(error),
            )
        else:
            _log.warning("a dead-letter queue was gone: it is declared again", dead_letter_queues=list(gone))

    def _ack(
        self,
        work: Work,
        now_s: float,
        verdict: Verdict,
        *,
        has_twin: bool = False,
        cause: Cause | None = None,
    ) -> None:
        if work.is_settled:
            return
        work.is_settled = True
        # False: its AMQP channel is gone. The joiner remembers, and acks the redelivery.
        work.delivery.settler.ack(work.delivery.tag, work)
        if has_twin:
            # Were the ack lost, the message would run again; were its twin taken for it, that one would be lost.
            self._joiner.forget(work)
        else:
            self._joiner.end(work, now_s)
        self.counts[verdict] += 1
        _count(work.served.tally, verdict, cause)
        self._on_settled(work)


def _count(tally: Tally, verdict: Verdict, cause: Cause | None) -> None:
    if verdict is Verdict.ACKED:
        tally.acked += 1
    elif verdict is Verdict.RETRIED:
        tally.retried += 1
    elif verdict is Verdict.COUNTED:
        tally.counted += 1
    else:
        assert cause is not None
        tally.dead[cause.value] += 1


def _after_refusal(work: Work, message: Outgoing, error: PublishError) -> list[Outgoing]:
    """What to publish instead: a dead letter of its own for what no try would change, anything else again."""
    dead = work.served.handler.queue.dead_name
    log = _log.bind(published_id=message.message_id, to=message.destination, **work.fields)
    if isinstance(error, NotCarried):
        work.served.tally.undeliverable[NOT_CARRIED] += 1
        log.error(
            "a message cannot be written as it is: it is now a dead letter, without its headers",
            error=str(error),
        )
        return [_own_dead_letter(work, message, f"not carried: {error}", is_whole=False)]
    if isinstance(error, Unroutable) and not _is_dead_letter(work, message):
        work.served.tally.undeliverable[UNROUTABLE] += 1
        log.error("a message is unroutable: it is now a dead letter", dead_letter_queue=dead)
        reason = f"unroutable: published to {message.destination}, where no queue is bound"
        return [_own_dead_letter(work, message, reason, is_whole=True)]
    log.warning(
        "the bus did not confirm a message: it is published again with the same id",
        error=str(error),
    )
    return [message]


def _is_dead_letter(work: Work, message: Outgoing) -> bool:
    return not message.exchange and message.routing_key == work.served.handler.queue.dead_name


def _own_dead_letter(work: Work, message: Outgoing, reason: str, *, is_whole: bool) -> Outgoing:
    headers = message.headers if is_whole else {}
    own = {
        **headers,
        header_names.REASON: reason,
        header_names.QUEUE: message.routing_key,
        header_names.HANDLER: work.served.handler.name,
    }
    if message.exchange:
        own[header_names.EXCHANGE] = message.exchange
    return Outgoing(
        routing_key=work.served.handler.queue.dead_name,
        body=message.body,
        # An id that grew beyond AMQP's limit was Latin-1 once; its beginning still finds it.
        message_id=message.message_id.encode()[:MAX_SHORT_BYTES].decode(errors="ignore"),
        content_type=message.content_type if is_whole else None,
        headers=own,
    )


def _tell(work: Work, decision: Decision) -> None:
    if decision.verdict is Verdict.ACKED:
        return
    log = _log.bind(**work.fields, attempt=max(1, decision.attempts), reason=decision.reason)
    if decision.verdict is Verdict.DEAD:
        log.error("message dead lettered", dead_letter_queue=work.served.handler.queue.dead_name)
    elif decision.verdict is Verdict.COUNTED:
        log.info("message goes to the end of its queue, counted")
    else:
        log.warning("message is retried", after_s=round(decision.publish[0].delay_s, 3))
