"""Acks that are asked for just before the end reach their queue: a stop repeats nothing."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from penstock.app.messages import Outgoing
from penstock.app.queues import QueueDeclaration
from penstock.buses.contract import Subscription
from penstock.buses.rabbitmq import RabbitBus
from penstock.config.bus import BusSection
from tests.contract.received import Received

MESSAGES = 20_000


@pytest.mark.parametrize("type_", ["quorum", "classic"])
async def test_thousands_of_single_acks_before_the_end_are_all_seen_through(
    amqp_url: str, queue_prefix: str, type_: str
) -> None:
    queue = QueueDeclaration(name=f"{queue_prefix}work", type="quorum" if type_ == "quorum" else "classic")
    section = BusSection(url=SecretStr(amqp_url))
    bus, received = RabbitBus(section), Received()
    await bus.connect()
    await bus.declare([queue])
    messages = [Outgoing(queue.name, b"", message_id=f"m{n}") for n in range(MESSAGES)]
    assert await bus.publish(messages, timeout_s=30) == [None] * MESSAGES
    await bus.consume([Subscription(queue, MESSAGES)], received)
    first, *others = await received.wait_for(MESSAGES)

    # The first one holds them apart: each of the others is an ack of its own.
    await bus.stop_consuming()
    for delivery in others:
        assert delivery.settler.ack(delivery.tag)
    await bus.aclose()

    again = RabbitBus(section)
    await again.connect()
    async with again.hold(queue.name, limit=MESSAGES) as left:
        assert [delivery.message_id async for delivery in left] == [first.message_id]
    await again.aclose()
