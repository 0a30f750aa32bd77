"""Where a test's deliveries go, and how it waits for them."""

import asyncio
from collections.abc import Awaitable, Callable

from penstock.buses.contract import Delivery

PATIENCE_S = 15.0


class Received:
    """A sink that keeps every delivery; `acks` settles each at once."""

    def __init__(self, *, acks: bool = False) -> None:
        self.deliveries: list[Delivery] = []
        self._acks = acks
        self._changed = asyncio.Event()

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self._acks:
            delivery.settler.ack(delivery.tag)
        self._changed.set()

    async def wait_for_any(self) -> None:
        """Returns as soon as there is one."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.deliveries:
                self._changed.clear()
                await self._changed.wait()

    async def wait_for(self, count: int) -> list[Delivery]:
        """Returns all deliveries as soon as there are `count`; fails after 15 s, or when there are more."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while len(self.deliveries) < count:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{len(self.deliveries)} deliveries of {count} came: {self.ids}") from None
        assert len(self.deliveries) == count, self.ids
        return self.deliveries

    @property
    def ids(self) -> list[str | None]:
        return [delivery.message_id for delivery in self.deliveries]


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Returns once it holds: for what a broker announces to nobody, such as a queue's depth."""
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)
