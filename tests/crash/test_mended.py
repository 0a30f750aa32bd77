"""Faults that once were more than a fault: each of these has cost a service its connection, its stop or a message."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from penstock.app.messages import Outgoing
from penstock.app.queues import QueueDeclaration
from penstock.buses.address import open_bus
from penstock.buses.contract import Subscription
from penstock.config.bus import BusSection
from tests.broker import Broker
from tests.contract.received import Received
from tests.crash.proxy import BOTH, Proxy
from tests.crash.scene import LOST, SPARE, even, play, tasks


async def test_a_service_comes_back_through_a_front_that_accepts_and_hangs_up(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    """A load balancer before a dead broker: aiormq raises the end of an iteration at an end of file in its handshake."""
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        scene.proxy.hang_up()
        scene.proxy.reset()
        await scene.service.wait_line(LOST, count=2)
        await scene.service.wait_line("the broker cannot be reached yet: tried again", count=2)
        scene.proxy.heal()

        await scene.recovered(deadline_s=20)
        assert scene.proxy.hung_up >= 2
        even(await scene.close())


@pytest.mark.long
async def test_a_stop_request_is_heard_while_the_broker_is_silent(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    """The broker's answer to the first step of a drain may never come: nothing waits for three heartbeats."""
    async with play(
        broker, tmp_path, "c.work", url=amqp_url, SERVICE__DRAIN_SECONDS="2", BUS__HEARTBEAT_S="10"
    ) as scene:
        ids = await scene.publish("c.work", *tasks(50))
        await scene.done(ids)
        scene.proxy.swallow(*BOTH)
        began_s = time.monotonic()

        await scene.stop_service()

        took_s = time.monotonic() - began_s
        scene.proxy.heal()
        balance = await scene.close()

    assert took_s < 7.0 * SPARE
    even(balance)


async def test_acks_that_were_being_written_when_the_connection_broke_are_given_up(
    broker: Broker, amqp_url: str
) -> None:
    """Acks that were asked for at that moment hold neither a flush nor a stop up."""
    async with Proxy(amqp_url) as proxy:
        for number in range(10):
            bus = open_bus(BusSection(url=SecretStr(proxy.url), heartbeat_s=2))
            await bus.connect()
            queue = QueueDeclaration(name=f"q{number}")
            await bus.declare([queue])
            messages = [Outgoing(queue.name, b"{}", message_id=f"{n}") for n in range(400)]
            await bus.publish(messages, timeout_s=10)
            received = Received(acks=False)
            await bus.consume([Subscription(queue, 400)], received)
            async with asyncio.timeout(20):
                while len(received.deliveries) < 400:  # noqa: ASYNC110 - it counts, and says nothing
                    await asyncio.sleep(0.01)
            for delivery in received.deliveries[1::2]:
                delivery.settler.ack(delivery.tag)

            await asyncio.sleep(0.0015 * (number % 4))
            proxy.reset()

            await asyncio.wait_for(bus.flush(), 5)
            await asyncio.wait_for(bus.aclose(), 15)


@pytest.mark.long
async def test_a_connection_that_breaks_while_a_service_stops_makes_no_noise(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    """A turn on a consuming AMQP channel may end together with its connection."""
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        for _ in range(5):
            scene.proxy.stall()
            stopping = asyncio.create_task(scene.stop_service())
            await asyncio.sleep(0.3)
            scene.proxy.reset()
            scene.proxy.heal()
            await stopping
            await scene.start_service("c.work")
        said = [str(line["event"]) for service in scene.ended for line in service.lines]
    assert [event for event in said if "Exception in callback" in event] == []


async def test_a_deleted_delay_queue_is_made_again(broker: Broker, amqp_url: str, tmp_path: Path) -> None:
    """What is published to its exchange is returned: no retry becomes a dead letter for that."""
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        await scene.done(await scene.publish("c.work", *tasks(20, fails=1)))
        channel = await scene.publisher.channel()
        listed = await scene.ctl("list_queues", "--vhost", scene.virtual_host, "name", "--no-table-headers")
        delays = [name for name in listed.split() if name.startswith("penstock.delay.")]
        assert delays
        for name in delays:
            await channel.queue_delete(name)
        ids = await scene.publish("c.work", *tasks(20, fails=1))

        await scene.done(ids, deadline_s=15)
        balance = await scene.close()

    even(balance, dead=0)
