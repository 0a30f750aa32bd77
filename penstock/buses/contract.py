"""What a bus is to the reactor and to a client; both implementations pass one contract suite.

```
   bus ──deliver──▶ sink (only enqueues)          reactor ──publish(batch)──▶ bus ──confirm──▶ reactor
    ▲                                                │
    └────────────── ack / requeue ◀── settle ◀───────┘
```

What bounds it: a subscription's prefetch bounds what is delivered and unsettled; `publish` returns only when
every message of the batch is confirmed or refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from penstock.app.messages import FRESH, Headers, History, Outgoing
from penstock.app.queues import QueueDeclaration
from penstock.errors import PublishError


class Told(Protocol):
    """Who is told that an ack has left; what it does may not raise."""

    def note_acked(self, at_s: float) -> None:
        """The ack was written to the connection, or is durable in the file, at this time, monotonic."""
        ...


class Settler(Protocol):
    """Settles the deliveries of one AMQP channel incarnation, or of one claim on the embedded bus.

    Both calls only enqueue; they return False when the delivery is no longer ours to settle, because what it
    came over is gone: the bus hands the message out again.
    """

    @property
    def is_gone(self) -> bool:
        """True once deliveries that came over it can no longer be settled."""
        ...

    def ack(self, tag: int, told: Told | None = None) -> bool:
        """The delivery's effects are durable; the bus may forget it. `told` hears of it when the ack has left."""
        ...

    def requeue(self, tag: int) -> bool:
        """The delivery was not begun; the bus gives it to somebody else at once, not counted as a failure."""
        ...


@dataclass(slots=True, eq=False)
class Delivery:
    """A message that the bus has handed over and that is not settled yet."""

    queue: str
    tag: int
    settler: Settler
    body: bytes
    message_id: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    headers: Headers = field(default_factory=dict)
    correlation_id: str | None = None
    reply_to: str | None = None
    type: str | None = None
    priority: int | None = None
    timestamp_s: float | None = None
    redelivered: bool = False
    delivery_count: int | None = 0
    """The bus's own count of earlier deliveries, a hint: network cuts raise it too. None: it was delivered, uncounted."""
    history: History = FRESH
    """What Penstock wrote on it earlier; the default unless the bus vouches for the writer."""


Sink: TypeAlias = Callable[[Delivery], None]


@dataclass(frozen=True, slots=True)
class Subscription:
    """A queue to consume and how many unsettled deliveries it may have out at once."""

    queue: QueueDeclaration
    prefetch: int


@dataclass(frozen=True, slots=True)
class BusStatistics:
    """A moment of a bus, for metrics; what the other kind of bus counts is 0 or empty."""

    publishing_waits: str | None = None
    """Why the bus takes no messages now, in its own words; None: it takes them."""
    alarms: int = 0
    """How often it stopped taking them."""
    reconnects: Mapping[str, int] = field(default_factory=dict)
    """How often each of its connections came back, by its purpose."""
    consumers_restarted: int = 0
    """Consumers that were lost while their connection stood, and started again."""
    acks_waiting: int = 0
    """Acks and requeues that were asked for and have not left."""
    group_commits: Mapping[int, int] = field(default_factory=dict)
    """Commits of the embedded bus, by the number of requests in them."""


class Bus(Protocol):
    """One connection to a bus, for consuming and publishing; opened by `connect`, closed by `aclose`.

    After `connect` the bus heals itself: it reconnects, consumes again and goes on; `publish` waits for it within its timeout.
    """

    @property
    def is_connected(self) -> bool:
        """True while messages can be consumed and published."""
        ...

    def consuming(self) -> frozenset[str]:
        """Queues whose consumer the bus has confirmed and not taken back; none while the connection is down."""
        ...

    def statistics(self) -> BusStatistics:
        """A moment of it; harmless at any time."""
        ...

    async def connect(self) -> None:
        """Open it. Raises `BusUnavailable` when it cannot be reached or refuses the login."""
        ...

    async def declare(self, queues: Sequence[QueueDeclaration]) -> None:
        """Declare queues, bindings, dead-letter and delay queues.

        Raises `TopologyMismatch` naming *every* queue that exists with other arguments, or that is missing where `declare=False`.
        """
        ...

    async def consume(self, subscriptions: Sequence[Subscription], sink: Sink) -> None:
        """Start deliveries; `sink` is called on the loop for each and must not block or raise."""
        ...

    async def set_prefetch(self, queue: str, prefetch: int) -> None:
        """From now on a consumed queue has at most so many unsettled deliveries out; what is out already stays out."""
        ...

    async def stop_consuming(self) -> None:
        """No delivery comes after it returns; what is out can still be settled."""
        ...

    async def publish(self, messages: Sequence[Outgoing], *, timeout_s: float) -> list[PublishError | None]:
        """Publish with pipelined confirms; one entry a message, in order: None when confirmed.

        Entries are `Unroutable`, `PublishTimeout` (unknown: probably delivered) or `PublishError`; it does not raise for a message.
        """
        ...

    async def flush(self) -> None:
        """Returns when every ack and requeue asked for so far has been handed to the bus."""
        ...

    async def acks_taken(self, queues: Collection[str]) -> None:
        """Returns when the bus has taken the acks asked for so far on these queues, or its connection is gone."""
        ...

    async def depth(self, queue: str) -> int | None:
        """Messages that wait in a queue, unsettled ones not counted where the bus does not say; None: no such queue."""
        ...

    def hold(self, queue: str, *, limit: int) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Take up to `limit` messages out of a queue to look at, each once, the first ones first.

        Those not acked inside the block return to it, to their old places where the bus can. One that is requeued
        returns at once, or at the end of the block where it would be handed out again before that.
        """
        ...

    async def aclose(self) -> None:
        """Hand back what is unsettled and close; harmless when repeated or never connected."""
        ...
