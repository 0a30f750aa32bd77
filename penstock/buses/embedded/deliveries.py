"""What a consuming bus has out and what it wants next: a state machine without any input or output.

```
 claimed ──arrive──▶ out (tag) ──settle──▶ settled ──next_round──▶ in the round ──▶ done
                      │                                                └──failed──▶ settled, again
                      └── lose_lease: out of our hands, the bus hands them out again
```

A tag is given once in the life of a bus, a message's id may come back: after a requeue an old tag settles
nothing. What bounds it: each consumer has at most `prefetch` out; a round settles `SETTLED_AT_ONCE` at most.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from msgspec.structs import replace

from penstock.app.messages import FRESH, History
from penstock.buses.contract import Delivery, Sink, Told
from penstock.buses.embedded.riding import without_riding
from penstock.buses.embedded.rounds import Claim, Round
from penstock.buses.embedded.store import Claimed

SETTLED_AT_ONCE: Final = 2000

Settlement: TypeAlias = Literal["ack", "requeue", "unseen"]


@dataclass(slots=True, eq=False)
class Consumer:
    """A queue being consumed."""

    queue_id: int
    queue: str
    prefetch: int
    sink: Sink
    out: int = 0
    """Deliveries that are not settled."""


@dataclass(slots=True, frozen=True)
class _Settled:
    message: int
    how: Settlement
    told: Told | None = None
    """Hears of it when it is durable."""


@dataclass(slots=True, frozen=True)
class _Out:
    message: int
    consumer: Consumer | None


class LeaseSettler:
    """Settles what was claimed under one lease."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries
        self._is_gone = False

    def __repr__(self) -> str:
        return f"<LeaseSettler {'gone' if self._is_gone else 'ours'}>"

    @property
    def is_gone(self) -> bool:
        """True once the lease has ended: its deliveries are handed out again."""
        return self._is_gone

    def ack(self, tag: int, told: Told | None = None) -> bool:
        """Forget the message; False when it is not ours to settle, or settled already. `told` hears when it is durable."""
        return not self._is_gone and self._deliveries.settle(tag, "ack", told)

    def requeue(self, tag: int) -> bool:
        """Give the message back; False when it is not ours to settle, or settled already."""
        return not self._is_gone and self._deliveries.settle(tag, "requeue")

    def give_up(self) -> None:
        """The lease has ended."""
        self._is_gone = True


class Deliveries:
    """Owned by the loop; `on_settled` is called when a settlement waits for a round."""

    def __init__(self, on_settled: Callable[[], None]) -> None:
        self._on_settled = on_settled
        self._consumers: dict[int, Consumer] = {}
        self._to_look_at: dict[int, None] = {}
        self._out: dict[int, _Out] = {}
        self._settled: deque[_Settled] = deque()
        self._in_round: list[_Settled] = []
        self._tags = itertools.count(1)
        self._settler = LeaseSettler(self)
        self.asked = 0
        """Settlements asked for so far."""
        self.done = 0
        """Of those, how many are durable or void."""

    def __repr__(self) -> str:
        return (
            f"<Deliveries from {len(self._consumers)} queues, {len(self._out)} out, "
            f"{self.asked - self.done} being settled>"
        )

    @property
    def has_settlements(self) -> bool:
        """True while something waits to be settled by the next round."""
        return bool(self._settled)

    def is_consuming(self, queue_id: int) -> bool:
        """Whether a queue is being consumed."""
        return queue_id in self._consumers

    def consuming(self) -> frozenset[str]:
        """The queues that are being consumed."""
        return frozenset(consumer.queue for consumer in self._consumers.values())

    def consume(self, consumers: Iterable[Consumer]) -> None:
        """Begin to claim from more queues."""
        for consumer in consumers:
            self._consumers[consumer.queue_id] = consumer
            self._to_look_at[consumer.queue_id] = None

    def set_prefetch(self, queue: str, prefetch: int) -> None:
        """Claim until so many of this queue are out."""
        for consumer in self._consumers.values():
            if consumer.queue == queue:
                consumer.prefetch = prefetch

    def stop(self) -> None:
        """Claim nothing more; what a round in flight brings goes back unseen."""
        self._consumers.clear()
        self._to_look_at.clear()

    def look_at(self, queues: Collection[int] | None) -> None:
        """Messages may wait there; None: anywhere. Queues that are not consumed are nothing to us."""
        concerned = self._consumers.keys() if queues is None else self._consumers.keys() & queues
        self._to_look_at.update(dict.fromkeys(concerned))

    def settle(self, tag: int, how: Settlement, told: Told | None = None) -> bool:
        """Settle what is out under `tag`; False when nothing is."""
        out = self._out.pop(tag, None)
        if out is None:
            return False
        if out.consumer is not None:
            out.consumer.out -= 1
        self._settled.append(_Settled(out.message, how, told))
        self.asked += 1
        self._on_settled()
        return True

    def next_claims(self) -> tuple[Claim, ...]:
        """What there is room for, each queue in its turn."""
        consumers = [self._consumers[queue_id] for queue_id in self._to_look_at]
        claims = tuple(
            Claim(consumer.queue_id, consumer.prefetch - consumer.out)
            for consumer in consumers
            if consumer.out < consumer.prefetch
        )
        for claim in claims:
            # What wakes us while the round is in flight puts it back, and so does a full answer.
            del self._to_look_at[claim.queue_id]
        return claims

    def next_settlements(self, *, everything: bool = False) -> dict[Settlement, tuple[int, ...]]:
        """What the next round settles, by kind."""
        count = len(self._settled) if everything else min(SETTLED_AT_ONCE, len(self._settled))
        self._in_round = [self._settled.popleft() for _ in range(count)]
        kinds: dict[Settlement, list[int]] = {"ack": [], "requeue": [], "unseen": []}
        for settled in self._in_round:
            kinds[settled.how].append(settled.message)
        return {how: tuple(messages) for how, messages in kinds.items()}

    def known(self) -> frozenset[int]:
        """Every message that we believe to have claimed."""
        return frozenset(
            itertools.chain(
                (out.message for out in self._out.values()),
                (settled.message for settled in self._settled),
                (settled.message for settled in self._in_round),
            )
        )

    def settled(self, now_s: float) -> None:
        """The round in flight is durable, since now, monotonic."""
        for settled in self._in_round:
            if settled.told is not None:
                settled.told.note_acked(now_s)
        self.done += len(self._in_round)
        self._in_round = []

    def failed(self, round_: Round) -> None:
        """The round in flight came to nothing: all of it is wanted again."""
        self._settled.extendleft(reversed(self._in_round))
        self._in_round = []
        self.look_at({claim.queue_id for claim in round_.claims})

    def arrive(self, claim: Claim, claimed: list[Claimed]) -> None:
        """Deliver what a consumer's claim brought; when it has stopped meanwhile, it goes back unseen."""
        consumer = self._consumers.get(claim.queue_id)
        if consumer is None:
            self.send_back(claimed)
            return
        if len(claimed) == claim.limit:
            self._to_look_at[claim.queue_id] = None
        consumer.out += len(claimed)
        for delivery in [self._deliver(message, consumer.queue, consumer) for message in claimed]:
            consumer.sink(delivery)

    def hand_out(self, queue: str, claimed: list[Claimed]) -> list[Delivery]:
        """Deliveries that no consumer's prefetch counts, of what somebody holds to look at."""
        return [self._deliver(message, queue, None) for message in claimed]

    def send_back(self, claimed: Iterable[Claimed]) -> None:
        """Nobody is there to see what was claimed."""
        for message in claimed:
            self._settled.append(_Settled(message.id, "unseen"))
            self.asked += 1

    def lose_lease(self) -> None:
        """Everything that is out, or being settled, is out of our hands."""
        self._settler.give_up()
        self._settler = LeaseSettler(self)
        for out in self._out.values():
            if out.consumer is not None:
                out.consumer.out -= 1
        self._out.clear()
        self._settled.clear()
        self._in_round = []
        self.done = self.asked
        self.look_at(None)

    def _deliver(self, message: Claimed, queue: str, consumer: Consumer | None) -> Delivery:
        tag = next(self._tags)
        self._out[tag] = _Out(message.id, consumer)
        headers, riding = without_riding(message.headers)
        return Delivery(
            queue=queue,
            tag=tag,
            settler=self._settler,
            body=message.body,
            message_id=message.message_id,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers=headers,
            correlation_id=message.correlation_id,
            reply_to=message.reply_to,
            type=message.type,
            priority=message.priority,
            timestamp_s=message.published_at_s,
            redelivered=bool(message.redelivered),
            delivery_count=message.delivery_count,
            history=_history(message, riding),
        )


def _history(message: Claimed, riding: History) -> History:
    # Only Penstock writes these columns: whoever may write the file is trusted with them.
    if riding is FRESH and not (message.attempts or message.crashes):
        return FRESH
    return replace(
        riding,
        attempts=message.attempts,
        crashes=message.crashes,
        first_failed_at_s=message.first_failed_at_s,
    )
