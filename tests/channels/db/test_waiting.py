"""Waiting: bounded, in turn, and in words that name who is in the way."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.channels.db.service import DatabaseService
from penstock.channels.db.sqlite import gathering
from penstock.channels.service import Caller
from penstock.errors import ChannelError, DatabaseBusy, DatabaseError
from tests.channels.conftest import MakeService, local, local_of, until

#: Counts for many seconds unless it is interrupted.
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000000) SELECT count(*) FROM n"


def reads(service: DatabaseService) -> str:
    return repr(service._sqlite._readers)


async def with_table(service: DatabaseService) -> DatabaseService:
    await local(service).execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    return service


@contextmanager
def foreign_writer(database: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, in the middle of a transaction that writes; it commits when its input is closed."""
    program = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('BEGIN IMMEDIATE')\n"
        "print('holds it', flush=True)\n"
        "sys.stdin.read()\n"
        "c.execute('COMMIT')\n"
        "c.close()\n"
    )
    command = [sys.executable, "-c", program, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"holds it\n"
        try:
            yield process
        finally:
            process.stdin.close()
            assert process.wait(10) == 0


async def test_who_waits_too_long_for_the_writer_is_told_who_holds_it(make_service: MakeService) -> None:
    service = await with_table(make_service(wait_s=0.2))
    async with local(service, "slot 3 (pid 77)").transaction() as tx:
        await tx.execute("INSERT INTO t (v) VALUES ('held')")
        words = (
            r"waited 0\.2 s \(database\.wait_s\) to write to app\.db, which is held by slot 3 \(pid 77\), "
            r"in a transaction open for 0\.\d s \(last statement: INSERT INTO t \(v\) VALUES \('held'\)\); "
            "nothing of the statement was run"
        )
        with pytest.raises(DatabaseBusy, match=words):
            await local(service).execute("INSERT INTO t (v) VALUES ('waits')")
        with pytest.raises(DatabaseBusy, match="held by slot 3"):
            async with local(service).transaction():
                pass
        assert await local(service).fetch_all("SELECT * FROM t") == [], "reading waits for nobody"
    assert await local(service).fetch_all("SELECT v FROM t") == [{"v": "held"}]


@pytest.mark.parametrize("later", [0, 1])
async def test_whoever_was_answered_shares_the_next_commit_with_those_who_came_meanwhile(
    make_service: MakeService, later: int
) -> None:
    service = await with_table(make_service())

    async def write(rows: int, turns: int = 0) -> None:
        database = local(service)
        for _ in range(rows):
            await database.execute("INSERT INTO t (v) VALUES (1)")
            for _ in range(turns):
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as writers:
        writers.create_task(write(300))
        # One of its rows is being written when the others come.
        await until(lambda: "running" in repr(service))
        for number in range(1, 8):
            writers.create_task(write(50, turns=number * later))
    statistics = service.statistics()
    assert statistics is not None
    assert statistics.group_commits[8] >= 25, statistics.group_commits


async def test_a_transaction_waits_for_no_group_to_gather(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "GATHER_S", 60)
    database = local(await with_table(make_service()))
    async with asyncio.timeout(30):
        await asyncio.gather(*(database.execute("INSERT INTO t (v) VALUES (1)") for _ in range(8)))
        async with database.transaction() as tx:
            await tx.execute("INSERT INTO t (v) VALUES (1)")


async def test_who_waits_for_a_long_statement_is_told_whose_it_is(make_service: MakeService) -> None:
    service = await with_table(make_service(wait_s=0.3))
    endless = f"INSERT INTO t (v) {ENDLESS}"
    running = asyncio.create_task(local(service, "slot 5").execute(endless))
    await until(lambda: "slot 5, running" in repr(service))
    with pytest.raises(
        DatabaseBusy, match=r"held by slot 5, running for 0\.\d s: INSERT INTO t \(v\) WITH RECURSIVE n"
    ):
        await local(service).execute("INSERT INTO t (v) VALUES (1)")
    # Stopping ends it after a grace of 5 s; here there is none to wait for.
    assert service._sqlite._writer is not None
    service._sqlite._writer._thread.interrupt()
    with pytest.raises(DatabaseError, match="was interrupted; nothing of it was kept"):
        await running
    assert await local(service).execute("INSERT INTO t (v) VALUES (1)") == 1


async def test_who_waits_too_long_for_a_reader_is_told_who_reads(make_service: MakeService) -> None:
    service = await with_table(make_service(wait_s=0.2, readers=1))
    reading = asyncio.create_task(local(service, "slot 5").fetch_one(ENDLESS))
    await until(lambda: "0 of 1 idle" in reads(service))
    words = r"to read from app\.db: all 1 readers \(database\.readers\) are busy \(slot 5: WITH RECURSIVE"
    with pytest.raises(DatabaseBusy, match=words):
        await local(service).fetch_all("SELECT 1")
    assert await local(service).execute("INSERT INTO t (v) VALUES (1)") == 1, (
        "writing waits for nobody who reads"
    )
    reading.cancel()
    began_s = time.monotonic()
    assert await local(service).fetch_one("SELECT count(*) AS n FROM t") == {"n": 1}
    assert time.monotonic() - began_s < 1, "a reader whose caller has gone is interrupted"
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_forgotten_caller_reads_no_further_and_waits_no_longer(make_service: MakeService) -> None:
    service = await with_table(make_service(readers=1))
    caller = Caller("slot 5")
    database = local_of(service, caller)
    reading = asyncio.create_task(database.fetch_one(ENDLESS))
    await until(lambda: "0 of 1 idle" in reads(service))
    waiting = asyncio.create_task(database.fetch_one("SELECT 1"))
    other = asyncio.create_task(local(service).fetch_one("SELECT 2 AS v"))
    await until(lambda: "2 waiting" in reads(service))
    service.forget(caller)
    async with asyncio.timeout(2):
        with pytest.raises(DatabaseError, match="was interrupted"):
            await reading
        with pytest.raises(ChannelError, match="its message is over"):
            await waiting
        assert await other == {"v": 2}
        assert await database.fetch_one("SELECT 3 AS v") == {"v": 3}


async def test_readers_are_lent_in_order_of_arrival(make_service: MakeService) -> None:
    service = make_service(readers=1)
    order: list[int] = []

    async def read(number: int) -> None:
        await local(service).fetch_one("SELECT ?", (number,))
        order.append(number)

    await read(-1)
    await asyncio.gather(*(read(number) for number in range(50)))
    assert order == list(range(-1, 50))


async def test_a_reader_handed_over_in_the_moment_of_the_cancel_is_not_lost(
    make_service: MakeService,
) -> None:
    service = make_service(readers=1)
    await local(service).fetch_one("SELECT 0")
    for _ in range(20):
        first = asyncio.create_task(local(service).fetch_one("SELECT 1"))
        second = asyncio.create_task(local(service).fetch_one("SELECT 2"))
        await until(first.done, pause_s=0)
        second.cancel()
        await asyncio.wait({second})
    assert await local(service).fetch_one("SELECT 3 AS v") == {"v": 3}
    assert "[1 of 1 idle, 0 waiting]" in reads(service)


async def test_stopping_ends_a_read_that_would_take_for_ever(make_service: MakeService) -> None:
    service = await with_table(make_service())
    reading = asyncio.create_task(local(service).fetch_one(ENDLESS))
    await until(lambda: "1 of 2 idle" in reads(service))
    async with asyncio.timeout(5):
        await service.aclose()
    with pytest.raises(DatabaseError, match="was interrupted"):
        await reading


async def test_a_foreign_writer_is_waited_for_without_blocking_the_loop(
    make_service: MakeService, database: Path
) -> None:
    service = await with_table(make_service())
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        last_s = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            longest_s, last_s = max(longest_s, time.monotonic() - last_s), time.monotonic()

    watching = asyncio.create_task(watch())
    with foreign_writer(database) as process:
        writing = asyncio.create_task(local(service).execute("INSERT INTO t (v) VALUES ('waits')"))
        await until(lambda: "process" in repr(service))
        assert await local(service).fetch_one("SELECT count(*) AS n FROM t") == {"n": 0}
        await asyncio.sleep(0.5)  # time is what is tested
        assert not writing.done()
        assert process.stdin is not None
        process.stdin.close()
        assert await writing == 1
    watching.cancel()
    assert longest_s < 0.25


async def test_a_foreign_writer_who_stays_is_told_after_the_busy_timeout(
    make_service: MakeService, database: Path
) -> None:
    service = await with_table(make_service(busy_timeout_s=0.4))
    with foreign_writer(database) as process:
        began_s = time.monotonic()
        holder = rf"process {process.pid} \(python.*\)" if sys.platform == "linux" else "another process"
        words = (
            r"waited 0\.\d s \(database\.busy_timeout_s.* to write to app\.db: "
            rf"{holder} holds it .*ctx\.connection.*nothing .* was run"
        )
        with pytest.raises(DatabaseBusy, match=words):
            await local(service).execute("INSERT INTO t (v) VALUES (1)")
        assert 0.3 < time.monotonic() - began_s < 2
        with pytest.raises(DatabaseBusy, match=r"process .*holds it"):
            async with local(service).transaction():
                pass
    assert await local(service).execute("INSERT INTO t (v) VALUES (2)") == 1
    async with local(service).transaction() as tx:
        await tx.execute("INSERT INTO t (v) VALUES (3)")


async def test_a_wait_shorter_than_the_busy_timeout_counts_with_a_foreign_writer_too(
    make_service: MakeService, database: Path
) -> None:
    service = await with_table(make_service(wait_s=0.3))
    with foreign_writer(database):
        began_s = time.monotonic()
        with pytest.raises(DatabaseBusy, match=r"process .*holds it"):
            await local(service).execute("INSERT INTO t (v) VALUES (1)")
        assert 0.2 < time.monotonic() - began_s < 2


async def test_the_first_use_waits_for_a_foreign_writer_too_and_then_tells(
    make_service: MakeService, database: Path
) -> None:
    with foreign_writer(database):
        with pytest.raises(DatabaseBusy, match=r"process .*holds it"):
            await local(make_service(busy_timeout_s=0.3)).execute("CREATE TABLE t (v)")
        patient = asyncio.create_task(local(make_service()).execute("CREATE TABLE t (v)"))
        await asyncio.wait({patient}, timeout=0.3)
        assert not patient.done()
    assert await patient == 0


async def test_stopping_does_not_wait_for_a_foreign_writer(make_service: MakeService, database: Path) -> None:
    service = await with_table(make_service())
    with foreign_writer(database):
        writing = asyncio.create_task(local(service).execute("INSERT INTO t (v) VALUES (1)"))
        await until(lambda: "process" in repr(service))
        async with asyncio.timeout(3):
            await service.aclose()
        with pytest.raises(Exception, match="the service is stopping"):
            await writing
