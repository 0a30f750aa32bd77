"""While the broker has an alarm, publishing waits and says why; what was delivered is settled all the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from penstock.app.messages import Outgoing
from penstock.app.queues import QueueDeclaration
from penstock.buses.contract import Subscription
from penstock.buses.rabbitmq import RabbitBus
from penstock.config.bus import BusSection
from penstock.errors import PublishTimeout
from tests.broker import Broker
from tests.contract.received import Received, eventually

QUEUE = QueueDeclaration(name="work")
NO_MEMORY, ENOUGH = "0.0000001", "0.6"


def message(id_: str) -> Outgoing:
    return Outgoing(QUEUE.name, b"", message_id=id_)


@pytest.fixture
async def bus(own_broker: Broker) -> AsyncIterator[RabbitBus]:
    bus = RabbitBus(BusSection(url=SecretStr(own_broker.url), reconnect_cap_s=0.2))
    await bus.connect()
    await bus.declare([QUEUE])
    yield bus
    await bus.aclose()


async def alarm(broker: Broker, watermark: str) -> None:
    await asyncio.to_thread(broker.ctl, "set_vm_memory_high_watermark", watermark)


async def test_during_an_alarm_publishes_wait_acks_go_on_and_nothing_arrives_twice(
    bus: RabbitBus, own_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    received = Received()
    await bus.consume([Subscription(QUEUE, 10)], received)
    await bus.publish([message("before")], timeout_s=10)
    await received.wait_for(1)
    await alarm(own_broker, NO_MEMORY)

    # RabbitMQ tells who publishes, and only then; what tells it may still be taken.
    first = asyncio.create_task(bus.publish([message("first")], timeout_s=60))
    with caplog.at_level(logging.INFO):
        await eventually(lambda: said(caplog, "takes no messages"))
        (unknown,) = await bus.publish([message("too soon")], timeout_s=0.3)
        during = bus.statistics()
        assert received.deliveries[0].settler.ack(received.deliveries[0].tag)
        await bus.flush()
        waiting = asyncio.create_task(bus.publish([message("waits")], timeout_s=60))

        await eventually(lambda: is_settled(own_broker))
        assert not waiting.done()
        await alarm(own_broker, ENOUGH)
        assert await first == [None]
        assert await waiting == [None]
        await eventually(lambda: said(caplog, "takes messages again"))

    after = bus.statistics()
    assert (during.publishing_waits, during.alarms) == ("low on memory", 1)
    assert (after.publishing_waits, after.alarms) == (None, 1)
    assert isinstance(unknown, PublishTimeout)
    assert "low on memory" in str(unknown)
    await received.wait_for(3)
    assert sorted(filter(None, received.ids)) == ["before", "first", "waits"]


async def is_settled(broker: Broker) -> bool:
    """The broker holds nothing: asked beside AMQP, because it reads nothing from a connection that it blocks."""
    listed = await asyncio.to_thread(
        broker.ctl, "-q", "list_queues", "name", "messages", "--no-table-headers"
    )
    return f"{QUEUE.name}\t0" in listed.splitlines()


async def said(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    return any(words in line for line in caplog.messages)


async def test_an_alarm_ends_with_its_connection(bus: RabbitBus, own_broker: Broker) -> None:
    await asyncio.to_thread(own_broker.sync_declarations)
    await alarm(own_broker, NO_MEMORY)
    publishing = asyncio.create_task(bus.publish([message("m")], timeout_s=60))

    # The alarm is a setting of the running node; the one that comes back has none.
    await asyncio.to_thread(own_broker.kill)
    await asyncio.to_thread(own_broker.start)

    assert await publishing == [None]
    statistics = bus.statistics()
    assert (statistics.publishing_waits, statistics.reconnects["publishing"]) == (None, 1)
