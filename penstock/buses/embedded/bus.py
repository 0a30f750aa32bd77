"""The embedded bus: a durable queue in one SQLite file, for any number of reactors and publishers on one machine.

```
 publish ─▶ Publishing ─┐                       ┌─▶ sink (deliveries)
 declare, depth ────────┼─▶ Writer (one thread) ├─▶ confirms
 ack, requeue ─▶ Pump ──┘   group commit        └─▶ pipes of other processes
```

What bounds it: prefetch bounds what is claimed, a publish has one chunk of its batch in the writer at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from penstock.app.messages import Outgoing
from penstock.app.queues import QueueDeclaration
from penstock.buses.contract import BusStatistics, Delivery, Settler, Sink, Subscription
from penstock.buses.embedded import store, topology
from penstock.buses.embedded.clock import BusClock
from penstock.buses.embedded.deliveries import Consumer
from penstock.buses.embedded.file import path_of
from penstock.buses.embedded.publishing import FREE_FLOOR_BYTES, Publishing
from penstock.buses.embedded.pump import Pump
from penstock.buses.embedded.rounds import Claim
from penstock.buses.embedded.store import Place
from penstock.buses.embedded.writer import Transaction, Writer
from penstock.config.bus import BusSection
from penstock.errors import BusError, BusUnavailable, PublishError, TopologyMismatch

#: Messages that `hold` takes at a time: fewer at first and when they are large, so that about `HELD_BYTES` are in memory.
HELD_FIRST = 8
HELD_AT_ONCE = 500
HELD_BYTES = 64 * 1024 * 1024


class EmbeddedBus:
    """`penstock.buses.contract.Bus` on a SQLite file of its own; belongs to the loop that connected it.

    `free_floor_bytes`: with less free space on the disk, publishing is refused. Raises `ConfigurationError` when
    the URL names no file.
    """

    def __init__(self, section: BusSection, *, free_floor_bytes: int = FREE_FLOOR_BYTES) -> None:
        self.path = path_of(section.url.get_secret_value())
        self._section = section
        self._clock = BusClock()
        self._free_floor_bytes = free_floor_bytes
        self._publishing = Publishing(self.path, self._clock, free_floor_bytes)
        self._writer: Writer | None = None
        self._pump: Pump | None = None

    def __repr__(self) -> str:
        return f"<EmbeddedBus {self.path} {self._pump or self._writer or 'closed'}>"

    def __str__(self) -> str:
        return f"sqlite:///{self.path}"

    @property
    def is_connected(self) -> bool:
        """True while the file can be written, and what is consumed is delivered."""
        return (
            self._writer is not None
            and self._writer.is_open
            and self._writer.is_healthy
            and (self._pump is None or self._pump.is_alive)
        )

    def consuming(self) -> frozenset[str]:
        """Queues that are consumed, while the file can be written and what is in it is delivered."""
        if self._pump is None or not self.is_connected:
            return frozenset()
        return self._pump.deliveries.consuming()

    def statistics(self) -> BusStatistics:
        """A moment of it."""
        deliveries = None if self._pump is None else self._pump.deliveries
        return BusStatistics(
            publishing_waits=self._publishing.why_it_refuses(),
            alarms=self._publishing.refusals,
            acks_waiting=0 if deliveries is None else deliveries.asked - deliveries.done,
            group_commits={} if self._writer is None else self._writer.group_commits.copy(),
        )

    async def connect(self) -> None:
        """Open the file, or create it.

        Raises `BusUnavailable` when it is another program's, a newer Penstock's or damaged, cannot be written, or
        stays locked for `bus.connect_timeout_s`.
        """
        if self._writer is not None:
            return
        writer = Writer(self.path, self._prepare, self._on_commit)
        try:
            await asyncio.wait_for(writer.open(), self._section.connect_timeout_s)
        except TimeoutError as error:
            raise BusUnavailable(
                f"the embedded bus's file {self.path} was locked by another process for "
                f"{self._section.connect_timeout_s:g} s; `fuser {self.path}` names it"
            ) from error
        self._writer = writer

    async def declare(self, queues: Sequence[QueueDeclaration]) -> None:
        """Declare queues with their bindings and dead-letter queues; all of them or none.

        Raises `TopologyMismatch` naming every queue that exists otherwise, or that is missing where `declare=False`.
        """
        await self._open_writer().run(
            lambda at: topology.declare(at.connection, queues), cost=2 * len(queues)
        )

    async def consume(self, subscriptions: Sequence[Subscription], sink: Sink) -> None:
        """Start deliveries; `sink` is called on the loop for each.

        Raises `TopologyMismatch` when one of the queues was never declared, `BusError` when one is consumed here already.
        """
        names = [subscription.queue.name for subscription in subscriptions]
        found = await self._find(names)
        missing = [
            f"queue {name!r} does not exist on the bus; declare it first"
            for name in names
            if name not in found
        ]
        if missing:
            raise TopologyMismatch(missing)
        pump = self._started_pump()
        twice = [name for name in names if names.count(name) > 1 or pump.deliveries.is_consuming(found[name])]
        if twice:
            raise BusError(
                f"queue {twice[0]!r} is being consumed on this bus already; one subscription has its prefetch"
            )
        pump.consume(
            [Consumer(found[sub.queue.name], sub.queue.name, sub.prefetch, sink) for sub in subscriptions]
        )

    async def set_prefetch(self, queue: str, prefetch: int) -> None:
        """From now on a consumed queue has at most so many unsettled deliveries out; what is out already stays out."""
        if self._pump is not None:
            self._pump.deliveries.set_prefetch(queue, prefetch)
            self._pump.look_at(None)

    async def stop_consuming(self) -> None:
        """No delivery comes after it returns; what is out can still be settled."""
        if self._pump is not None:
            self._pump.stop_consuming()

    async def publish(self, messages: Sequence[Outgoing], *, timeout_s: float) -> list[PublishError | None]:
        """Store them; returns after the COMMIT that holds them, one entry a message: None when stored."""
        return await self._publishing.publish(self._open_writer(), messages, timeout_s)

    async def flush(self) -> None:
        """Returns when every ack and requeue asked for so far is durable. Raises `BusError` when the bus has ended."""
        if self._pump is not None:
            await self._pump.flush()

    async def acks_taken(self, queues: Collection[str]) -> None:  # noqa: ARG002 - they share one file
        """Returns when they are durable. Raises `BusError` when the bus has ended."""
        await self.flush()

    async def depth(self, queue: str) -> int | None:
        """Messages that wait in a queue; those delivered and unsettled or delayed are not counted."""

        def count(at: Transaction) -> int | None:
            found = topology.find_queue(at.connection, queue)
            return None if found is None else store.count_ready(at.connection, found[0])

        return await self._open_writer().run(count)

    @asynccontextmanager
    async def hold(self, queue: str, *, limit: int) -> AsyncIterator[AsyncIterator[Delivery]]:
        """Take up to `limit` messages out of a queue, first ones first, each once; what is not acked returns to it.

        Raises `BusError` when there is no such queue.
        """
        found = await self._find([queue])
        if queue not in found:
            raise BusError(f"there is no queue {queue!r} on this bus; look for a typing error in the name")
        pump = self._started_pump()
        held: list[tuple[Settler, int]] = []

        async def messages() -> AsyncIterator[Delivery]:
            after: Place = store.BEFORE_ALL
            at_once = HELD_FIRST
            while len(held) < limit:
                wanted = min(limit - len(held), at_once)
                taken, place = await pump.take(queue, Claim(found[queue], wanted, after))
                held.extend((delivery.settler, delivery.tag) for delivery in taken)
                largest_bytes = max((len(delivery.body) for delivery in taken), default=1)
                at_once = max(1, min(HELD_AT_ONCE, HELD_BYTES // max(1, largest_bytes), 8 * at_once))
                if place is None:
                    return
                after = place
                taken.reverse()
                while taken:
                    yield taken.pop()

        try:
            yield messages()
        finally:
            # Whoever has settled one already is told False, and that is all.
            for settler, tag in held:
                settler.requeue(tag)
            await pump.flush()

    async def aclose(self) -> None:
        """Hand back what is unsettled, end the lease, close the file, end the thread; harmless when repeated."""
        pump, writer = self._pump, self._writer
        try:
            if pump is not None:
                await pump.aclose()
        finally:
            self._pump = None
            if writer is not None:
                await writer.aclose()
            self._writer = None
            if pump is not None:
                pump.drop_pipe()

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise BusUnavailable(f"the embedded bus {self.path} is not connected: await connect() first")
        return self._writer

    def _started_pump(self) -> Pump:
        if self._pump is None:
            self._pump = Pump(
                self.path,
                self._open_writer(),
                self._clock,
                lease_s=self._section.lease_s,
                backoff_cap_s=self._section.reconnect_cap_s,
                free_floor_bytes=self._free_floor_bytes,
            )
            self._pump.start()
        return self._pump

    async def _find(self, names: Sequence[str]) -> dict[str, int]:
        def find(at: Transaction) -> dict[str, int]:
            rows = ((name, topology.find_queue(at.connection, name)) for name in names)
            return {name: found[0] for name, found in rows if found is not None}

        return await self._open_writer().run(find)

    def _prepare(self, transaction: Transaction) -> None:
        self._clock.load(transaction.connection)

    def _on_commit(self, touched: set[int]) -> None:
        if self._pump is not None:
            self._pump.look_at(touched)
