"""Publishing: pipelined confirms on a connection of its own, so that an alarm never stalls an ack.

A publish that broke with its connection is repeated with the same id until its time is up: it may have arrived, and
where loss and duplication compete, duplication wins.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final, TypeAlias

from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ChannelNotFoundEntity, DeliveryError
from aiormq.exceptions import PublishError as Returned
from pamqp.exceptions import PAMQPException

from penstock.app.backoff import Backoff
from penstock.app.messages import Outgoing
from penstock.buses.rabbitmq.broken import BROKEN, broken_is_an_error
from penstock.buses.rabbitmq.burst import Addressed, Window, publish_burst
from penstock.buses.rabbitmq.delays import level_ms
from penstock.buses.rabbitmq.headers import to_properties
from penstock.buses.rabbitmq.topology import Control, delay_name
from penstock.errors import BusUnavailable, NotCarried, PublishError, PublishTimeout, Unroutable

#: Messages on the wire without a confirm; a `multiple` confirm walks all of them (aiormq).
IN_FLIGHT: Final = 512
#: With the connection up and the AMQP channel gone; while the connection is down, its return is waited for.
AGAIN: Final = Backoff(first_s=0.02, cap_s=1.0)
#: What one burst takes: enough to share its cost, little enough that an urgent message is not kept waiting.
BURST_MESSAGES: Final = 128
BURST_BYTES: Final = 1024 * 1024

#: What pamqp raises for a property or a header that it cannot write.
NOT_AMQP: Final = (ValueError, TypeError, AttributeError, struct.error, PAMQPException)

#: By the message's place in its batch; one that is not there has no answer yet.
Answers: TypeAlias = dict[int, PublishError | None]


class Publisher:
    """Publishes batches; `start` again on each new connection."""

    def __init__(self, login: str, random: Random) -> None:
        self._login = login
        self._random = random
        self._channel: AbstractChannel | None = None
        self._control: Control | None = None
        self._opened = asyncio.Event()
        self._unblocked = asyncio.Event()
        self._unblocked.set()
        self.blocked_because: str | None = None
        """The broker's reason while it has an alarm."""
        self.alarms = 0
        """How often one began."""
        self._window = Window(IN_FLIGHT)
        self._checking = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._known_exchanges: set[str] = set()
        self._known_delays: set[int] = set()
        self._known_queues: set[str] = set()
        self._ids_out: dict[str, asyncio.Future[None]] = {}

    async def start(self, connection: AbstractConnection) -> None:
        """Publish on a connection that has just been opened."""
        self._connection = connection
        self._control = Control(connection)
        self._known_exchanges.clear()
        self._known_delays.clear()
        self._known_queues.clear()
        self._channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        self._opened.set()

    def lost(self) -> None:
        """The connection is gone; publishes wait for the next one."""
        self._opened.clear()
        self.blocked(None)

    def blocked(self, reason: str | None) -> None:
        """The broker has an alarm and says why, or has none: publishes wait for its end."""
        if reason is not None and self.blocked_because is None:
            self.alarms += 1
        self.blocked_because = reason
        if reason is None:
            self._unblocked.set()
        else:
            self._unblocked.clear()

    async def _may_send(self) -> None:
        while not (self._opened.is_set() and self._unblocked.is_set()):
            await self._opened.wait()
            await self._unblocked.wait()

    @property
    def control(self) -> Control:
        """The AMQP channel for questions. Raises `BusUnavailable` before the first connection."""
        if self._control is None:
            msg = "the publishing connection was never opened: await connect() first; nothing was asked"
            raise BusUnavailable(msg)
        return self._control

    async def publish(self, messages: Sequence[Outgoing], timeout_s: float) -> list[PublishError | None]:
        """One entry a message, in order; None when the broker has confirmed it."""
        answers: Answers = {}
        tasks = [asyncio.ensure_future(self._answer(messages, part, answers)) for part in _parts(messages)]
        if not tasks:
            return []
        try:
            await asyncio.wait(tasks, timeout=timeout_s)
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()
        return [
            answers[index] if index in answers else _timed_out(message, timeout_s, self.blocked_because)
            for index, message in enumerate(messages)
        ]

    async def _answer(self, messages: Sequence[Outgoing], part: range, answers: Answers) -> None:
        """Fill in the answers of one part: in a burst what may travel so, then one by one what has no answer yet."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        together = [index for index in part if self._joins_burst(messages[index], mine)]
        try:
            if together:
                await self._burst(messages, together, answers)
        finally:
            mine.set_result(None)
            for index in together:
                self._ids_out.pop(messages[index].message_id, None)
        left = [index for index in part if index not in answers]
        if left:
            await asyncio.gather(*(self._answer_one(messages[index], index, answers) for index in left))

    async def _answer_one(self, message: Outgoing, index: int, answers: Answers) -> None:
        try:
            answers[index] = await self._until_known(message)
        except NOT_AMQP as error:
            answers[index] = NotCarried(
                f"AMQP cannot carry the message for {message.destination} ({error!r}); it was not published"
            )

    def _joins_burst(self, message: Outgoing, mine: asyncio.Future[None]) -> bool:
        """True for what needs no question before it is sent; its id is taken then, until `mine` is done."""
        if not message.message_id or message.message_id in self._ids_out or not self._is_prepared(message):
            return False
        self._ids_out[message.message_id] = mine
        return True

    async def _burst(self, messages: Sequence[Outgoing], together: Sequence[int], answers: Answers) -> None:
        async with self._window.room(len(together)):
            await self._may_send()
            try:
                with broken_is_an_error():
                    channel = await self._open_channel()
                    confirms = await publish_burst(
                        channel, [_addressed(messages[index], self._login) for index in together]
                    )
            except (*BROKEN, *NOT_AMQP):
                # One by one each finds out for itself: the connection is back, or it is the one at fault.
                return
            try:
                await asyncio.wait(confirms)
            finally:
                for index, confirm in zip(together, confirms, strict=True):
                    if not confirm.done():
                        confirm.cancel()
                    elif not confirm.cancelled():
                        _note_answer(messages[index], index, confirm.exception(), answers)

    async def _until_known(self, message: Outgoing) -> PublishError | None:
        async with self._window.room(1):
            for failures in itertools.count(1):
                await self._may_send()
                try:
                    with broken_is_an_error():
                        return await self._once(message)
                except ChannelNotFoundEntity:
                    # The exchange went away under us: looked at again before the next try.
                    self._known_exchanges.clear()
                    self._known_delays.clear()
                except BROKEN:
                    # Repeated until its time is up; its sender is told then.
                    pass
                await asyncio.sleep(AGAIN.delay_s(failures, self._random))
        return None  # pragma: no cover - the loop above does not end

    async def _once(self, message: Outgoing) -> PublishError | None:
        was_prepared = self._is_prepared(message)
        unroutable = await self._prepared(message)
        if unroutable is not None:
            return unroutable
        channel = await self._open_channel()
        addressed = _addressed(message, self._login)
        # aiormq finds a returned message by its id: two with one id must not be out at once.
        while message.message_id and (out := self._ids_out.get(message.message_id)) is not None:
            await asyncio.wait((out,))
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if message.message_id:
            self._ids_out[message.message_id] = mine
        try:
            await channel.basic_publish(
                message.body,
                exchange=addressed.exchange,
                routing_key=addressed.routing_key,
                properties=addressed.properties,
                mandatory=True,
            )
        except Returned:
            if not (message.delay_s and was_prepared):
                return _unroutable(message)
        except DeliveryError:
            return _refused(message)
        else:
            return None
        finally:
            mine.set_result(None)
            if self._ids_out.get(message.message_id) is mine:
                del self._ids_out[message.message_id]
        # Somebody has deleted its delay queue since it was declared, or the queue behind it: looked at again.
        self._known_delays.discard(level_ms(message.delay_s))
        self._known_queues.discard(message.routing_key)
        return await self._once(message)

    async def _open_channel(self) -> AbstractChannel:
        channel = self._channel
        if channel is None or channel.is_closed:
            async with self._checking:
                channel = self._channel
                if (channel is None or channel.is_closed) and self._connection is not None:
                    channel = self._channel = await self._connection.channel(
                        publisher_confirms=True, on_return_raises=True
                    )
        if channel is None:
            msg = "the publishing connection was never opened: await connect() first; nothing was published"
            raise BusUnavailable(msg)
        return channel

    async def _prepared(self, message: Outgoing) -> PublishError | None:
        """Make sure that the exchange is there: publishing to one that is not closes the AMQP channel for everybody."""
        if self._is_prepared(message):
            return None
        if message.exchange and message.exchange not in self._known_exchanges:
            async with self._checking:
                if not await self.control.has_exchange(message.exchange):
                    return Unroutable(
                        f"there is no exchange {message.exchange!r}; the message was not published"
                    )
                self._known_exchanges.add(message.exchange)
        if not message.delay_s:
            return None
        level = level_ms(message.delay_s)
        async with self._checking:
            if await self.control.depth(message.routing_key) is None:
                # Behind a delay nobody would tell: the delay queue keeps what has no place to go.
                return _unroutable(message)
            self._known_queues.add(message.routing_key)
            await self.control.declare_delay(level)
            self._known_delays.add(level)
        return None

    def _is_prepared(self, message: Outgoing) -> bool:
        """True when nothing has to be asked or declared before it is sent."""
        if message.exchange and message.exchange not in self._known_exchanges:
            return False
        return not message.delay_s or (
            message.routing_key in self._known_queues and level_ms(message.delay_s) in self._known_delays
        )


def _parts(messages: Sequence[Outgoing]) -> Iterator[range]:
    start = size_bytes = 0
    for index, message in enumerate(messages):
        if index - start == BURST_MESSAGES or (
            index > start and size_bytes + len(message.body) > BURST_BYTES
        ):
            yield range(start, index)
            start, size_bytes = index, 0
        size_bytes += len(message.body)
    if start < len(messages):
        yield range(start, len(messages))


def _addressed(message: Outgoing, login: str) -> Addressed:
    exchange = delay_name(level_ms(message.delay_s)) if message.delay_s else message.exchange
    return Addressed(exchange, message.routing_key, to_properties(message, login), message.body)


def _note_answer(message: Outgoing, index: int, error: BaseException | None, answers: Answers) -> None:
    """Note what a confirm says; nothing when the connection went away with it, or a delay queue did."""
    if error is None:
        answers[index] = None
    elif isinstance(error, Returned):
        if not message.delay_s:
            answers[index] = _unroutable(message)
    elif isinstance(error, DeliveryError):
        answers[index] = _refused(message)


def _refused(message: Outgoing) -> PublishError:
    return PublishError(
        f"the broker refused the message for {message.destination}: its queue is full; it is in no queue"
    )


def _unroutable(message: Outgoing) -> Unroutable:
    return Unroutable(
        f"no queue takes what is published to {message.destination}; the message {message.message_id} is in no queue: "
        "declare the queue (its handler does at start), or bind one"
    )


def _timed_out(message: Outgoing, timeout_s: float, blocked_because: str | None) -> PublishTimeout:
    alarm = f", and the broker takes no messages now ({blocked_because})" if blocked_because else ""
    return PublishTimeout(
        f"no publisher confirm within {timeout_s:g} s for message {message.message_id} to {message.destination}{alarm}: "
        "probably delivered; repeat it with the same id"
    )
