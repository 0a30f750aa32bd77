"""Calls on a consuming AMQP channel are never cancelled, and never hang; publishes wait for a connection, not for luck."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from aio_pika import Connection
from aiormq import Channel, spec
from aiormq.abc import AbstractConnection
from pydantic import SecretStr

from penstock.app.messages import Outgoing
from penstock.app.queues import QueueDeclaration
from penstock.buses.contract import Subscription
from penstock.buses.rabbitmq import RabbitBus
from penstock.buses.rabbitmq.connection import Supervised, _SplitConnection
from penstock.buses.rabbitmq.publishing import Publisher
from penstock.buses.rabbitmq.turns import Turns
from penstock.config.bus import BusSection
from penstock.errors import BusUnavailable
from tests.broker import Broker
from tests.contract.received import PATIENCE_S, Received, eventually

QUEUE = QueueDeclaration(name="work")


def section(url: str) -> BusSection:
    return BusSection(url=SecretStr(url), reconnect_cap_s=0.2, heartbeat_s=5)


@pytest.fixture
async def bus(amqp_url: str) -> AsyncIterator[RabbitBus]:
    bus = RabbitBus(section(amqp_url))
    await bus.connect()
    await bus.declare([QUEUE])
    yield bus
    await bus.aclose()


def messages(*ids: str) -> list[Outgoing]:
    return [Outgoing(QUEUE.name, b"", message_id=id_) for id_ in ids]


async def test_a_cancelled_change_of_prefetch_leaves_what_is_out_and_comes_into_force(bus: RabbitBus) -> None:
    received = Received()
    await bus.consume([Subscription(QUEUE, 1)], received)
    await bus.publish(messages(*(f"m{n}" for n in range(60))), timeout_s=10)
    await received.wait_for(1)

    # Wherever it is at that moment: each number of turns of the loop is another place.
    for turns in range(40):
        changing = asyncio.create_task(bus.set_prefetch(QUEUE.name, 1))
        for _ in range(turns):
            await asyncio.sleep(0)
        changing.cancel()
        await asyncio.wait((changing,))
    # Takes its turn after all of them.
    await bus.set_prefetch(QUEUE.name, 60)
    await received.wait_for(60)

    assert not any(delivery.redelivered for delivery in received.deliveries)
    assert all(delivery.settler.ack(delivery.tag) for delivery in received.deliveries)
    await bus.stop_consuming()
    await bus.flush()
    assert sorted(filter(None, received.ids)) == sorted(f"m{n}" for n in range(60))


async def test_a_queue_counts_as_consumed_while_its_prefetch_changes(bus: RabbitBus) -> None:
    await bus.consume([Subscription(QUEUE, 1)], Received())
    seen = []
    changing = asyncio.create_task(bus.set_prefetch(QUEUE.name, 2))
    while not changing.done():
        seen.append(bus.consuming())
        await asyncio.sleep(0)

    assert len(seen) > 2
    assert set(seen) == {frozenset({QUEUE.name})}


async def test_a_queue_that_is_gone_when_its_prefetch_changes_is_not_consumed_until_it_is_back(
    bus: RabbitBus, broker: Broker, amqp_url: str
) -> None:
    await bus.consume([Subscription(QUEUE, 1)], Received())
    virtual_host = amqp_url.rpartition("/")[2]
    # Between the old consumer's end and the new one's beginning.
    deleting = asyncio.create_task(
        asyncio.to_thread(broker.ctl, "delete_queue", "--vhost", virtual_host, QUEUE.name)
    )
    async with asyncio.timeout(PATIENCE_S):
        while bus.consuming():
            await bus.set_prefetch(QUEUE.name, 2)

    await deleting
    await eventually(lambda: is_consumed(bus))


async def test_answers_that_are_out_of_step_cost_the_connection_and_not_the_queue(bus: RabbitBus) -> None:
    received = Received()
    await bus.consume([Subscription(QUEUE, 1)], received)
    consumers = bus._consumers
    assert consumers is not None
    channel = consumers._groups[0]._channel
    assert isinstance(channel, Channel)

    # The broker does so itself, when a queue is deleted while its consumer is cancelled, now and then.
    channel.rpc_frames.put_nowait(spec.Basic.CancelOk(consumer_tag="penstock-0"))
    await bus.set_prefetch(QUEUE.name, 2)

    async def is_back() -> bool:
        return bus.statistics().reconnects["consuming"] == 1 and await is_consumed(bus)

    await eventually(is_back)
    await bus.publish(messages("after"), timeout_s=10)
    await received.wait_for(1)


async def is_consumed(bus: RabbitBus) -> bool:
    return QUEUE.name in bus.consuming()


async def test_a_change_of_prefetch_ends_with_its_connection_and_holds_on_the_next(
    own_broker: Broker,
) -> None:
    bus = RabbitBus(section(own_broker.url))
    await bus.connect()
    await bus.declare([QUEUE])
    await asyncio.to_thread(own_broker.sync_declarations)
    received = Received()
    await bus.consume([Subscription(QUEUE, 1)], received)
    await bus.publish(messages("a", "b", "c"), timeout_s=10)
    await received.wait_for(1)

    own_broker.freeze()
    changing = asyncio.create_task(bus.set_prefetch(QUEUE.name, 3))
    cancelled = asyncio.create_task(bus.set_prefetch(QUEUE.name, 3))
    done, _ = await asyncio.wait((changing, cancelled), timeout=0.2)
    assert not done
    cancelled.cancel()
    await asyncio.wait((cancelled,), timeout=5)
    assert cancelled.cancelled()
    await asyncio.to_thread(own_broker.kill)
    async with asyncio.timeout(5):
        await changing
    await asyncio.to_thread(own_broker.start)

    await received.wait_for(4)
    assert sorted(filter(None, received.ids[1:])) == ["a", "b", "c"]
    assert received.deliveries[0].settler.is_gone
    assert all(delivery.settler.ack(delivery.tag) for delivery in received.deliveries[1:])
    await bus.flush()
    await bus.aclose()


async def test_a_supervised_connection_says_when_it_goes_and_when_it_comes(own_broker: Broker) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()

    async def on_up(_: AbstractConnection) -> None:
        said.put_nowait("up")

    connection = Supervised(
        "testing", section(own_broker.url), Random(1), on_up, on_down=lambda: said.put_nowait("down")
    )
    await connection.open()
    assert said.get_nowait() == "up"

    await asyncio.to_thread(own_broker.ctl, "close_all_connections", "maintenance")
    async with asyncio.timeout(10):
        assert [await said.get(), await said.get()] == ["down", "up"]

    await connection.aclose()
    assert said.get_nowait() == "down"
    assert said.empty()


async def test_what_is_published_while_the_connection_is_down_waits_for_it(amqp_url: str) -> None:
    publisher = Publisher("guest", Random(1))
    connection = Supervised("testing", section(amqp_url), Random(1), publisher.start, on_down=publisher.lost)
    await connection.open()
    await (await publisher.control.channel()).queue_declare(QUEUE.name)

    publisher.lost()
    publishing = asyncio.create_task(publisher.publish(messages("a", "b"), timeout_s=10))
    # Had it been sent, an answer would be here after the broker has answered so many other questions.
    assert [await publisher.control.depth(QUEUE.name) for _ in range(20)] == [0] * 20
    assert not publishing.done()

    await publisher.start(connection.underlay)

    assert await publishing == [None, None]
    assert await publisher.control.depth(QUEUE.name) == 2
    await connection.aclose()


async def test_turns_leave_nothing_behind_with_a_connection_that_lives_on(amqp_url: str) -> None:
    connection = Supervised("testing", section(amqp_url), Random(1), nobody)
    await connection.open()
    underlay, turns = connection.underlay, Turns()

    def observers() -> int:
        return len(underlay._closing._callbacks or ())  # type: ignore[attr-defined]

    before = observers()
    for _ in range(100):
        async with turns.turn(underlay):
            pass
        # What ended is taken off in the next turn of the loop.
        await asyncio.sleep(0)

    assert observers() == before
    await connection.aclose()


async def nobody(_: AbstractConnection) -> None:
    """Who wants nothing of a new connection."""


async def test_a_connection_that_never_came_about_is_closed_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """aio-pika closes what is left behind in a task of its own, which may come too late to run."""
    made: list[Connection] = []

    class Noted(_SplitConnection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr("penstock.buses.rabbitmq.connection._SplitConnection", Noted)
    # Port 1 is nobody's.
    refused = Supervised("testing", section("amqp://guest:guest@127.0.0.1:1/"), Random(1), nobody)

    with pytest.raises(BusUnavailable):
        await refused.open()

    assert [one.is_closed for one in made] == [True]


class Longest(Random):
    """Each wait is as long as it may be."""

    def random(self) -> float:
        return 0.999


@pytest.mark.parametrize(("most", "longest_s"), [(3, 0.8), (4, 1.6)])
async def test_a_connection_that_is_thrown_out_at_once_is_opened_less_and_less_often(
    amqp_url: str, most: int, longest_s: float
) -> None:
    opened_s: list[float] = []
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def throw_out(_: AbstractConnection) -> None:
        opened_s.append(loop.time())
        loop.call_soon(connection.wire.abort)
        if len(opened_s) == 7:
            enough.set()

    settings = BusSection(url=SecretStr(amqp_url), reconnect_cap_s=10.0)
    connection = Supervised("test", settings, Longest(), throw_out, most_short_lived=most)
    await connection.open()
    async with asyncio.timeout(PATIENCE_S):
        await enough.wait()
    await connection.aclose()

    waits_s = [after - before for before, after in itertools.pairwise(opened_s)]
    assert waits_s[0] < 0.7
    # It grows, and then no more.
    assert longest_s <= waits_s[-1] < 3.0
