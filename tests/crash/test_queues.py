"""Queues and exchanges that are deleted, full, or gone with their virtual host."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import aiormq
import pytest

from penstock.app.queues import QueueDeclaration
from penstock.buses.rabbitmq.topology import work_arguments
from tests.broker import Broker
from tests.crash.publisher import OUT
from tests.crash.scene import LOST, even, play, tasks

#: What `rabbitmqctl delete_queue` would do if there were a leader to ask.
FORGET_QUEUE: Final = (
    "catch ra:force_delete_server(quorum_queues, {'%2F_c.work', node()}), "
    'rabbit_amqqueue:internal_delete(rabbit_misc:r(<<"/">>, queue, <<"c.work">>), <<"penstock-tests">>).'
)


async def test_what_a_full_queue_refuses_leaves_when_there_is_room(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", "c.loop", url=amqp_url) as scene:
        channel = await scene.publisher.channel()
        await channel.queue_delete(OUT)
        await channel.declare_queue(
            OUT, durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
        )
        ids = await scene.publish("c.work", *tasks(10, publishes=True))
        await scene.service.wait_line(
            "the bus did not confirm a message: it is published again with the same id"
        )
        # Nobody else waits for it.
        others = await scene.publish("c.loop", *tasks(20))
        await scene.done([*ids, *others])
        taken: set[str] = set()
        queue = await channel.get_queue(OUT)
        while len(taken) < 10:
            message = await queue.get(no_ack=True, fail=False)
            if message is not None:
                taken.add(str(message.message_id))
        balance = await scene.close()

    assert len(taken) == 10
    even(balance, duplicates=0, dead=0)


@pytest.mark.parametrize("what", ["exchange", "queue"])
async def test_a_deleted_delay_is_made_again(
    broker: Broker, amqp_url: str, tmp_path: Path, what: str
) -> None:
    """What is published to the exchange of a deleted queue is returned: no retry becomes a dead letter for that."""
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        await scene.done(await scene.publish("c.work", *tasks(20, fails=1)))
        channel = await scene.publisher.channel()
        delete = channel.exchange_delete if what == "exchange" else channel.queue_delete
        delays = [name for name in scene.queues() if name.startswith("penstock.delay.")]
        assert delays
        for name in delays:
            await delete(name)
        ids = await scene.publish("c.work", *tasks(20, fails=1))

        await scene.done(ids, deadline_s=15)
        balance = await scene.close()

    even(balance, dead=0)


async def test_a_deleted_dead_letter_queue_is_made_again(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        channel = await scene.publisher.channel()
        await channel.queue_delete("c.work.dead")
        await scene.publish("c.work", {"rejects": True})

        await scene.until(lambda: scene.unacked("c.work") == 0 and scene.ready("c.work.dead") == 1, 20)
        balance = await scene.close()

    even(balance, dead=1)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("answers", ["silence", "the end of the connection"])
async def test_a_queue_without_a_leader_keeps_nobody_from_consuming(
    own_broker: Broker, tmp_path: Path, answers: str
) -> None:
    # Killed while the queue is made, a node comes back with a queue that has no leader, and never will.
    channel = await (await aiormq.connect(own_broker.url)).channel()
    arguments = work_arguments(QueueDeclaration(name="c.work"))
    await channel.queue_declare("c.work", durable=True, arguments=arguments)
    if answers != "silence":
        await asyncio.to_thread(own_broker.sync_declarations)
        await channel.queue_delete("c.work")
        await channel.queue_declare("c.work", durable=True, arguments=arguments)
    await asyncio.to_thread(own_broker.kill)
    await asyncio.to_thread(own_broker.start)

    async with play(own_broker, tmp_path, "c.work", "c.loop", "c.classic") as scene:
        await scene.service.wait_line(
            "the broker does not let a queue be consumed: it is waited for on a connection of its own, the other queues "
            "go on; a quorum queue without a leader does so: start its nodes, or delete the queue"
        )
        others = [
            *await scene.publish("c.loop", *tasks(50, publishes=True)),
            *await scene.publish("c.classic", *tasks(50, fails=1)),
        ]
        await scene.done(others)
        losses = sum(line["event"] == LOST and line["purpose"] == "consuming" for line in scene.service.lines)
        # Nobody needs it while it has no leader: it can be deleted, and is made again.
        await scene.ctl("eval", FORGET_QUEUE)
        await scene.recovered("c.work", deadline_s=120)
        balance = await scene.close()

    assert losses == 1
    even(balance, duplicates=0, dead=0)
