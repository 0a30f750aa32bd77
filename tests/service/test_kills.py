"""kill -9 of workers, of the fork server, of the reactor, under load: nothing is lost, nothing lives on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine, text

from penstock.app.payloads import make_outgoing
from penstock.buses.address import open_bus
from penstock.buses.contract import Bus
from tests.service.processes import ServiceProcess, kill_quietly, parent_of, seconds_until_gone
from tests.service.running import make_database, settings_for

MESSAGES = 3000
SEED = 20261121


async def connected(bus_url: str, folder: Path) -> Bus:
    bus = open_bus(settings_for(bus_url, folder).bus)
    await bus.connect()
    return bus


async def publish(bus: Bus, queue: str, payloads: list[object], prefix: str = "m") -> None:
    messages = [make_outgoing(queue, payload, id=f"{prefix}{n}") for n, payload in enumerate(payloads)]
    assert await bus.publish(messages, timeout_s=30) == [None] * len(messages)


def effects(folder: Path) -> Counter[str]:
    engine = create_engine(f"sqlite:///{folder / 'app.db'}")
    with engine.connect() as connection:
        found = Counter(row[0] for row in connection.execute(text("SELECT message_id FROM effects")))
    engine.dispose()
    return found


@pytest.mark.parametrize("how", ["sleeps", "c code that holds the interpreter lock"])
async def test_no_worker_outlives_its_reactor(bus_url: str, tmp_path: Path, how: str) -> None:
    make_database(tmp_path)
    queue, payload = ("t.sleeps", {"s": 60}) if how == "sleeps" else ("t.regex", {"n": 64})
    service = await ServiceProcess.start(bus_url, tmp_path, "--only", queue)
    await service.wait_line("consuming")
    bus = await connected(bus_url, tmp_path)
    await publish(bus, queue, [payload, payload])
    await bus.aclose()
    await service.wait_line("begun", count=2)
    workers = service.worker_pids

    await service.kill()

    assert seconds_until_gone(workers) < 0.2


async def test_a_group_wide_sigterm_drains_and_leaves_nothing(bus_url: str, tmp_path: Path) -> None:
    make_database(tmp_path)
    service = await ServiceProcess.start(bus_url, tmp_path, "--only", "t.sleeps")
    await service.wait_line("consuming")
    bus = await connected(bus_url, tmp_path)
    await publish(bus, "t.sleeps", [{"s": 0.5}, {"s": 0.5}])
    await service.wait_line("begun", count=2)
    workers = service.worker_pids
    family = [*workers, *{parent_of(pid) for pid in workers}]

    os.killpg(service.pid, signal.SIGTERM)
    code = await service.wait()

    assert code == 0
    assert seconds_until_gone(family, 1.0) < 1.0
    assert effects(tmp_path) == Counter({"m0": 1, "m1": 1})
    assert await bus.depth("t.sleeps") == 0
    await bus.aclose()


async def test_nothing_is_lost_whatever_is_killed(bus_url: str, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    make_database(tmp_path)
    bus = await connected(bus_url, tmp_path)
    flags = ("--only", "t.only", "--only", "t.sleeps")
    service = await ServiceProcess.start(bus_url, tmp_path, *flags)
    await service.wait_line("consuming")
    await publish(bus, "t.sleeps", [{"s": 1.0}], prefix="slow")

    killed = Counter[str]()
    for wave in range(10):
        count = MESSAGES // 10
        await publish(bus, "t.only", [{"id": n} for n in range(count)], prefix=f"w{wave}-")
        victim = ("worker", "fork server", "reactor", "group")[wave % 4]
        await service.wait_line("a worker is ready", count=2)
        workers, boots = service.worker_pids, service.boots
        if victim == "worker":
            killed[victim] += kill_quietly(dice.choice(workers))
            await service.wait_line("a worker is ready", count=boots + 1)
        elif victim == "fork server":
            killed[victim] += kill_quietly(parent_of(workers[0]))
            await service.wait_line("a worker is ready", count=boots + 2)
        else:
            if victim == "group":
                os.killpg(service.pid, signal.SIGTERM)
                assert await service.wait() == 0
            else:
                await service.kill()
            killed[victim] += 1
            assert seconds_until_gone(workers) < 1.0
            service = await ServiceProcess.start(bus_url, tmp_path, *flags)
            await service.wait_line("consuming")
    expected = {f"w{wave}-{n}" for wave in range(10) for n in range(MESSAGES // 10)} | {"slow0"}
    await until_settled(bus, tmp_path, expected)

    workers = service.worker_pids
    assert await service.stop() == 0

    found = effects(tmp_path)
    assert killed.total() >= 9
    assert set(found) == expected
    for queue in ("t.only", "t.sleeps"):
        assert await bus.depth(queue) == 0
        async with bus.hold(f"{queue}.dead", limit=10) as letters:
            assert [letter.headers async for letter in letters] == []
    await bus.aclose()
    assert seconds_until_gone(workers) < 1.0
    # A kill between commit and ack repeats at most what was out: never all, and never the bystanders of a worker's death.
    assert sum(found.values()) - len(found) < MESSAGES / 4


async def test_a_fork_server_that_dies_while_slots_boot_costs_only_time(bus_url: str, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    make_database(tmp_path)
    bus = await connected(bus_url, tmp_path)
    service = await ServiceProcess.start(bus_url, tmp_path, "--only", "t.only")
    await service.wait_line("a worker is ready", count=2)

    # Each new one is killed at another moment of its slots' boot, which takes some 20 ms.
    victims: set[int] = set()
    for _ in range(12):
        victim = await fork_server_of(service.pid, but=victims)
        await asyncio.sleep(dice.random() * 0.03)
        kill_quietly(victim)
        victims.add(victim)
    boots = service.boots
    await service.wait_line("a worker is ready", count=boots + 1)
    await publish(bus, "t.only", [{"id": n} for n in range(10)])
    await until_settled(bus, tmp_path, {f"m{n}" for n in range(10)})

    assert await service.stop() == 0
    assert [line for line in service.lines if line.get("level") == "critical"] == []
    await bus.aclose()


async def fork_server_of(reactor: int, *, but: set[int]) -> int:
    """The reactor's fork server, as soon as it has one that is none of these."""
    async with asyncio.timeout(60):
        while True:
            for child in psutil.Process(reactor).children():
                with suppress(psutil.NoSuchProcess):
                    if child.pid not in but and any("forkserver" in word for word in child.cmdline()):
                        return child.pid
            await asyncio.sleep(0.002)


async def until_settled(bus: Bus, folder: Path, expected: set[str]) -> None:
    """Another process settles, so this is asked again and again; bounded by a deadline."""
    async with asyncio.timeout(120):
        while set(effects(folder)) != expected:  # noqa: ASYNC110 - another process's rows send no event
            await asyncio.sleep(0.1)


async def test_what_ends_the_whole_service_each_time_is_parked(bus_url: str, tmp_path: Path) -> None:
    make_database(tmp_path)
    bus = await connected(bus_url, tmp_path)
    services = [await ServiceProcess.start(bus_url, tmp_path, "--only", "t.ends", processes=0)]
    await services[0].wait_line("consuming")
    await publish(bus, "t.ends", [{"ends": n == 5} for n in range(10)])

    def is_parked() -> bool:
        lines = [line for service in services for line in service.lines]
        return any(line["event"] == "message dead lettered" for line in lines)

    while True:
        ended = asyncio.create_task(services[-1].wait())
        while not (ended.done() or is_parked()):  # noqa: ASYNC110 - see below
            # Its end and its log are two things of another process, and send no event together.
            await asyncio.sleep(0.02)
        if is_parked():
            break
        assert await ended == 7
        services.append(await ServiceProcess.start(bus_url, tmp_path, "--only", "t.ends", processes=0))
    code = await services[-1].stop()
    await ended

    assert code == 0
    # Three deaths that nobody can blame on one message, and three while it ran alone.
    assert len(services) == 7
    assert await bus.depth("t.ends.dead") == 1
    assert set(effects(tmp_path)) == {f"m{n}" for n in range(10)} - {"m5"}
    await bus.aclose()
