"""One consuming AMQP channel: several queues on it, each with its own prefetch; healed when the broker drops them.

```
 connection ─ AMQP channel (up to 16 queues) ─ basic.deliver ─▶ sink      one settler an incarnation
                  │ closed, or basic.cancel
                  ▼
              opened again after a moment, queues declared again when they are ours
```
Deliveries are taken out of the stream before aiormq, and the sink only enqueues. Calls on a consuming AMQP channel take
turns, and nobody cancels one, because that closes the AMQP channel (aiormq `rpc`).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Final

import structlog
from aiormq import spec
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ConnectionInternalError

from penstock.buses.contract import Sink, Subscription
from penstock.buses.rabbitmq.acks import ChannelSettler
from penstock.buses.rabbitmq.asking import is_answered, see_read, see_through
from penstock.buses.rabbitmq.broken import BROKEN
from penstock.buses.rabbitmq.delivering import taker_of
from penstock.buses.rabbitmq.healing import Healing
from penstock.buses.rabbitmq.stream import Wire, not_called
from penstock.buses.rabbitmq.topology import Control, declare_one
from penstock.buses.rabbitmq.turns import Turns
from penstock.buses.rabbitmq.watchdog import Flow, Silence
from penstock.errors import BusUnavailable

#: A queue that has not answered a consumer within so long has no leader, or its broker is in trouble.
SILENT_S: Final = 5.0
#: A broker that has not taken the last acks within so long is not waited for.
ACKED_S: Final = 2.0

_log = structlog.get_logger("penstock.buses.rabbitmq")


class ConsumingChannel:
    """One AMQP channel and the queues that are consumed on it."""

    def __init__(
        self,
        subscriptions: Sequence[Subscription],
        sink: Sink,
        login: str,
        random: Random,
        *,
        on_silent: Callable[[Subscription], None] | None = None,
    ) -> None:
        """`on_silent` takes over a queue whose broker says nothing to a consumer; without it that is waited for."""
        self._on_silent = on_silent
        self._subscriptions = {subscription.queue.name: subscription for subscription in subscriptions}
        self._sink = sink
        self._login = login
        self._turns = Turns(self._start_over)
        self._connection: AbstractConnection | None = None
        self._wire = Wire()
        self._channel: AbstractChannel | None = None
        self._settler: ChannelSettler | None = None
        self._numbers = itertools.count(1)
        self._tags: dict[str, str] = {}
        """Queue by consumer tag; what is not in here has to be healed."""
        self._flows: dict[str, Flow] = {}
        """By each consumer tag that this AMQP channel has had: deliveries come until its end is confirmed."""
        self._confirmed: set[str] = set()
        """Consumer tags that the broker has answered for, those that are gone included."""
        self._renewed: str | None = None
        """The queue whose consumer is being replaced: between the two of them it counts as consumed."""
        self._healing = Healing(self._heal_once, random)
        self._is_stopping = False
        self.restarted = 0
        """Consumers that were lost while the connection stood, and started again."""

    @property
    def queues(self) -> list[str]:
        """The names of its queues."""
        return list(self._subscriptions)

    async def look_at(self, queue: str, silence: Silence, control: Control) -> None:
        """Ask the broker about one queue, and consume it again when it delivers to nobody."""
        if self._connection is not None:
            await self._turns.finish(self._look_at(self._connection, queue, silence, control))

    async def start(self, connection: AbstractConnection, wire: Wire) -> None:
        """Open the AMQP channel on this connection and consume everything. Raises what a broken connection raises."""
        if self._is_stopping or connection is self._connection:
            return
        self._healing.stop()
        self._connection, self._wire = connection, wire
        await self._turns.finish(self._start(connection))

    async def set_prefetch(self, queue: str, prefetch: int) -> None:
        """A new consumer with the new number takes the old one's place; a consumer's own number cannot be changed."""
        known = self._subscriptions.get(queue)
        if known is None:
            return
        self._subscriptions[queue] = Subscription(known.queue, prefetch)
        if self._connection is not None:
            await self._turns.finish(self._renew(self._connection, queue))

    async def stop(self) -> None:
        """Cancel the consumers."""
        self._is_stopping = True
        self._healing.stop()
        # On the connection for silent queues nothing may have begun, and nobody would answer.
        if self._connection is not None and (self._on_silent is not None or self.consuming()):
            await self._turns.finish(self._cancel_all(self._connection))

    def consuming(self) -> frozenset[str]:
        """Queues whose consumer the broker has confirmed on an AMQP channel that is open."""
        if self._channel is None or self._channel.is_closed:
            return frozenset()
        consumed = {queue for tag, queue in self._tags.items() if tag in self._confirmed}
        return frozenset(consumed if self._renewed is None else consumed | {self._renewed})

    @property
    def acks_waiting(self) -> int:
        """Acks and requeues that were asked for and are not written."""
        return 0 if self._settler is None else self._settler.waiting

    def flush(self) -> None:
        """Write all acks asked for so far."""
        if self._settler is not None:
            self._settler.flush()

    async def acks_taken(self) -> None:
        """Write all acks asked for so far; returns when the broker has read them, or the AMQP channel is gone."""
        if self._connection is not None:
            self.flush()
            await self._turns.finish(self._behind_acks(self._connection, see_read))

    async def aclose(self) -> None:
        """Write the last acks and see them through; the AMQP channel ends with its connection, which is closed next."""
        self._is_stopping = True
        self._healing.stop()
        if self._settler is not None:
            self._settler.flush()
            self._settler.die()
        queues = {flow.queue for flow in self._flows.values() if flow.recent}
        if self._connection is not None and queues:
            seeing = self._behind_acks(self._connection, lambda channel: see_through(channel, queues))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._turns.finish(seeing), ACKED_S)
        await self._turns.give_up()

    async def _behind_acks(
        self, connection: AbstractConnection, ask: Callable[[AbstractChannel], Awaitable[None]]
    ) -> None:
        try:
            async with self._turns.turn(connection):
                channel = self._channel
                if channel is not None and not channel.is_closed:
                    await ask(channel)
        except BROKEN as error:
            _log.debug("acks may be lost: their messages come again", error=str(error))

    async def _start(self, connection: AbstractConnection) -> None:
        try:
            async with self._turns.turn(connection):
                await self._open(connection, list(self._subscriptions.values()))
        except BROKEN as error:
            if connection.is_closed:
                raise
            _log.warning(
                "consuming could not begin: tried again; the messages wait in their queues",
                queues=list(self._subscriptions),
                error=f"{type(error).__name__}: {error}",
            )
            self._heal()

    async def _renew(self, connection: AbstractConnection, queue: str) -> None:
        try:
            async with self._turns.turn(connection):
                channel = self._channel
                tag = next((tag for tag, name in self._tags.items() if name == queue), None)
                if self._is_stopping or tag is None or channel is None or channel.is_closed:
                    # Being healed: it comes back with the new number.
                    return
                if tag in self._confirmed:
                    self._renewed = queue
                try:
                    del self._tags[tag]
                    await channel.basic_cancel(tag)
                    del self._flows[tag]
                    await self._consume(channel, self._subscriptions[queue])
                finally:
                    self._renewed = None
        except BROKEN as error:
            _log.warning(
                "a consumer was lost while its prefetch changed: it is started again; what runs goes on, "
                "the other messages wait in their queue",
                queue=queue,
                error=f"{type(error).__name__}: {error}",
            )
            self._heal()

    async def _look_at(
        self, connection: AbstractConnection, queue: str, silence: Silence, control: Control
    ) -> None:
        try:
            async with self._turns.turn(connection):
                counts = await control.counts(queue)
                tag = next((tag for tag, name in self._tags.items() if name == queue), None)
                channel, settler = self._channel, self._settler
                if tag is None or channel is None or settler is None or channel.is_closed:
                    # Being healed already, or stopping.
                    return
                why = silence.note(counts, self._flows[tag].seen(settler))
                if why is None:
                    return
                _log.warning(
                    "a consumer gets nothing: it is started again; what runs goes on, the other messages wait in their queue",
                    queue=queue,
                    why=why,
                )
                del self._tags[tag]
                await channel.basic_cancel(tag)
                del self._flows[tag]
        except BROKEN as error:
            _log.debug(
                "a queue could not be looked at", queue=queue, error=f"{type(error).__name__}: {error}"
            )
        if not self._is_well():
            self._heal()

    async def _cancel_all(self, connection: AbstractConnection) -> None:
        try:
            async with self._turns.turn(connection):
                channel = self._channel
                if channel is not None and not channel.is_closed:
                    for tag in list(self._tags):
                        await channel.basic_cancel(tag)
        except BROKEN as error:
            _log.warning(
                "the AMQP channel went away while it stopped: the broker hands its unsettled messages out again",
                queues=list(self._subscriptions),
                error=f"{type(error).__name__}: {error}",
            )
        self._tags.clear()

    async def _open(self, connection: AbstractConnection, subscriptions: Sequence[Subscription]) -> None:
        self._tags.clear()
        self._channel = channel = await connection.channel(publisher_confirms=False)
        self._settler = settler = ChannelSettler(channel.number, self._wire)
        self._flows = {}
        self._wire.splitter.take(
            channel.number, taker_of(self._flows, settler, self._sink, self._login), settler.die
        )
        channel.on_consumer_cancel_callbacks.add(self._on_cancel)
        channel.closing.add_done_callback(lambda future: self._on_closed(settler, future))
        for subscription in subscriptions:
            await self._consume(channel, subscription)

    async def _consume(self, channel: AbstractChannel, subscription: Subscription) -> None:
        if self._is_stopping:
            return
        queue = subscription.queue.name
        # A name of ours, known before the answer: the broker's basic.cancel may come together with it.
        tag = f"penstock-{next(self._numbers)}"
        await channel.basic_qos(prefetch_count=subscription.prefetch)
        self._tags[tag] = queue
        self._flows[tag] = Flow(queue, subscription.prefetch, is_counted=subscription.queue.type == "quorum")
        try:
            await self._answered(subscription, channel.basic_consume(queue, not_called, consumer_tag=tag))
        except ConnectionInternalError:
            # A quorum queue whose processes are not there does not even keep silent.
            self._hand_over(queue)
            raise
        except BaseException:
            self._tags.pop(tag, None)
            raise
        self._confirmed = (self._confirmed & self._tags.keys()) | {tag}

    async def _answered(self, subscription: Subscription, asking: Awaitable[object]) -> None:
        """Wait for the answer to a consumer's beginning; when none comes, hand the queue over and raise one of `BROKEN`."""
        if self._on_silent is None:
            await asking
        elif not await is_answered(asking, SILENT_S):
            self._hand_over(subscription.queue.name)
            # Its AMQP channel stands still, and the broker is about to close the connection: not waited for.
            self._wire.abort()
            msg = f"queue {subscription.queue.name!r} did not answer within {SILENT_S:g} s"
            raise TimeoutError(msg)

    def _hand_over(self, queue: str) -> None:
        if self._on_silent is not None and queue in self._subscriptions:
            self._on_silent(self._subscriptions.pop(queue))

    def _on_closed(self, settler: ChannelSettler, lost: asyncio.Future[object]) -> None:
        settler.die()
        error = None if lost.cancelled() else lost.exception()
        connection = self._connection
        if self._is_stopping or settler is not self._settler or connection is None or connection.is_closed:
            return
        _log.warning(
            "the broker closed a consuming AMQP channel: it is opened again; what runs goes on, "
            "the broker hands the unsettled messages out again",
            why=f"{type(error).__name__}: {error}",
            queues=list(self._subscriptions),
        )
        self._heal()

    def _on_cancel(self, frame: spec.Basic.Cancel) -> None:
        queue = self._tags.pop(frame.consumer_tag or "", None)
        if queue is not None and not self._is_stopping:
            _log.warning(
                "the broker cancelled a consumer, its queue was deleted or moved: the queue is declared and consumed "
                "again; what runs goes on, messages that were in a deleted queue are gone",
                queue=queue,
            )
            self._heal()

    def _start_over(self) -> None:
        _log.warning(
            "the broker's answers no longer belong to the calls on a consuming AMQP channel: its connection is opened "
            "again; what runs goes on, the broker hands the unsettled messages out again",
            queues=list(self._subscriptions),
        )
        self._wire.abort()

    def _heal(self) -> None:
        if not self._is_stopping:
            self._healing.begin()

    async def _heal_once(self) -> bool:
        """True when there is nothing more to do about it."""
        connection = self._connection
        if self._is_stopping or connection is None or connection.is_closed:
            # Its supervisor opens a new one and starts us again.
            return True
        await self._turns.finish(self._begin_again(connection))
        return self._is_well()

    def _is_well(self) -> bool:
        channel = self._channel
        return channel is not None and not channel.is_closed and len(self._tags) == len(self._subscriptions)

    async def _begin_again(self, connection: AbstractConnection) -> None:
        try:
            async with self._turns.turn(connection):
                await self._consume_missing(connection)
        except BROKEN as error:
            _log.warning(
                "consuming could not begin again yet: tried again; the messages wait in their queues",
                queues=self._missing(),
                error=f"{type(error).__name__}: {error}",
            )
        except BusUnavailable as error:
            self._healing.say_refused([str(error)])

    async def _consume_missing(self, connection: AbstractConnection) -> None:
        if self._is_stopping or connection is not self._connection:
            return
        control = Control(connection)
        refused: dict[str, str] = {}
        try:
            # On an AMQP channel of its own: consuming a queue that is not there would close ours.
            for queue in self._missing():
                try:
                    line = await declare_one(control, self._subscriptions[queue].queue)
                except ConnectionInternalError:
                    # Whatever is wrong with it in there, it takes this connection down with each attempt.
                    self._hand_over(queue)
                    raise
                if line is not None:
                    refused[queue] = line
        finally:
            await control.aclose()
        self._healing.say_refused(list(refused.values()))
        channel = self._channel
        subscriptions = [self._subscriptions[queue] for queue in self._missing() if queue not in refused]
        if channel is None or channel.is_closed:
            await self._open(connection, subscriptions)
        else:
            for subscription in subscriptions:
                await self._consume(channel, subscription)
        self.restarted += len(subscriptions)

    def _missing(self) -> list[str]:
        """Queues that are not consumed."""
        if self._channel is None or self._channel.is_closed:
            return list(self._subscriptions)
        consumed = set(self._tags.values())
        return [queue for queue in self._subscriptions if queue not in consumed]
