"""Holding: looking into a queue without consuming it."""

import contextlib

import pytest

from penstock.app.messages import Outgoing
from penstock.buses.contract import Bus
from penstock.errors import BusError
from tests.contract.conftest import Declared, NewBus
from tests.contract.received import eventually


async def test_what_is_held_returns_to_its_queue(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    await _publish(bus, queue.name, 5)

    async with bus.hold(queue.name, limit=3) as held:
        ids = [delivery.message_id async for delivery in held]
        assert ids == ["m-0", "m-1", "m-2"]
        await eventually(lambda: _has_depth(bus, queue.name, 2))

    await eventually(lambda: _has_depth(bus, queue.name, 5))


async def test_what_is_acked_while_held_is_gone(bus: Bus, declared: Declared, new_bus: NewBus) -> None:
    queue = await declared()
    await _publish(bus, queue.name, 5)

    async with bus.hold(queue.name, limit=10) as held:
        async for delivery in held:
            if delivery.message_id in ("m-1", "m-3"):
                assert delivery.settler.ack(delivery.tag)

    await eventually(lambda: _has_depth(bus, queue.name, 3))
    other = await new_bus()
    async with other.hold(queue.name, limit=10) as held:
        left = [delivery.message_id async for delivery in held]
    assert sorted(filter(None, left)) == ["m-0", "m-2", "m-4"]


async def test_more_than_there_is_ends_by_itself(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    await _publish(bus, queue.name, 250)

    async with bus.hold(queue.name, limit=1000) as held:
        ids = {delivery.message_id async for delivery in held}

    assert len(ids) == 250
    await eventually(lambda: _has_depth(bus, queue.name, 250))


async def test_an_empty_queue_shows_nothing(bus: Bus, declared: Declared) -> None:
    queue = await declared()

    async with bus.hold(queue.name, limit=10) as held:
        assert [delivery async for delivery in held] == []


async def test_leaving_early_returns_all(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    await _publish(bus, queue.name, 5)

    with contextlib.suppress(ZeroDivisionError):
        async with bus.hold(queue.name, limit=5) as held:
            async for _ in held:
                raise ZeroDivisionError

    await eventually(lambda: _has_depth(bus, queue.name, 5))


async def test_a_queue_that_is_not_there_is_said_in_words(bus: Bus, queue_prefix: str) -> None:
    with pytest.raises(BusError, match="nobody"):
        async with bus.hold(f"{queue_prefix}nobody", limit=1):
            pytest.fail("there is nothing to hold")


async def _publish(bus: Bus, queue: str, count: int) -> None:
    messages = [Outgoing(queue, b"{}", message_id=f"m-{n}") for n in range(count)]
    assert await bus.publish(messages, timeout_s=10) == [None] * count


async def _has_depth(bus: Bus, queue: str, depth: int) -> bool:
    return await bus.depth(queue) == depth
