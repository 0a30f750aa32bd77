"""The other side of a publish: declares the queue, and reads what waits in it."""

import asyncio
import json
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from pydantic import SecretStr

from penstock.app.queues import QueueDeclaration
from penstock.buses.address import open_bus
from penstock.buses.contract import Delivery, Subscription
from penstock.config.bus import BusSection
from tests.contract.received import Received

T = TypeVar("T")


class Reader:
    """Opens a bus of its own for every look, so that it shares nothing with the client."""

    def __init__(self, url: str, queue: str) -> None:
        self.url = url
        self.queue = queue
        self._declaration = QueueDeclaration(name=queue)

    async def declare(self) -> None:
        bus = open_bus(BusSection(url=SecretStr(self.url)))
        await bus.connect()
        try:
            await bus.declare([self._declaration])
        finally:
            await bus.aclose()

    async def take(self, count: int) -> list[Delivery]:
        """The queue's messages, which are `count` and no more, settled."""
        bus = open_bus(BusSection(url=SecretStr(self.url)))
        await bus.connect()
        try:
            received = Received(acks=True)
            await bus.consume([Subscription(self._declaration, 200)], received)
            deliveries = await received.wait_for(count)
            await bus.stop_consuming()
            await bus.flush()
            assert await bus.depth(self.queue) == 0
            return deliveries
        finally:
            await bus.aclose()

    async def take_all(self) -> list[Delivery]:
        """What waits in the queue just now, settled."""
        bus = open_bus(BusSection(url=SecretStr(self.url)))
        await bus.connect()
        try:
            async with bus.hold(self.queue, limit=10_000) as waiting:
                deliveries = [delivery async for delivery in waiting]
                for delivery in deliveries:
                    delivery.settler.ack(delivery.tag)
            return deliveries
        finally:
            await bus.aclose()

    def read(self, count: int) -> list[Any]:
        """The payloads of `count` messages, and the queue is empty."""
        return [json.loads(delivery.body) for delivery in self.run(self.take(count))]

    def read_ids(self, count: int) -> list[str | None]:
        return [delivery.message_id for delivery in self.run(self.take(count))]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it to its end on a loop of its own, whatever this thread is doing."""
        results: list[T] = []
        thread = threading.Thread(target=lambda: results.append(asyncio.run(work)))
        thread.start()
        thread.join()
        assert results, "the reader failed, see its thread's traceback above"
        return results[0]
