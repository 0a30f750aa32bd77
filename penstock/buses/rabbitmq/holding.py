"""Messages taken out of a queue to look at, and put back in their order.

```
 queue ─ window (a consumer with a prefetch) ─▶ arrived ─▶ whoever looks
   ▲                                                          │ acked: gone
   └──────── AMQP channel closed: all others, in order ◀──────┘
```
AMQP has no way to look at a message without taking it. Asking for one after the other (basic.get) gives 300 a second
from a quorum queue, a consumer 10,000. What bounds it: a window is at most `WINDOW_MESSAGES`, and about
`WINDOW_BYTES` of bodies; of what was looked at nothing stays here.

A quorum queue keeps what is returned in a line of its own, which is served first. So what is taken from the head
returns to the head, unless the line holds others already: then it would return behind those. Whoever leaves early
makes us take the rest of the line, too, and all of it returns together. It takes a window's consumer for every
4,000 messages, and up to 32 consumers return in order.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from aiormq.abc import AbstractChannel

from penstock.buses.contract import Delivery, Told
from penstock.buses.rabbitmq.acks import ChannelSettler
from penstock.buses.rabbitmq.broken import BROKEN, broken_is_an_error
from penstock.buses.rabbitmq.headers import to_delivery
from penstock.buses.rabbitmq.stream import Content, Wire, not_called
from penstock.errors import BusUnavailable

WINDOW_MESSAGES: Final = 4000
WINDOW_BYTES: Final = 64 * 1024 * 1024
#: The first window is so many messages, and each next one so many times as long: nobody knows yet how large they are.
GROWTH: Final = 8
#: With nothing arriving for so long the broker is asked whether there is more.
QUIET_S: Final = 0.1
#: It says that there is more and delivers nothing for so long: something is wrong with the queue.
STALLED_S: Final = 15.0
#: What returns is waited for, so that whoever looks next finds the order; not longer.
RETURN_WAIT_S: Final = 2.0
RETURN_STEP_S: Final = 0.01
#: So many of the line's others are taken for the sake of the order.
MOST_FOR_ORDER: Final = 200_000


class HeldSettler:
    """Settles what is held: an ack at once, and everything else returns when the holding ends."""

    def __init__(self, settler: ChannelSettler) -> None:
        self._settler = settler
        self.acked = 0
        """Acks asked for so far."""

    @property
    def is_gone(self) -> bool:
        """True once nothing that is held can be settled any more."""
        return self._settler.is_gone

    def ack(self, tag: int, told: Told | None = None) -> bool:
        """The message may be forgotten."""
        if not self._settler.ack(tag, told):
            return False
        self.acked += 1
        return True

    def requeue(self, tag: int) -> bool:  # noqa: ARG002 - the contract's
        """It returns at the end, with the others and in its order: now it would be handed out again at once."""
        return not self.is_gone


class Holding:
    """One AMQP channel on which up to `limit` messages of a queue are held. Its calls raise `BusUnavailable`."""

    def __init__(
        self,
        channel: AbstractChannel,
        wire: Wire,
        queue: str,
        depth: Callable[[str], Awaitable[int | None]],
        login: str,
        *,
        limit: int,
    ) -> None:
        self._channel = channel
        self._queue = queue
        self._depth = depth
        self._login = login
        self._limit = limit
        self._writer = ChannelSettler(channel.number, wire)
        self._settler = HeldSettler(self._writer)
        self._numbers = itertools.count(1)
        self._consumer: str | None = None
        self._room = 0
        """How many the consumer may still bring."""
        self._is_at_end = False
        self._size = 1
        self._largest_bytes = 1
        self._arrived: deque[Content] = deque()
        self._some_arrived = asyncio.Event()
        self._taken = 0
        """What the broker has handed over, looked at or not."""
        self._is_last_returned = False
        """The last one that was looked at came from the line of returned messages."""
        wire.splitter.take(channel.number, self._on_message, self._writer.die)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """What is in the queue, the first ones first, until the limit or the end."""
        for _ in range(self._limit):
            message = await self._next()
            if message is None:
                self._is_last_returned = False
                return
            delivery = to_delivery(message, self._queue, self._settler, self._login, keep_ours=True)
            self._is_last_returned = delivery.redelivered
            del message
            yield delivery

    async def take_rest_of_line(self) -> None:
        """Take what would otherwise stand before those that return; see the module's text."""
        self._limit = self._taken + MOST_FOR_ORDER
        while self._is_last_returned:
            message = await self._next()
            self._is_last_returned = message is not None and message.redelivered

    async def settle_acks(self) -> None:
        """Wait until the queue has our acks: an AMQP channel that closes forgets those that it has not passed on.

        It passes 32 on to a quorum queue, and the others when those are done. A consumer begins when they are done, and
        ends when the others are; what it is given returns behind ours.
        """
        self._writer.flush()
        if not self._settler.acked:
            return
        try:
            with broken_is_an_error():
                await self._channel.basic_qos(prefetch_count=1)
                self._consumer = f"penstock-looks-{next(self._numbers):06}"
                await self._channel.basic_consume(self._queue, not_called, consumer_tag=self._consumer)
                await self._cancel()
        except BROKEN as error:
            msg = (
                f"the connection broke before queue {self._queue!r} had forgotten what was settled "
                f"({type(error).__name__}: {error}); some of it may be in the queue again"
            )
            raise BusUnavailable(msg) from error

    async def aclose(self) -> None:
        """Write the acks and return the others; waits until they are back, but not for long."""
        self._writer.flush()
        self._writer.die()
        # The splitter knows this object until the AMQP channel's number is used again.
        self._arrived.clear()
        if self._channel.is_closed:
            return
        try:
            with broken_is_an_error():
                # When it was cut off: else the broker gives to this consumer what the others have just returned.
                await self._cancel()
                left = self._taken - self._settler.acked
                await self._channel.close()
            await self._wait_returned(left)
        except (*BROKEN, BusUnavailable):
            # The connection went as well, and the broker returns them by itself.
            return

    async def _next(self) -> Content | None:
        """The next message; None when the queue has no more."""
        if not self._arrived:
            try:
                with broken_is_an_error():
                    await self._fill()
            except BROKEN as error:
                msg = (
                    f"the connection broke while queue {self._queue!r} was looked through "
                    f"({type(error).__name__}: {error}); what was not settled is in the queue again"
                )
                raise BusUnavailable(msg) from error
        return self._arrived.popleft() if self._arrived else None

    async def _fill(self) -> None:
        """Take one window: all of it before any is looked at, because an ack makes room for one more out of order."""
        self._size = max(1, min(WINDOW_MESSAGES, WINDOW_BYTES // self._largest_bytes, GROWTH * self._size))
        self._room = min(self._size, self._limit - self._taken)
        if self._is_at_end or self._room <= 0:
            return
        await self._channel.basic_qos(prefetch_count=self._room)
        # Consumers return what they hold in the order of their tags.
        self._consumer = f"penstock-looks-{next(self._numbers):06}"
        await self._channel.basic_consume(self._queue, not_called, consumer_tag=self._consumer)
        stalls_at_s = asyncio.get_running_loop().time() + STALLED_S
        while self._room > 0 and not await self._is_quiet():
            if self._channel.is_closed or asyncio.get_running_loop().time() > stalls_at_s:
                msg = f"queue {self._queue!r} holds messages and delivers none of them: look at it on the broker"
                raise BusUnavailable(msg)
        await self._cancel()

    async def _is_quiet(self) -> bool:
        """Wait for an arrival; True when it is not worth while to wait for another in this window."""
        self._some_arrived.clear()
        try:
            async with asyncio.timeout(QUIET_S):
                await self._some_arrived.wait()
        except TimeoutError:
            depth = await self._depth(self._queue)
            if self._some_arrived.is_set():
                return False
            self._is_at_end = not depth
            # A consumer that the broker has dropped, or that was given less than it asked for, is replaced.
            return self._is_at_end or bool(self._arrived)
        return False

    async def _cancel(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await self._channel.basic_cancel(consumer)

    def _on_message(self, message: Content) -> None:
        self._taken += 1
        self._room -= 1
        self._largest_bytes = max(self._largest_bytes, len(message.body))
        self._arrived.append(message)
        self._some_arrived.set()

    async def _wait_returned(self, count: int) -> None:
        deadline_s = asyncio.get_running_loop().time() + RETURN_WAIT_S
        while count and asyncio.get_running_loop().time() < deadline_s:
            if (await self._depth(self._queue) or 0) >= count:
                return
            await asyncio.sleep(RETURN_STEP_S)
