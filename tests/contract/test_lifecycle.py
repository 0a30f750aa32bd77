"""Opening and closing: harmless when repeated, in words when it fails."""

import pytest

from penstock.app.messages import Outgoing
from penstock.buses.address import open_bus
from penstock.buses.contract import Bus, Subscription
from penstock.config.bus import BusSection
from penstock.errors import BusUnavailable
from tests.contract.conftest import Declared
from tests.contract.received import Received


async def test_connected_is_what_it_says(section: BusSection) -> None:
    bus = open_bus(section)
    states = [bus.is_connected]

    await bus.connect()
    states.append(bus.is_connected)
    await bus.aclose()
    states.append(bus.is_connected)

    assert states == [False, True, False]


async def test_closing_twice_or_before_connecting_is_harmless(section: BusSection) -> None:
    bus = open_bus(section)

    await bus.aclose()
    await bus.connect()
    await bus.aclose()
    await bus.aclose()


async def test_stopping_and_flushing_without_consuming_is_harmless(bus: Bus) -> None:
    await bus.stop_consuming()
    await bus.flush()


async def test_consuming_names_the_queues_whose_consumer_is_confirmed(bus: Bus, declared: Declared) -> None:
    queues = [await declared("one"), await declared("two")]
    names = {queue.name for queue in queues}
    assert bus.consuming() == set()

    await bus.consume([Subscription(queue, 2) for queue in queues], Received())
    assert bus.consuming() == names
    await bus.set_prefetch(queues[0].name, 5)
    assert bus.consuming() == names
    await bus.stop_consuming()
    assert bus.consuming() == set()
    await bus.aclose()
    assert bus.consuming() == set()


async def test_a_bus_that_is_not_there_is_said_in_words_without_the_password(unreachable: BusSection) -> None:
    bus = open_bus(unreachable)

    with pytest.raises(BusUnavailable) as refused:
        await bus.connect()

    assert "S3CR3T" not in str(refused.value)
    assert len(str(refused.value).split()) > 5
    await bus.aclose()


async def test_closing_while_messages_stream_in_loses_none(
    section: BusSection, declared: Declared, bus: Bus
) -> None:
    queue = await declared()
    messages = [Outgoing(queue.name, b"", message_id=f"m-{n}") for n in range(500)]
    assert await bus.publish(messages, timeout_s=20) == [None] * 500
    acked: set[str | None] = set()
    twice: list[str | None] = []

    while len(acked) < 500:
        consumer = open_bus(section)
        await consumer.connect()
        received = Received()
        await consumer.consume([Subscription(queue, 20)], received)
        await received.wait_for_any()
        for delivery in received.deliveries[:120]:
            delivery.settler.ack(delivery.tag)
            (acked.add if delivery.message_id not in acked else twice.append)(delivery.message_id)
        await consumer.aclose()

    assert twice == []
