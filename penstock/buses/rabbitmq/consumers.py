"""All consumers of a reactor, on as many AMQP channels as they need; a watchdog asks the broker about each in turn."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Final

from aiormq.abc import AbstractConnection

from penstock.buses.contract import Sink, Subscription
from penstock.buses.rabbitmq.consuming import ConsumingChannel
from penstock.buses.rabbitmq.stream import Wire
from penstock.buses.rabbitmq.topology import Control
from penstock.buses.rabbitmq.watchdog import Silence

#: Queues on one AMQP channel: when one of them takes the AMQP channel down, so many stop for a moment.
QUEUES_PER_CHANNEL: Final = 16


class Consumers:
    """All consumers of one reactor; `start` again on each new connection."""

    def __init__(
        self,
        subscriptions: Sequence[Subscription],
        sink: Sink,
        login: str,
        random: Random,
        *,
        watch_s: float,
        on_silent: Callable[[Subscription], None] | None = None,
    ) -> None:
        """`on_silent` takes over a queue that does not answer its consumer; without it that is waited for."""
        self._connection: AbstractConnection | None = None
        self._broken_off: AbstractConnection | None = None
        """The connection that we gave up ourselves, because a queue did not answer."""

        def hand_over(silent: Subscription) -> None:
            self._broken_off = self._connection
            if on_silent is not None:
                on_silent(silent)

        def make_group(members: Sequence[Subscription]) -> ConsumingChannel:
            return ConsumingChannel(
                members, sink, login, random, on_silent=None if on_silent is None else hand_over
            )

        self._make_group = make_group
        size = QUEUES_PER_CHANNEL
        self._groups = [
            make_group(subscriptions[start : start + size]) for start in range(0, len(subscriptions), size)
        ]
        self._watch_s = watch_s
        self.is_stopping = False
        """True once they were asked to stop."""
        self._watching: asyncio.Task[None] | None = None

    def add(self, subscription: Subscription) -> None:
        """One more queue, on an AMQP channel of its own; consumed with the next `start`, also on the same connection."""
        self._groups.append(self._make_group([subscription]))

    async def start(self, connection: AbstractConnection, wire: Wire) -> None:
        """Consume on a connection that has just been opened, and watch that the broker delivers.

        Raises what a broken connection raises, unless we broke it off ourselves: then it is lost, and opened again.
        """
        self._connection = connection
        begun = await asyncio.gather(
            *(group.start(connection, wire) for group in self._groups), return_exceptions=True
        )
        for error in begun:
            if isinstance(error, BaseException) and self._broken_off is not connection:
                raise error
        self._stop_watching()
        if not self.is_stopping:
            self._watching = asyncio.create_task(self._watch(connection), name="penstock-watch")

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self, connection: AbstractConnection) -> None:
        places = [(group, queue) for group in self._groups for queue in group.queues]
        control = Control(connection)
        silences = {queue: Silence() for _, queue in places}
        for group, queue in itertools.cycle(places):
            # One question after the other, over the whole time: 200 at once would be felt.
            await asyncio.sleep(self._watch_s / len(places))
            if connection.is_closed:
                return
            await group.look_at(queue, silences[queue], control)

    async def stop(self) -> None:
        """Cancel all consumers; what was delivered before has reached the sink when it returns."""
        self.is_stopping = True
        self._stop_watching()
        await asyncio.gather(*(group.stop() for group in self._groups))

    async def set_prefetch(self, queue: str, prefetch: int) -> None:
        """Consume one queue with another prefetch from now on."""
        for group in self._groups:
            await group.set_prefetch(queue, prefetch)

    def consuming(self) -> frozenset[str]:
        """Queues whose consumer the broker has confirmed and not cancelled."""
        return frozenset().union(*(group.consuming() for group in self._groups))

    @property
    def restarted(self) -> int:
        """Consumers that were lost while their connection stood, and started again."""
        return sum(group.restarted for group in self._groups)

    @property
    def acks_waiting(self) -> int:
        """Acks and requeues that were asked for and are not written."""
        return sum(group.acks_waiting for group in self._groups)

    def flush(self) -> None:
        """Write all acks asked for so far."""
        for group in self._groups:
            group.flush()

    async def acks_taken(self, queues: Collection[str]) -> None:
        """Returns when the broker has read the acks of these queues, or their AMQP channels are gone."""
        groups = [group for group in self._groups if not frozenset(queues).isdisjoint(group.queues)]
        await asyncio.gather(*(group.acks_taken() for group in groups))

    async def aclose(self) -> None:
        """Close the AMQP channels; the broker hands out again what is unsettled."""
        self._stop_watching()
        await asyncio.gather(*(group.aclose() for group in self._groups))
