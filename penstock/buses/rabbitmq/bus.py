"""RabbitMQ as a bus: two supervised connections, one to consume and one to publish; a third for queues in trouble.

```
 aside      ─ AMQP channels ─▶ sink, ◀─ acks          opened by the first queue that the broker does not let be consumed
 consuming  ─ AMQP channels ─▶ sink, ◀─ acks          opened by the first `consume`
 publishing ─ publishes ─▶, ◀─ confirms; declarations and questions on AMQP channels of their own
```
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random

from aiormq.abc import AbstractConnection

from penstock.app.messages import Outgoing
from penstock.app.queues import QueueDeclaration
from penstock.buses.contract import BusStatistics, Delivery, Sink, Subscription
from penstock.buses.rabbitmq.aside import Aside
from penstock.buses.rabbitmq.broken import BROKEN, broken_is_an_error
from penstock.buses.rabbitmq.connection import CLOSE_S, Supervised
from penstock.buses.rabbitmq.consumers import Consumers
from penstock.buses.rabbitmq.holding import Holding
from penstock.buses.rabbitmq.publishing import Publisher
from penstock.buses.rabbitmq.topology import declare_all
from penstock.config.bus import BusSection
from penstock.errors import BusError, BusUnavailable, PublishError


class RabbitBus:
    """Implements the bus contract over AMQP 0-9-1; RabbitMQ 3.10 to 4.x."""

    def __init__(self, section: BusSection, *, random: Random | None = None) -> None:
        """Raises `ConfigurationError` for a URL that cannot be used; opens nothing."""
        self._section = section
        self._random = random or Random()
        self._consumers: Consumers | None = None
        self._aside: Aside | None = None
        self._consuming = Supervised("consuming", section, self._random, self._on_consuming_up)
        self._publishing = Supervised(
            "publishing",
            section,
            self._random,
            self._on_publishing_up,
            on_down=self._on_publishing_down,
            on_blocked=self._on_blocked,
        )
        self._publisher = Publisher(self._publishing.login, self._random)

    def __repr__(self) -> str:
        return f"<RabbitBus {self._consuming!r} {self._publishing!r}>"

    def __str__(self) -> str:
        return str(self._publishing)

    @property
    def is_connected(self) -> bool:
        """True while messages can be published, and consumed when they are."""
        return self._publishing.is_up and (self._consumers is None or self._consuming.is_up)

    def consuming(self) -> frozenset[str]:
        """Queues whose consumer the broker has confirmed; none while the consuming connection is down."""
        main, aside = self._consumers, self._aside
        queues = main.consuming() if main is not None and self._consuming.is_up else frozenset()
        return queues | aside.consumers.consuming() if aside is not None and aside.is_up else queues

    def statistics(self) -> BusStatistics:
        """A moment of both connections."""
        consumers = self._all_consumers()
        return BusStatistics(
            publishing_waits=self._publisher.blocked_because,
            alarms=self._publisher.alarms,
            reconnects={
                "consuming": self._consuming.reconnects,
                "publishing": self._publishing.reconnects,
                "aside": 0 if self._aside is None else self._aside.reconnects,
            },
            consumers_restarted=sum(one.restarted for one in consumers),
            acks_waiting=sum(one.acks_waiting for one in consumers),
        )

    async def connect(self) -> None:
        """Open the publishing connection. Raises `BusUnavailable`."""
        await self._publishing.open()

    async def declare(self, queues: Sequence[QueueDeclaration]) -> None:
        """Declare queues, bindings and dead-letter queues. Raises `TopologyMismatch`, `BusUnavailable`."""
        try:
            with broken_is_an_error():
                await declare_all(self._publishing.underlay, queues)
        except BROKEN as error:
            msg = (
                f"the connection to the broker broke while the queues were declared ({type(error).__name__}: {error}); "
                "nothing is consumed; start again, what is declared already stays"
            )
            raise BusUnavailable(msg) from error

    async def consume(self, subscriptions: Sequence[Subscription], sink: Sink) -> None:
        """Open the consuming connection and start deliveries. Raises `BusUnavailable`."""
        self._aside = Aside(self._section, sink, self._random)
        self._consumers = Consumers(
            subscriptions,
            sink,
            self._consuming.login,
            self._random,
            watch_s=self._section.watch_s,
            on_silent=self._aside.take_over,
        )
        await self._consuming.open()

    async def set_prefetch(self, queue: str, prefetch: int) -> None:
        """Consume one queue with another prefetch from now on."""
        for consumers in self._all_consumers():
            await consumers.set_prefetch(queue, prefetch)

    async def stop_consuming(self) -> None:
        """Cancel the consumers; what is out can still be settled."""
        await asyncio.gather(*(consumers.stop() for consumers in self._all_consumers()))

    async def publish(self, messages: Sequence[Outgoing], *, timeout_s: float) -> list[PublishError | None]:
        """Publish with pipelined confirms; waits for a lost connection within the timeout."""
        return await self._publisher.publish(messages, timeout_s)

    async def flush(self) -> None:
        """Returns when all acks asked for are written."""
        for consumers in self._all_consumers():
            consumers.flush()

    async def acks_taken(self, queues: Collection[str]) -> None:
        """Returns when the broker has answered on the AMQP channels of these queues, behind their acks."""
        for consumers in self._all_consumers():
            await consumers.acks_taken(queues)

    async def depth(self, queue: str) -> int | None:
        """Messages that are ready in a queue, unsettled ones not counted; None when it does not exist.

        Raises `BusUnavailable`.
        """
        try:
            with broken_is_an_error():
                return await self._publisher.control.depth(queue)
        except BROKEN as error:
            msg = (
                f"the broker did not say how many messages are in queue {queue!r} ({type(error).__name__}: {error}); "
                "they stay there; ask again"
            )
            raise BusUnavailable(msg) from error

    @asynccontextmanager
    async def hold(self, queue: str, *, limit: int) -> AsyncIterator[AsyncIterator[Delivery]]:
        """Take up to `limit` messages out to look at, with their headers; those not acked return at the end.

        Raises `BusUnavailable` when the connection breaks meanwhile: they have returned then, too.
        """
        if await self.depth(queue) is None:
            msg = f"there is no queue {queue!r} on the broker; nothing was taken"
            raise BusError(msg)
        underlay, wire = self._publishing.underlay, self._publishing.wire
        try:
            with broken_is_an_error():
                channel = await underlay.channel(publisher_confirms=False)
        except BROKEN as error:
            msg = f"queue {queue!r} cannot be looked through ({type(error).__name__}: {error}); nothing was taken"
            raise BusUnavailable(msg) from error
        holding = Holding(channel, wire, queue, self.depth, self._publishing.login, limit=limit)
        try:
            yield holding.deliveries()
            await holding.take_rest_of_line()
            await holding.settle_acks()
        except BaseException:
            # What interrupts whoever looks does not undo what was settled before.
            with suppress(BusUnavailable):
                await holding.settle_acks()
            raise
        finally:
            await holding.aclose()

    async def aclose(self) -> None:
        """Stop consuming, write the last acks, close the connections; harmless when repeated."""
        if self._consumers is not None and not self._consumers.is_stopping:
            # A broker that does not answer hands out again what it has not seen settled.
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stop_consuming(), CLOSE_S)
        await asyncio.gather(*(consumers.aclose() for consumers in self._all_consumers()))
        self._consumers, aside, self._aside = None, self._aside, None
        if aside is not None:
            await aside.aclose()
        await asyncio.gather(self._consuming.aclose(), self._publishing.aclose())

    def _all_consumers(self) -> list[Consumers]:
        main, aside = self._consumers, self._aside
        return [] if main is None or aside is None else [main, aside.consumers]

    async def _on_consuming_up(self, connection: AbstractConnection) -> None:
        if self._consumers is not None:
            await self._consumers.start(connection, self._consuming.wire)

    async def _on_publishing_up(self, connection: AbstractConnection) -> None:
        await self._publisher.start(connection)

    def _on_blocked(self, reason: str | None) -> None:
        self._publisher.blocked(reason)

    def _on_publishing_down(self) -> None:
        self._publisher.lost()
