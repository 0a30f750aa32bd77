"""The reactor dies, is stopped, freezes and is kept busy."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.crash.scene import LOST, SPARE, Scene, even, play, tasks

#: Three that nobody can blame on one message, and three while it ran alone.
DEATHS_EACH = 6


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


async def start_again_until_parked(scene: Scene, queue: str, killers: Sequence[str]) -> int:
    """As a service manager does, until these are dead letters; how often the service died."""

    def parked() -> set[str]:
        return {
            line["message_id"]
            for service in [*scene.services, *scene.ended]
            for line in service.lines
            if line["event"] == "message dead lettered"
        }

    deaths = 0
    while True:
        service = scene.service
        await scene.until(lambda service=service: service.returncode is not None or parked() >= set(killers))  # type: ignore[misc]
        if service.returncode is None:
            return deaths
        deaths += 1
        assert deaths <= DEATHS_EACH * len(killers), (deaths, parked())
        await service.wait()
        scene.note_end(service)
        await scene.launch_service(queue)


@pytest.mark.parametrize(
    ("queue", "how"),
    [
        ("c.loop", "exit"),
        ("c.loop.classic", "segfault"),
        pytest.param("c.work", "group", marks=pytest.mark.long),
        pytest.param("c.classic", "group", marks=pytest.mark.long),
    ],
)
async def test_what_kills_the_whole_service_is_parked_and_takes_no_bystander_along(
    broker: Broker, amqp_url: str, tmp_path: Path, queue: str, how: str
) -> None:
    async with play(broker, tmp_path, queue, url=amqp_url) as scene:
        killer = {"fails": 99, "how": how}
        with scene.ledger.disturbed("messages that kill the service", severs=True):
            bystanders = list(await scene.publish(queue, *tasks(20, publishes=True)))
            killers = await scene.publish(queue, killer, {}, killer)
            bystanders += await scene.publish(queue, *tasks(20, publishes=True))
            deaths = await start_again_until_parked(scene, queue, [killers[0], killers[2]])
        await scene.done([*bystanders, killers[1]])
        balance = await scene.close()

    print(f"deaths={deaths}")  # noqa: T201 - two killers that are in one service's hands die together at first
    even(balance, dead=2)
    assert not scene.ledger.effects_of([killers[0], killers[2]])


async def test_copies_of_what_came_back_join_their_runs_after_a_cut(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.classic", url=amqp_url) as scene:
        ids = await scene.publish("c.classic", *tasks(2, s=3.0))
        for id_ in ids:
            await scene.begun(id_)
        with scene.ledger.disturbed("reactor killed", severs=False):
            await scene.kill_service()
        await scene.start_service("c.classic")
        for id_ in ids:
            await scene.begun(id_, times=2)
        # A plain cut while both run: the service lives.
        scene.proxy.reset()
        await scene.service.wait_line("a redelivered message joins its work, which is still running", count=2)
        await scene.done(ids)
        balance = await scene.close()

    even(balance, duplicates=0, dead=0, effects=2)
    assert {effect.attempt for effect in scene.ledger.effects_of(ids)} == {1}


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_bystanders_of_a_killer_are_charged_nothing_behind_a_long_queue(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", url=amqp_url, BUS__PREFETCH_TOTAL="8") as scene:
        with scene.ledger.disturbed("a message that kills the service", severs=True):
            (killer,) = await scene.publish("c.work", {"fails": 99, "how": "group", "s": 0.05})
            ids = list(await scene.publish("c.work", *tasks(5)))
            # Longer than any turn is kept for a copy.
            ids += await scene.publish("c.work", *tasks(400, s=0.02))
            await start_again_until_parked(scene, "c.work", [killer])
        await scene.done(ids, deadline_s=120)
        balance = await scene.close()

    even(balance, dead=1)
    assert set(ids) == {effect.message_id for effect in scene.ledger.effects_of(ids)}
