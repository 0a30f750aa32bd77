"""The reactor dies, is stopped, freezes and is kept busy."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.crash.scene import LOST, SPARE, even, play, tasks


async def test_a_killed_reactor_takes_its_workers_along_and_the_next_one_goes_on(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", "c.classic", "c.loop", url=amqp_url) as scene:
        running = await scene.publish("c.work", *tasks(2, s=5.0))
        waiting = [
            *await scene.publish("c.classic", *tasks(300, publishes=True)),
            *await scene.publish("c.loop", *tasks(100, publishes=True)),
            *await scene.publish("c.work", *tasks(20, fails=1)),
        ]
        for id_ in running:
            await scene.begun(id_)

        with scene.ledger.disturbed("reactor killed", severs=True):
            orphaned_s = await scene.kill_service()
        began_s = time.monotonic()
        await scene.start_service("c.work", "c.classic", "c.loop")
        started_s = time.monotonic() - began_s
        recovery_s = await scene.recovered("c.loop")
        await scene.done([*running, *waiting])
        balance = await scene.close()

    print(f"started_s={started_s:.1f} recovery_s={recovery_s:.3f}")  # noqa: T201 - how long Python takes is the machine's affair
    assert orphaned_s < 0.5 * SPARE
    assert recovery_s < 2.0 * SPARE
    even(balance, dead=0)
    # What was running had no effect yet: it runs once more, and once.
    assert {(effect.redelivered, effect.attempt) for effect in scene.ledger.effects_of(running)} == {
        (True, 1)
    }
    assert len(scene.ledger.effects_of(running)) == 2


async def test_a_deploy_loses_and_repeats_nothing(broker: Broker, amqp_url: str, tmp_path: Path) -> None:
    async with play(broker, tmp_path, "c.work", "c.classic", "c.loop", url=amqp_url) as scene:
        ids: list[str] = []
        deployed = asyncio.Event()

        async def load() -> None:
            while not deployed.is_set():
                for queue in ("c.work", "c.classic", "c.loop"):
                    ids.extend(await scene.publish(queue, *tasks(2, publishes=True, s=0.002)))
                await asyncio.sleep(0.05)

        loading = asyncio.create_task(load())
        for _ in range(2):
            old = scene.service
            await scene.start_service("c.work", "c.classic", "c.loop")
            await scene.stop_service(old)
        deployed.set()
        await loading
        await scene.done(ids)
        balance = await scene.close()

    even(balance, duplicates=0, dead=0, effects=len(ids))
    assert set(scene.ledger.run_counts().values()) == {1}


@pytest.mark.long
async def test_a_stop_request_is_heard_while_there_is_no_broker(own_broker: Broker, tmp_path: Path) -> None:
    async with play(own_broker, tmp_path, "c.work", SERVICE__DRAIN_SECONDS="3") as scene:
        await asyncio.to_thread(own_broker.sync_declarations)
        (id_,) = await scene.publish("c.work", {"publishes": True, "s": 0.5})
        await scene.begun(id_)
        with scene.ledger.disturbed("broker killed", severs=True):
            await scene.kill_broker()
            await scene.service.wait_line(LOST, count=2)
            began_s = time.monotonic()
            await scene.stop_service()
            took_s = time.monotonic() - began_s
            await scene.start_broker()

        await scene.start_service("c.work")
        await scene.until(lambda: len(scene.ledger.effects_of([id_])) == 2)
        balance = await scene.close()

    # What it published could not leave, so it runs again: once more, marked.
    assert took_s < 7.0 * SPARE
    even(balance, duplicates=1)


@pytest.mark.long
async def test_a_frozen_reactor_wakes_up_and_settles_nothing_that_is_not_its_own(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        frozen = scene.service
        held = await scene.publish("c.work", *tasks(2, s=4.0))
        ids = await scene.publish("c.work", *tasks(200, publishes=True))
        for id_ in held:
            await scene.begun(id_)
        os.kill(frozen.pid, signal.SIGSTOP)
        await scene.start_service("c.work")

        # The broker gives them to the other one when it misses the heartbeats.
        await scene.done([*held, *ids])
        await scene.begun(held[0], times=2)
        os.kill(frozen.pid, signal.SIGCONT)

        await scene.recovered()
        balance = await scene.close()

    even(balance, dead=0)


@pytest.mark.long
async def test_a_handler_that_blocks_the_loop_is_not_run_twice(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.loop", "c.work", url=amqp_url) as scene:
        running = await scene.publish("c.work", *tasks(2, s=1.0))
        for id_ in running:
            await scene.begun(id_)
        (blocking,) = await scene.publish("c.loop", {"held_s": 9.0, "publishes": True})
        # The broker gives the connections up meanwhile.
        await scene.done([*running, blocking])
        await scene.recovered()
        balance = await scene.close()

    even(balance, duplicates=0, dead=0)
    counts = scene.ledger.run_counts()
    assert [counts[id_] for id_ in (*running, blocking)] == [1, 1, 1]


async def test_a_service_goes_on_when_nobody_reads_its_log(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        # Nobody reads any more; 64 KiB are in the pipe soon, at one line a retry.
        scene.service.stop_reading()

        ids = await scene.publish("c.work", *tasks(600, fails=1, publishes=True))

        await scene.done(ids)
        recovery_s = await scene.recovered()
        scene.service.read_on()
        balance = await scene.close()

    assert recovery_s < 1.0 * SPARE
    even(balance, duplicates=0, effects=601)
