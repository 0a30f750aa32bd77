"""What a consuming AMQP channel asks the broker beside consuming: were the acks read, does a queue answer at all."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Collection

from aiormq.abc import AbstractChannel

from penstock.buses.rabbitmq.stream import not_called

_numbers = itertools.count(1)


async def see_read(channel: AbstractChannel) -> None:
    """Returns when the broker has read what was written before; raises what a broken AMQP channel raises."""
    # Any question is answered behind what was written before it. Nobody consumes by this number: each consumer begins
    # with its own.
    await channel.basic_qos(prefetch_count=1)


async def see_through(channel: AbstractChannel, queues: Collection[str]) -> None:
    """Returns when these queues have the acks; for an AMQP channel that is about to close, because messages may return.

    An AMQP channel passes 32 acks on to a quorum queue, the others when those are done, and forgets them when it
    closes. A consumer begins when they are done, and ends when the others are; what it is given returns.
    """
    await channel.basic_qos(prefetch_count=1)
    for queue in queues:
        tag = f"penstock-last-{next(_numbers)}"
        await channel.basic_consume(queue, not_called, consumer_tag=tag)
        await channel.basic_cancel(tag)


async def is_answered(asking: Awaitable[object], within_s: float) -> bool:
    """False when no answer has come by then; the question is left alone, its late answer is dropped. Raises its error.

    A quorum queue without a leader lets a consumer wait for 65 s, in which its AMQP channel stands still; then RabbitMQ
    3.10 closes the connection (541).
    """
    answer = asyncio.ensure_future(asking)
    # From the beginning: whoever waits here may be cancelled.
    answer.add_done_callback(_drop)
    await asyncio.wait((answer,), timeout=within_s)
    if answer.done():
        answer.result()
        return True
    return False


def _drop(answer: asyncio.Future[object]) -> None:
    # Looked at, so that nobody logs it as an error that nobody looked at.
    if not answer.cancelled():
        answer.exception()
