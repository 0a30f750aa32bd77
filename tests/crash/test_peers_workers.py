"""As test_peers, of what other task systems fail without any broker: their worker processes, databases and stops."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.contract.received import eventually
from tests.crash.alone import alone
from tests.crash.scene import READY, SPARE, even, resident_mib, tasks
from tests.service.processes import parent_of

RETRIED = "message is retried"


async def test_celery_1564_3238_dramatiq_367_each_worker_opens_one_connection_of_its_own_and_keeps_it(
    tmp_path: Path,
) -> None:
    async with alone(tmp_path) as scene:
        service = await scene.start_service(processes=3)
        await scene.done(await scene.publish("c.work", *tasks(100)))
        server = parent_of(service.worker_pids[0])
        opened = [files_of(pid, scene.ledger.database) for pid in service.worker_pids]

        await scene.done(await scene.publish("c.work", *tasks(100)))

        assert [files_of(pid, scene.ledger.database) for pid in service.worker_pids] == opened
        assert all(opened)
        # Nobody has one that a child could be forked with.
        assert files_of(server, scene.ledger.database) == set()
        assert files_of(service.pid, scene.ledger.database) == set()
        balance = await scene.close()

    even(balance, dead=0, duplicates=0, effects=200)


async def test_celery_2919_a_database_that_has_gone_away_ends_no_process(tmp_path: Path) -> None:
    async with alone(tmp_path) as scene:
        service = await scene.start_service()
        await scene.done(await scene.publish("c.work", *tasks(10)))
        workers = service.worker_pids
        aside = tmp_path / "aside.db"
        await asyncio.to_thread(scene.ledger.database.rename, aside)
        # A file is looked for once a second.
        await asyncio.sleep(1.1)
        ids = await scene.publish("c.work", *tasks(10))
        await service.wait_line("the worker's database connection cannot be used; opening a new one", count=2)

        await asyncio.to_thread(aside.rename, scene.ledger.database)

        await scene.done(ids)
        assert service.worker_pids == workers
        attempts = {effect.attempt for effect in scene.ledger.effects()}
        balance = await scene.close()

    assert attempts == {1}
    even(balance, dead=0, duplicates=0, effects=20)


@pytest.mark.long
async def test_celery_10271_stop_requests_that_rain_down_cut_no_commit_in_two(tmp_path: Path) -> None:
    async with alone(tmp_path, SERVICE__DRAIN_SECONDS="5") as scene:
        service = await scene.start_service()
        ids = await scene.publish("c.work", *tasks(50), *tasks(2, held_s=0.3), *tasks(50))
        await scene.done(ids[:2])
        while service.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(service.pid, signal.SIGTERM)
                os.killpg(service.pid, signal.SIGINT)
            await asyncio.sleep(0.05)
        assert await service.wait() == 0, service.lines[-20:]
        await scene.start_service()
        await scene.done(ids)
        balance = await scene.close()

    # One that was killed after its commit is done again, and marked.
    even(balance, dead=0, effects=len(ids) + balance.duplicates)


@pytest.mark.long
async def test_procrastinate_1408_arq_343_what_a_killed_service_was_running_is_found_by_the_others(
    tmp_path: Path,
) -> None:
    async with alone(tmp_path, BUS__LEASE_S="600") as scene:
        await asyncio.gather(*(scene.start_service(processes=1) for _ in range(2)))
        (id_,) = await scene.publish("c.work", {"s": 1.0})

        async def begun() -> bool:
            return scene.ledger.run_counts()[id_] == 1

        await eventually(begun)
        worker = int(scene.ledger.runs.read_text().split()[3])
        (doomed,) = [service for service in scene.services if worker in service.worker_pids]

        await doomed.kill()

        await scene.done([id_], deadline_s=3.0 * SPARE)
        balance = await scene.close()

    assert scene.ledger.run_counts()[id_] == 2
    even(balance, dead=0, duplicates=0)


@pytest.mark.long
async def test_procrastinate_1185_arq_395_taskiq_a_plain_function_is_ended_by_its_deadline(
    tmp_path: Path,
) -> None:
    async with alone(tmp_path) as scene:
        service = await scene.start_service("c.limited")
        # In C code that looks for no signal; then asleep.
        ids = await scene.publish("c.limited", {"fails": 1, "how": "c"})
        await scene.publish("c.limited", {"s": 60.0})
        await service.wait_line("message dead lettered")
        await scene.done(ids)
        balance = await scene.close()

    assert [effect.attempt for effect in scene.ledger.effects_of(ids)] == [2]
    even(balance, dead=1, duplicates=0)


async def test_procrastinate_1375_what_fails_says_why_in_the_log_and_in_its_dead_letter(
    tmp_path: Path,
) -> None:
    async with alone(tmp_path) as scene:
        service = await scene.start_service()
        await scene.publish("c.work", {"fails": 99})
        retried = await service.wait_line(RETRIED)
        dead = await service.wait_line("message dead lettered")

        async def is_there() -> bool:
            return await scene.bus.depth("c.work.dead") == 1

        await eventually(is_there)
        async with scene.bus.hold("c.work.dead", limit=1) as held:
            (headers,) = [delivery.headers async for delivery in held]
        balance = await scene.close()

    assert "as it was told" in str(retried)
    assert "as it was told" in str(dead)
    assert "as it was told" in str(headers)
    even(balance, dead=1)


@pytest.mark.long
async def test_dramatiq_882_workers_are_recycled_without_losing_a_message(tmp_path: Path) -> None:
    async with alone(tmp_path, WORKERS__RECYCLE_MESSAGES="50") as scene:
        service = await scene.start_service()
        ids = await scene.publish("c.work", *tasks(400))
        await scene.done(ids)
        await service.wait_line(READY, count=4)
        balance = await scene.close()

    # The last ones may have come too late for any work.
    assert len({effect.pid for effect in scene.ledger.effects()}) > 2
    even(balance, dead=0, duplicates=0, effects=400)


@pytest.mark.long
async def test_huey_445_django_q_617_many_workers_write_one_sqlite_file_and_none_is_told_that_it_is_locked(
    tmp_path: Path,
) -> None:
    async with alone(tmp_path) as scene:
        service = await scene.start_service("c.work", "c.loop", processes=4)
        ids = await scene.publish("c.work", *tasks(400)) + await scene.publish("c.loop", *tasks(100))
        await scene.done(ids)
        balance = await scene.close()

    assert not [line for line in service.lines if line["event"] == RETRIED]
    even(balance, dead=0, duplicates=0, effects=500)


@pytest.mark.long
async def test_celery_4843_the_reactor_grows_no_fatter_with_the_messages_it_has_seen(tmp_path: Path) -> None:
    async with alone(tmp_path) as scene:
        service = await scene.start_service("c.empty", "c.work")
        grown_mib: list[float] = []
        for _ in range(4):
            for _ in range(10):
                await scene.publish("c.empty", *tasks(500))
            await scene.done(await scene.publish("c.work", {}))
            while await scene.bus.depth("c.empty"):  # noqa: ASYNC110 - nobody tells us
                await asyncio.sleep(0.05)
            grown_mib.append(resident_mib(service.pid))

    assert grown_mib[-1] - grown_mib[0] < 4.0, grown_mib


def files_of(pid: int, database: Path) -> set[str]:
    """Descriptors of that process that are of the database: the file, its log, its shared memory."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if str(entry.readlink()).startswith(str(database)):
                found.add(entry.name)
    return found
