"""Holding: looking into a queue without consuming it."""

import contextlib
import gc

import psutil
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


async def test_looking_changes_no_order(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    await _publish(bus, queue.name, 300)
    everything = [f"m-{n}" for n in range(300)]

    # The second of each kind finds messages that have returned before.
    for limit in (3, 3, 300, 3, 120, 1000, 50):
        assert await _looked_at(bus, queue.name, limit) == everything[:limit]
        await eventually(lambda: _has_depth(bus, queue.name, 300))

    async with bus.hold(queue.name, limit=200) as held:
        async for delivery in held:
            if delivery.tag % 3 == 0:
                delivery.settler.ack(delivery.tag)
                everything.remove(str(delivery.message_id))
            elif delivery.tag % 3 == 1:
                delivery.settler.requeue(delivery.tag)
    await eventually(lambda: _has_depth(bus, queue.name, len(everything)))
    assert await _looked_at(bus, queue.name, 1000) == everything


async def test_each_is_handed_out_once_even_when_it_is_given_back(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    await _publish(bus, queue.name, 30)

    seen: list[str | None] = []
    async with bus.hold(queue.name, limit=1000) as held:
        async for delivery in held:
            seen.append(delivery.message_id)
            assert delivery.settler.requeue(delivery.tag)

    assert seen == [f"m-{n}" for n in range(30)]


async def test_what_comes_while_somebody_looks_comes_last(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    await _publish(bus, queue.name, 20)

    async with bus.hold(queue.name, limit=20) as held:
        async for delivery in held:
            if delivery.message_id == "m-10":
                await bus.publish([Outgoing(queue.name, b"{}", message_id="late")], timeout_s=10)

    await eventually(lambda: _has_depth(bus, queue.name, 21))
    assert await _looked_at(bus, queue.name, 30) == [*(f"m-{n}" for n in range(20)), "late"]


async def test_looking_often_costs_no_message_its_place(bus: Bus, declared: Declared) -> None:
    # RabbitMQ 4 drops what was handed out 20 times from a quorum queue that says nothing else.
    queue = await declared()
    dead = queue.dead_name
    await _publish(bus, dead, 5)

    for _ in range(22):
        assert await _looked_at(bus, dead, 2) == ["m-0", "m-1"]

    assert len(await _looked_at(bus, dead, 10)) == 5


async def test_large_bodies_are_not_held_in_memory_together(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    body = bytes(8 * 1024 * 1024)
    for n in range(25):
        assert await bus.publish([Outgoing(queue.name, body, message_id=f"m-{n}")], timeout_s=30) == [None]
    del body
    gc.collect()
    before_bytes = peak = psutil.Process().memory_info().rss

    async with bus.hold(queue.name, limit=100) as held:
        async for delivery in held:
            delivery.settler.requeue(delivery.tag)
            peak = max(peak, psutil.Process().memory_info().rss)

    assert peak - before_bytes < 150 * 1024 * 1024


async def _looked_at(bus: Bus, queue: str, limit: int) -> list[str | None]:
    async with bus.hold(queue, limit=limit) as held:
        return [delivery.message_id async for delivery in held]


async def _publish(bus: Bus, queue: str, count: int) -> None:
    messages = [Outgoing(queue, b"{}", message_id=f"m-{n}") for n in range(count)]
    assert await bus.publish(messages, timeout_s=10) == [None] * count


async def _has_depth(bus: Bus, queue: str, depth: int) -> bool:
    return await bus.depth(queue) == depth
