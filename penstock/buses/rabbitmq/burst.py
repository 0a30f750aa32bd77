"""Many messages in one write, each with a confirm of its own.

aiormq's `basic_publish` takes a lock, a drain and several turns of the loop for every message, which costs three times
what marshalling it does. Here the lock is taken once for all; numbering and confirms stay where aiormq keeps them, so that both
ways may use one AMQP channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from aiormq.abc import AbstractChannel, ChannelFrame
from aiormq.channel import Channel
from aiormq.exceptions import ChannelInvalidStateError
from pamqp import commands as spec
from pamqp.header import ContentHeader

#: Ends with the broker's ack, or raises what aiormq makes of a nack, a return or the channel's end.
Confirm: TypeAlias = asyncio.Future[Any]


class Addressed(NamedTuple):
    """A message as AMQP has it; `properties.message_id` is set, and no other message that is out has it."""

    exchange: str
    routing_key: str
    properties: spec.Basic.Properties
    body: bytes


class Window:
    """Room for so many messages that are not confirmed; who asked first gets it first."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._asking = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def room(self, count: int) -> AsyncIterator[None]:
        """Hold room for `count` messages, which is no more than the window's size, inside the block."""
        async with self._asking:
            while self._free < count:
                self._freed.clear()
                await self._freed.wait()
            self._free -= count
        try:
            yield
        finally:
            self._free += count
            self._freed.set()


async def publish_burst(channel: AbstractChannel, messages: Sequence[Addressed]) -> list[Confirm]:
    """Hand them to the connection together and return the confirms to wait for, one a message.

    Raises what aiormq raises for a channel that is closed, and what pamqp raises for a message that AMQP cannot
    carry; nothing was sent then. Cancelled while it waits for the connection, it may have been sent.
    """
    assert isinstance(channel, Channel)
    payload = b"".join(_marshalled(channel, message) for message in messages)
    async with channel.lock:
        if channel.is_closed:
            raise ChannelInvalidStateError
        first = channel.delivery_tag + 1
        confirms = [channel.create_future() for _ in messages]
        for tag, (message, confirm) in enumerate(zip(messages, confirms, strict=True), first):
            message_id = message.properties.message_id or ""
            channel.confirmations[tag] = confirm
            channel.message_id_delivery_tag[message_id] = tag
            confirm.add_done_callback(partial(_forget, channel, message_id, tag))
        channel.delivery_tag += len(messages)
        drained = channel.create_future()
        try:
            await channel.write_queue.put(
                ChannelFrame(payload=payload, should_close=False, drain_future=drained)
            )
        except BaseException:
            # The broker has seen none of them: the next message gets the first one's number.
            channel.delivery_tag = first - 1
            for tag, confirm in enumerate(confirms, first):
                channel.confirmations.pop(tag, None)
                confirm.cancel()
            raise
        await drained
    return confirms


def _marshalled(channel: Channel, message: Addressed) -> bytes:
    publish = spec.Basic.Publish(exchange=message.exchange, routing_key=message.routing_key, mandatory=True)
    header = ContentHeader(properties=message.properties, body_size=len(message.body))
    frames: list[Any] = [publish, header, *channel._split_body(message.body)]  # noqa: SLF001 - as `basic_publish` does
    return ChannelFrame.marshall(channel_number=channel.number, frames=frames).payload


def _forget(channel: Channel, message_id: str, tag: int, _confirm: Confirm) -> None:
    if channel.message_id_delivery_tag.get(message_id) == tag:
        del channel.message_id_delivery_tag[message_id]
