"""The machine runs out: processes, descriptors, room on the disk; and its clock jumps."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.crash.alone import alone
from tests.crash.scene import LOST, READY, descriptors, even, play, tasks
from tests.embedded.killed import left
from tests.machine import FaultyLibc, process_limit
from tests.service.processes import kill_quietly, parent_of

REFUSED = "a worker could not be started: tried again"


@pytest.mark.parametrize(
    "room",
    [
        pytest.param(0, id="no thread", marks=pytest.mark.long),
        pytest.param(1, id="no process"),
        pytest.param(2, id="a process and no thread for it"),
    ],
)
async def test_with_no_process_to_be_had_the_other_workers_go_on_and_the_slot_comes_back(
    tmp_path: Path, room: int
) -> None:
    with process_limit() as limit:
        async with alone(tmp_path) as scene:
            service = await scene.start_service(processes=2)
            killed, left = service.worker_pids
            limit.add(service.pid, parent_of(left), killed, left)
            limit.close()
            kill_quietly(killed)
            await service.wait_line(REFUSED)
            # What the dead one took is free again by now.
            limit.set_room(room)
            count = sum(line["event"] == REFUSED for line in service.lines)
            await service.wait_line(REFUSED, count=count + 2)

            await scene.done(await scene.publish("c.work", *tasks(20)))
            assert service.worker_pids == [left]

            limit.set_room(None)
            await service.wait_line(READY, count=3)
            await scene.done(await scene.publish("c.work", *tasks(20)))
            balance = await scene.close()

    even(balance, duplicates=0, dead=0, effects=40)


BEGIN = """
import asyncio
from penstock.cli.run import _start_threads
from penstock.errors import ConfigurationError
input()
try:
    asyncio.run(_start_threads())
except ConfigurationError as error:
    print(error)
"""


def test_a_service_that_may_not_start_its_threads_says_so_and_ends() -> None:
    with (
        process_limit() as limit,
        subprocess.Popen(
            [sys.executable, "-c", BEGIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as begun,
    ):
        limit.add(begun.pid)
        limit.set_room(2)
        said, _ = begun.communicate("\n", timeout=20)

    assert "lets this process start 2 of" in said
    assert begun.returncode == 0


async def test_without_a_descriptor_what_needs_one_waits_and_the_rest_goes_on(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        service = scene.service
        await service.wait_line(READY, count=2)
        ids = await scene.publish("c.work", *tasks(20))
        await scene.done(ids)
        before = descriptors(service.pid)
        killed, _ = service.worker_pids
        with no_descriptor_for(service.pid):
            scene.kill_worker(killed)
            await service.wait_line(REFUSED, count=2)
            ids += await scene.publish("c.work", *tasks(20))
            await scene.done(ids)

            scene.proxy.reset()
            await service.wait_line(LOST)
            (waits,) = await scene.publish("c.work", {})
            await service.wait_line(REFUSED, count=4)
            assert not scene.ledger.effects_of([waits])

        await scene.done([waits])
        await service.wait_line(READY, count=3)
        await scene.until(lambda: descriptors(service.pid) <= before)
        balance = await scene.close()

    even(balance, duplicates=0, dead=0, effects=41)


@contextmanager
def no_descriptor_for(pid: int) -> Iterator[None]:
    """That process can open nothing more."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # The limit is on their numbers: with the smallest one, what is closed meanwhile makes no room either.
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("hours", [-2, pytest.param(3, marks=pytest.mark.long)])
async def test_a_jump_of_the_wall_clock_changes_nothing(tmp_path: Path, hours: int) -> None:
    clock = FaultyLibc(tmp_path)
    async with alone(tmp_path, environment=clock.environment, BUS__LEASE_S="3") as scene:
        queues = ("c.work", "c.limited")
        await asyncio.gather(*(scene.start_service(*queues, processes=1) for _ in range(2)))
        delays_s = (0.5, 1.0, 1.5, 2.0, 2.5)
        before_s = time.monotonic()
        delayed = [await scene.publish("c.work", {}, delay_s=delay_s) for delay_s in delays_s]
        far = await scene.publish("c.work", {}, delay_s=3600.0)
        running = await scene.publish("c.work", *tasks(2, s=2.0))
        ids = await scene.publish("c.work", *tasks(5, fails=2))
        ids += await scene.publish("c.limited", *tasks(5, s=0.2))

        clock.set("wall_offset_s", hours * 3600)

        ids += await scene.publish("c.limited", *tasks(5, s=0.2))
        ids += running + [id_ for one in delayed for id_ in one]
        await scene.done(ids, deadline_s=60.0)
        # One that starts now knows nothing of the time before.
        await scene.start_service("c.work", processes=1)
        ids += await scene.publish("c.work", *tasks(5, fails=1), delay_s=0.5)
        await scene.done(ids, deadline_s=60.0)
        assert {service.returncode for service in scene.services} == {None}
        waits_s = [scene.ledger.effects_of(one)[0].at_s - before_s for one in delayed]
        balance = await scene.close()

    for delay_s, wait_s in zip(delays_s, waits_s, strict=True):
        # Not later by the jump, that is: how long they wait for a worker behind the others is no matter here.
        assert delay_s <= wait_s < 60
    assert [scene.ledger.run_counts()[id_] for id_ in running] == [1, 1]
    # It waits in the file, and no depth counts it.
    assert balance.lost == far
    assert left(tmp_path / "bus.db") == 1
    assert (balance.duplicates, balance.stuck, balance.unexplained) == (0, [], [])
