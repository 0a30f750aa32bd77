"""Reproductions of defects that are not repaired yet: run by name, not with the others.

`pytest tests/crash/open_defects.py`; one that passes belongs among the others.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr

from penstock.app.messages import Outgoing
from penstock.app.queues import QueueDeclaration
from penstock.buses.address import open_bus
from penstock.buses.contract import Subscription
from penstock.config.bus import BusSection
from tests.broker import Broker
from tests.contract.received import Received
from tests.crash.proxy import BOTH, Proxy
from tests.crash.scene import LOST, even, play, tasks


async def test_a_service_comes_back_through_a_front_that_accepts_and_hangs_up(
    own_broker: Broker, tmp_path: Path
) -> None:
    """A load balancer before a dead broker. aiormq's connect raises StopAsyncIteration at an end of file in its
    handshake; that is none of BROKEN, so the supervisor's task ends in silence and the connection never comes back."""
    async with play(own_broker, tmp_path, "c.work") as scene:
        await asyncio.to_thread(own_broker.sync_declarations)
        await asyncio.to_thread(own_broker.kill)
        await scene.service.wait_line(LOST, count=2)
        # The proxy goes on listening, and closes what it accepts.
        await asyncio.to_thread(own_broker.start)

        await scene.recovered(deadline_s=20)
        even(await scene.close())


async def test_a_stop_request_is_heard_while_the_broker_is_silent(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    """A drain of 2 s took 35 s at the default heartbeat: the first step, `bus.stop_consuming`, waits for the broker's
    cancel-ok until three heartbeats are missed, and nothing bounds it. Service managers kill long before."""
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

    assert took_s < 7.0
    even(balance)


async def test_acks_that_were_being_written_when_the_connection_broke_are_given_up(
    broker: Broker, amqp_url: str
) -> None:
    """`ChannelSettler._write` waits in `basic_ack(wait=False)` for room in a write queue whose reader is gone, for
    ever; `flush` waits for it, and with it a drain that meets a broken connection: SIGTERM is never obeyed. Seen as a
    reactor that was frozen, then stopped. Each break also leaves such a task behind."""
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


async def test_a_connection_that_breaks_while_a_service_stops_makes_no_noise(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    """`Turns.turn`: `give_up` is called back after its timeout has ended, and asyncio logs an exception."""
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
    """`Publisher._known_delays` outlives the queue: what is published to its exchange is returned, and the settlement
    makes a dead letter, "unroutable", of each retry, until the next reconnect."""
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


async def test_a_message_that_kills_the_whole_service_ends_in_the_dead_letter_queue(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    """An async handler that ends the process. From the fourth delivery on it runs alone (`is_suspect`), and nobody
    counts its deaths: it comes again with every start, for ever."""
    async with play(broker, tmp_path, "c.loop", url=amqp_url) as scene:
        await scene.publish("c.loop", {"fails": 99, "how": "exit"})
        for _ in range(8):
            with suppress(TimeoutError):
                async with asyncio.timeout(6):
                    await scene.service.wait()
            if scene.service.returncode is None:
                break
            scene.note_end(scene.service)
            with suppress(AssertionError):
                # It may be killed before it says that it consumes.
                await scene.start_service("c.loop")

        dead = scene.ready("c.loop.dead")
        for service in [service for service in scene.services if service.returncode is not None]:
            scene.note_end(service)
    assert dead == 1
