"""Queues and exchanges that are deleted, full, or gone with their virtual host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.broker import Broker
from tests.crash.publisher import OUT
from tests.crash.scene import even, play, tasks


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
