"""Faults that other task systems are known to fail, named after their threads: repository and number."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from penstock.health.file import read_health
from tests.broker import Broker
from tests.crash.scene import BACK, READY, SPARE, descriptors, even, play, tasks


async def test_celery_3201_2296_8030_8541_taskiq_aio_pika_46_a_reconnect_leaves_a_service_that_works_and_runs_nothing_twice(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        ids = await scene.publish("c.work", {"s": 2.0}, *tasks(100))
        await scene.begun(ids[0])

        scene.proxy.reset()

        await scene.service.wait_line(BACK, count=2)
        ids += await scene.publish("c.work", *tasks(100, publishes=True))
        await scene.done(ids)
        balance = await scene.close()

    assert scene.ledger.run_counts()[ids[0]] == 1
    even(balance, duplicates=0, dead=0)


async def test_celery_1628_5641_dramatiq_213_505_temporal_245_apscheduler_362_chancy_94_killed_workers_neither_lose_nor_loop_nor_stop_the_service(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        await scene.publish("c.work", {"fails": 99, "how": "kill"})
        ids = await scene.publish("c.work", {"fails": 1, "how": "kill"})
        await scene.service.wait_line(READY, count=2 + 4)
        await scene.service.wait_line("message dead lettered")
        # taskiq: a pool that broke once fails, and acks, everything after it.
        ids += await scene.publish("c.work", *tasks(100))
        await scene.done(ids)
        balance = await scene.close()

    even(balance, dead=1, duplicates=0, effects=101)


async def test_celery_9867_9912_faststream_1488_1657_broadway_73_retries_are_neither_dropped_nor_endless(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", "c.classic", url=amqp_url) as scene:
        ids: list[str] = []
        for queue in ("c.work", "c.classic"):
            ids += await scene.publish(queue, {"fails": 4})
            await scene.publish(queue, {"fails": 99})
        await scene.service.wait_line("message dead lettered", count=2)
        await scene.done(ids)
        balance = await scene.close()

    assert {effect.attempt for effect in scene.ledger.effects()} == {5}
    assert set(scene.ledger.run_counts().values()) == {5}
    even(balance, dead=2, duplicates=0)


async def test_taskiq_322_578_what_fails_or_cannot_be_read_is_a_dead_letter_and_holds_no_prefetch(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", url=amqp_url, BUS__PREFETCH_TOTAL="2") as scene:
        await scene.publish("c.work", *[b"{"] * 5, *tasks(5, s="soon"), *tasks(5, rejects=True))
        ids = await scene.publish("c.work", *tasks(10))
        await scene.done(ids)
        balance = await scene.close()

    even(balance, dead=15, duplicates=0)


async def test_celery_6500_dramatiq_850_an_idle_worker_takes_what_waits_behind_a_busy_one(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        await scene.service.wait_line(READY, count=2)
        await scene.done(await scene.publish("c.work", *tasks(200)))
        # Quick ones travel together, and a slow one among them holds the rest of its batch.
        (slow,) = await scene.publish("c.work", {"s": 2.5})
        ids = await scene.publish("c.work", *tasks(100))

        await scene.done(ids, deadline_s=2.0)

        assert scene.ledger.effects_of([slow]) == []
        await scene.done([slow])
        balance = await scene.close()

    even(balance, duplicates=0)


@pytest.mark.long
async def test_celery_5998_heartbeats_go_on_while_a_service_drains(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        ids = await scene.publish("c.work", *tasks(2, s=8.0))
        for id_ in ids:
            await scene.begun(id_)

        await scene.stop_service()
        balance = await scene.balance()

    even(balance, duplicates=0, effects=2)


async def test_procrastinate_1116_a_database_that_is_away_is_waited_for_and_charged_to_nobody(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", url=amqp_url, DATABASE__BUSY_TIMEOUT_S="0.2") as scene:
        with closing(sqlite3.connect(scene.ledger.database, isolation_level=None)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            ids = await scene.publish("c.work", *tasks(20))
            await scene.service.wait_line("message is retried", count=3)
            foreign.execute("ROLLBACK")
        await scene.done(ids)
        balance = await scene.close()

    assert {effect.attempt for effect in scene.ledger.effects()} == {1}
    even(balance, dead=0, duplicates=0)


@pytest.mark.long
async def test_celery_6760_dramatiq_458_a_delay_beyond_the_consumer_timeout_holds_nothing_unacked(
    own_broker: Broker, tmp_path: Path
) -> None:
    await asyncio.to_thread(
        own_broker.ctl,
        "eval",
        "application:set_env(rabbit,consumer_timeout,2000),"
        "application:set_env(rabbit,channel_tick_interval,500).",
    )
    async with play(own_broker, tmp_path, "c.patient") as scene:
        (id_,) = await scene.publish("c.patient", {"fails": 1})
        await scene.begun(id_)
        await scene.until(lambda: scene.unacked("c.patient") == 0)
        await scene.done([id_])
        made = scene.proxy.made
        balance = await scene.close()

    assert made == 2
    even(balance, duplicates=0)


async def test_faststream_2758_aio_pika_334_a_queue_whose_consumer_the_broker_dropped_is_consumed_again(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", "c.classic", url=amqp_url) as scene:
        ids = await scene.publish("c.classic", *tasks(10))
        await scene.done(ids)

        await scene.ctl("delete_queue", "--vhost", scene.virtual_host, "c.work")

        await scene.until(lambda: "c.work" in scene.queues())
        ids += await scene.publish("c.work", *tasks(10))
        ids += await scene.publish("c.classic", *tasks(10))
        await scene.done(ids)
        balance = await scene.close()

    even(balance, dead=0, duplicates=0, effects=30)


async def test_faststream_2530_2749_no_more_is_out_than_the_prefetch_however_much_waits(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.classic", url=amqp_url, BUS__PREFETCH_TOTAL="4") as scene:
        ids = await scene.publish("c.classic", *tasks(60, s=0.1))
        out = []
        while len(scene.ledger.effects_of(ids)) < 20:
            out.append(await asyncio.to_thread(scene.unacked, "c.classic"))
        await scene.done(ids)
        balance = await scene.close()

    assert 0 < max(out) <= 4
    even(balance, dead=0, duplicates=0)


@pytest.mark.long
async def test_nameko_473_broken_connections_do_not_pile_up(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        ids = await scene.publish("c.work", *tasks(10, publishes=True))
        await scene.done(ids)
        before = descriptors(scene.service.pid)
        for count in range(1, 4):
            scene.proxy.reset()
            await scene.service.wait_line(BACK, count=2 * count)
            ids += await scene.publish("c.work", *tasks(10, publishes=True))
            await scene.done(ids)

        await scene.until(lambda: descriptors(scene.service.pid) <= before)
        balance = await scene.close()

    even(balance, dead=0, duplicates=0, effects=40)


@pytest.mark.long
async def test_masstransit_2716_a_service_whose_broker_is_away_does_not_say_that_it_is_well(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "health.json"

    def is_ready() -> bool:
        health = read_health(file)
        return health is not None and health.is_ready

    async with play(broker, tmp_path, "c.work", url=amqp_url, SERVICE__HEALTH_FILE=str(file)) as scene:
        await scene.until(is_ready)

        await scene.proxy.refuse()
        scene.proxy.reset()

        await scene.until(lambda: not is_ready(), deadline_s=5.0 * SPARE)
        await scene.proxy.listen()
        await scene.until(is_ready)
        balance = await scene.close()

    even(balance, effects=0)


@pytest.mark.long
async def test_broadway_rabbitmq_106_faststream_1636_dramatiq_827_a_message_beyond_the_consumer_timeout_is_settled(
    own_broker: Broker, tmp_path: Path
) -> None:
    await asyncio.to_thread(
        own_broker.ctl,
        "eval",
        "application:set_env(rabbit,consumer_timeout,2000),"
        "application:set_env(rabbit,channel_tick_interval,500).",
    )
    async with play(own_broker, tmp_path, "c.work", "c.classic") as scene:
        slow = await scene.publish("c.work", {"s": 6.0}) + await scene.publish("c.classic", {"s": 6.0})
        await scene.done(slow)
        ids = await scene.publish("c.work", *tasks(20)) + await scene.publish("c.classic", *tasks(20))
        await scene.done(ids)
        balance = await scene.close()

    assert [scene.ledger.run_counts()[id_] for id_ in slow] == [1, 1]
    even(balance, dead=0, duplicates=0, effects=42)
