"""The ledger's publisher: plain AMQP, no Penstock; it never publishes an id twice, so that every duplicate is the others'."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aio_pika
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity

from penstock.buses.rabbitmq.broken import BROKEN, broken_is_an_error
from tests.crash.ledger import Ledger, Rest

CONFIRM_S: Final = 20.0
QUORUM: Final = {"x-queue-type": "quorum"}
OUT: Final = "c.out"


class Publisher:
    """Publishes to a broker directly, whatever stands between the service and it."""

    def __init__(self, url: str, ledger: Ledger) -> None:
        self._url = url
        self._ledger = ledger
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._numbers = itertools.count()

    async def aclose(self) -> None:
        """Close the connection; harmless when it is gone."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            try:
                with broken_is_an_error():
                    await asyncio.wait_for(connection.close(), 5)
            except BROKEN:
                pass

    async def channel(self) -> AbstractChannel:
        """An open AMQP channel with confirms. Raises one of `BROKEN`."""
        if self._channel is None or self._channel.is_closed:
            await self.aclose()
            with broken_is_an_error():
                self._connection = await aio_pika.connect(f"{self._url}?heartbeat=5", timeout=5)
                self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        return self._channel

    async def declare_out(self) -> None:
        """Where handlers publish to: nobody consumes it, the ledger reads it at the end."""
        channel = await self.channel()
        await channel.declare_queue(OUT, durable=True, arguments=dict(QUORUM))

    async def publish(
        self, queue: str, tasks: Sequence[Mapping[str, Any] | bytes], *, prefix: str = "m", **properties: Any
    ) -> list[str]:
        """Publish each once; returns the ids that were confirmed, which are in the ledger by then.

        What raises or is not confirmed within 20 s may have arrived, and is not repeated.
        """
        ids = [f"{prefix}{next(self._numbers)}" for _ in tasks]
        self._ledger.published.update(ids)
        try:
            channel = await self.channel()
        except BROKEN:
            await asyncio.sleep(0.05)
            return []
        sends = [
            asyncio.create_task(self._send(channel, queue, id_, task, properties))
            for id_, task in zip(ids, tasks, strict=True)
        ]
        if not sends:
            return []
        await asyncio.wait(sends, timeout=CONFIRM_S)
        for send in sends:
            send.cancel()
        await asyncio.wait(sends)
        done = [
            id_
            for id_, send in zip(ids, sends, strict=True)
            if not send.cancelled() and send.exception() is None
        ]
        if len(done) < len(ids):
            await self.aclose()
        if done:
            self._ledger.confirm(queue, done)
        return done

    async def _send(
        self,
        channel: AbstractChannel,
        queue: str,
        id_: str,
        task: Mapping[str, Any] | bytes,
        properties: Mapping[str, Any],
    ) -> None:
        body = task if isinstance(task, bytes) else json.dumps(task).encode()
        given: dict[str, Any] = {"content_type": "application/json", **properties}
        message = Message(body, message_id=id_, delivery_mode=DeliveryMode.PERSISTENT, **given)
        with broken_is_an_error():
            await channel.default_exchange.publish(message, queue, mandatory=True)

    async def rest(self, queues: Sequence[str]) -> Rest:
        """Empty the queues that exist: dead letters, `c.out`, and what should not be there any more."""
        rest = Rest()
        for queue in queues:
            for message in await self._emptied(queue):
                id_ = str(message.message_id)
                if queue == OUT:
                    rest.out[id_, str(json.loads(message.body)["of"])] += 1
                elif queue.endswith(".dead"):
                    rest.dead[id_] = str(message.headers.get("x-penstock-reason", "no reason"))
                    rest.dead_count += 1
                else:
                    rest.queued.append(id_)
        return rest

    async def _emptied(self, queue: str) -> list[AbstractIncomingMessage]:
        channel = await self.channel()
        try:
            source = await channel.declare_queue(queue, passive=True)
        except ChannelNotFoundEntity:
            return []
        count = source.declaration_result.message_count or 0
        found: list[AbstractIncomingMessage] = []
        if count:
            complete = asyncio.Event()

            async def take(message: AbstractIncomingMessage) -> None:
                found.append(message)
                if len(found) >= count:
                    complete.set()

            tag = await source.consume(take, no_ack=True)
            async with asyncio.timeout(60):
                await complete.wait()
            await source.cancel(tag)
        return found
