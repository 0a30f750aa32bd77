"""The network between service and broker: cut, deaf, stalled, slow, in crumbs."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

from tests.broker import Broker
from tests.crash.proxy import BOTH, Way
from tests.crash.scene import LOST, SPARE, Scene, descriptors, even, play, tasks

HEARTBEAT_S = 2
#: Three heartbeats are missed, each a second late.
NOTICED_S = 3 * (HEARTBEAT_S + 1)
QUEUES = ("c.work", "c.classic", "c.loop")
SEED = 20261121
#: More than heartbeats have, 8 bytes each, before they are missed.
DELIVERY_BYTES = 60


async def load(scene: Scene) -> list[str]:
    """Messages of every kind, so that something is in each phase when the fault comes."""
    return [
        *await scene.publish("c.work", *tasks(150, publishes=True), *tasks(10, fails=1), {"s": 1.0}),
        *await scene.publish("c.classic", *tasks(100, publishes=True)),
        *await scene.publish("c.loop", *tasks(50, publishes=True)),
    ]


async def test_a_cut_connection_is_back_at_once(broker: Broker, amqp_url: str, tmp_path: Path) -> None:
    recoveries: list[float] = []
    async with play(broker, tmp_path, *QUEUES, url=amqp_url) as scene:
        ids = await load(scene)
        await scene.recovered()
        before = descriptors(scene.service.pid)
        for _ in range(5):
            with scene.ledger.disturbed("connections reset", severs=True):
                scene.proxy.reset()
            ids += await scene.publish("c.work", *tasks(20, publishes=True))
            recoveries.append(await scene.recovered())
        await scene.done(ids)
        await scene.service.wait_line(LOST, count=6)
        after = descriptors(scene.service.pid)
        balance = await scene.close()

    # 0.8 s of waiting at most after so many cuts, and a busy machine's time to work off what came again.
    assert max(recoveries) < 2.5
    assert after <= before + 2
    even(balance, dead=0)


@pytest.mark.parametrize("way", [Way.UP, pytest.param(Way.DOWN, marks=pytest.mark.long)])
async def test_a_connection_that_is_cut_amid_frames_loses_nothing(
    broker: Broker, amqp_url: str, tmp_path: Path, way: Way
) -> None:
    dice = Random(SEED)
    async with play(broker, tmp_path, *QUEUES, url=amqp_url) as scene:
        ids: list[str] = []
        for _ in range(3):
            with scene.ledger.disturbed("cut amid a frame", severs=True):
                scene.proxy.cut_after(way, dice.randrange(1, 6000))
                ids += await load(scene)
                await scene.proxy.wait_cut()
        await scene.done(ids)
        balance = await scene.close()

    even(balance, dead=0)


async def test_a_retry_that_was_lost_on_its_way_is_not_taken_for_the_message_that_it_repeats(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.patient", "c.work", url=amqp_url) as scene:
        await scene.publish("c.patient", {})
        # Only the first one has to declare its delay queue.
        await scene.until(lambda: "penstock.delay.4096" in scene.queues())
        (id_,) = await scene.publish("c.patient", {})
        await scene.service.wait_line("message is retried", count=2)
        # Its retry waits in the delay queue; it is acked itself before these are done.
        for _ in range(3):
            await scene.recovered()
        scene.proxy.swallow(Way.DOWN)
        await scene.until(lambda: scene.proxy.swallowed_bytes > DELIVERY_BYTES)
        scene.proxy.reset()
        scene.proxy.heal()

        await scene.done([id_])
        balance = await scene.close()

    even(balance, duplicates=0, dead=0)


@pytest.mark.parametrize(
    "ways",
    [
        BOTH,
        pytest.param((Way.UP,), marks=pytest.mark.long),
        pytest.param((Way.DOWN,), marks=pytest.mark.long),
    ],
    ids=["black hole", "acks lost", "deliveries lost"],
)
async def test_a_deaf_connection_is_noticed_and_replaced(
    broker: Broker, amqp_url: str, tmp_path: Path, ways: tuple[Way, ...]
) -> None:
    async with play(broker, tmp_path, *QUEUES, url=amqp_url) as scene:
        ids = await load(scene)
        began_s = time.monotonic()
        with scene.ledger.disturbed("deaf", severs=True):
            scene.proxy.swallow(*ways)
            ids += await load(scene)
            scene.proxy.heal()
            await scene.until(lambda: not scene.proxy.deaf_links)
        noticed_s = time.monotonic() - began_s
        recovery_s = await scene.recovered()
        await scene.done(ids)
        balance = await scene.close()

    assert noticed_s < NOTICED_S + 3 * SPARE
    assert recovery_s < 3.5 * SPARE
    even(balance, dead=0)


@pytest.mark.long
async def test_a_stalled_connection_goes_on_where_it_stood(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, *QUEUES, url=amqp_url) as scene:
        ids = await load(scene)
        scene.proxy.stall()
        ids += await load(scene)
        (held,) = await scene.publish("c.work", {"s": 0.5})
        scene.proxy.heal()
        await scene.done([*ids, held])
        balance = await scene.close()

    # Short of the heartbeats: nobody was lost, nothing came twice.
    even(balance, duplicates=0, dead=0)
    assert LOST not in [line["event"] for line in scene.ended[0].lines]


@pytest.mark.long
async def test_crumbs_and_latency_are_slow_and_no_more(broker: Broker, amqp_url: str, tmp_path: Path) -> None:
    async with play(broker, tmp_path, *QUEUES, url=amqp_url) as scene:
        scene.proxy.slow(latency_s=0.001, slice_bytes=61)
        ids = await load(scene)
        await scene.done(ids)
        scene.proxy.slow(latency_s=0.2)
        ids += await load(scene)
        await scene.done(ids)
        scene.proxy.heal()
        balance = await scene.close()

    even(balance, duplicates=0, dead=0)
    assert LOST not in [line["event"] for line in scene.ended[0].lines]
