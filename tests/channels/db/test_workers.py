"""Workers: stubs in threads and in processes, over real sockets, against one service."""

# ruff: noqa: PT012 - a block that raises is what is tested

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.channels.db.service import DatabaseService
from penstock.channels.db.stub import DatabaseStub
from penstock.channels.stub import Channel
from penstock.errors import ChannelClosed, DatabaseError, DeadlineExceeded
from tests.channels.conftest import MakeService, Workshop, local, until
from tests.channels.db.test_waiting import ENDLESS

WORKERS = 8


async def stub(workshop: Workshop, service: DatabaseService, name: str = "slot 1") -> DatabaseStub:
    return DatabaseStub(await workshop.channel_to({"db": service}, name))


async def values(service: DatabaseService) -> list[object]:
    return [row["v"] for row in await local(service).fetch_all("SELECT v FROM t ORDER BY id")]


async def test_a_handler_meets_the_same_database_as_an_async_one(
    workshop: Workshop, service: DatabaseService
) -> None:
    db = await stub(workshop, service)

    def handler() -> None:
        assert db.execute("INSERT INTO t (v) VALUES (:v), (2)", {"v": 1}) == 2
        assert db.fetch_one("INSERT INTO t (v) VALUES (?) RETURNING id, v", (b"\0",)) == {"id": 3, "v": b"\0"}
        assert db.fetch_one("SELECT 1 WHERE 0") is None
        assert db.fetch_all("SELECT v FROM t WHERE id < 3") == [{"v": 1}, {"v": 2}]
        states = [db.in_transaction]
        with db.transaction() as tx:
            states.append(db.in_transaction)
            assert tx.execute("UPDATE t SET v = 'x' WHERE id = 3") == 1
            assert db.fetch_one("SELECT v FROM t WHERE id = 3") == {"v": "x"}
            assert tx.fetch_all("SELECT v FROM t WHERE id = 3") == [{"v": "x"}]
            with pytest.raises(DatabaseError, match="does not nest"), db.transaction():
                pass
        assert [*states, db.in_transaction] == [False, True, False]
        with pytest.raises(DatabaseError, match="block is not open"):
            tx.fetch_one("SELECT 1")
        with pytest.raises(ZeroDivisionError), db.transaction() as tx:
            tx.execute("DELETE FROM t")
            raise ZeroDivisionError
        with pytest.raises(DatabaseError, match="UNIQUE") as caught:
            db.execute("INSERT INTO t (v) VALUES (1)")
        assert caught.value.kind == "IntegrityError"
        with pytest.raises(DatabaseError, match="parameter :v is an object"):
            db.execute("INSERT INTO t (v) VALUES (:v)", {"v": object()})

    await asyncio.to_thread(handler)
    assert await values(service) == [1, 2, "x"]


async def test_the_guard_hears_of_everything_that_may_write_before_it_is_sent(
    workshop: Workshop, service: DatabaseService
) -> None:
    db = await stub(workshop, service)
    heard: list[bool] = []

    def guard(may_write: bool) -> None:
        heard.append(may_write)
        if may_write:
            msg = "both ways"
            raise RuntimeError(msg)

    db.guard = guard

    def handler() -> None:
        assert db.fetch_all("SELECT v FROM t") == []
        assert db.fetch_all("WITH w AS (SELECT replace('a', 'b', 'INSERT')) SELECT v FROM t") == []
        for write in (
            lambda: db.execute("INSERT INTO t (v) VALUES (1)"),
            lambda: db.fetch_all("INSERT INTO t (v) VALUES (1) RETURNING id"),
            lambda: db.fetch_one("WITH w AS (SELECT 1) DELETE FROM t RETURNING v"),
            lambda: db.transaction().__enter__(),
        ):
            with pytest.raises(RuntimeError, match="both ways"):
                write()
        assert not db.in_transaction

    await asyncio.to_thread(handler)
    assert heard == [False, False, True, True, True, True]
    assert await values(service) == []


async def test_reset_rolls_back_what_a_handler_left_open_and_costs_nothing_otherwise(
    workshop: Workshop, service: DatabaseService
) -> None:
    db = await stub(workshop, service)

    def left_open() -> None:
        db.transaction().__enter__()
        db.execute("INSERT INTO t (v) VALUES ('left')")
        db.reset()
        assert not db.in_transaction
        db.execute("INSERT INTO t (v) VALUES ('next')")

    await asyncio.to_thread(left_open)
    assert await values(service) == ["next"]
    workshop.servers[0].close()
    await workshop.servers[0].eof
    db.reset()


async def test_reset_withdraws_a_call_that_a_deadline_gave_up(
    workshop: Workshop, service: DatabaseService
) -> None:
    shielded = 0

    class DueAfterTheFrame:
        """As the worker's soft deadline, due while the frame is being written."""

        def __enter__(self) -> None:
            nonlocal shielded
            shielded += 1

        def __exit__(self, *_: object) -> None:
            if shielded == 1:
                msg = "the handler ran longer than its timeout"
                raise DeadlineExceeded(msg)

    sock = await workshop.socket_to({"db": service}, "slot 1")
    channel = Channel(sock, limit_bytes=1 << 20, shield=DueAfterTheFrame)
    db = DatabaseStub(channel)

    async with local(service, "holder").transaction():
        with pytest.raises(DeadlineExceeded):
            await asyncio.to_thread(db.execute, "INSERT INTO t (v) VALUES ('given up')")
        await until(lambda: (counts := service.statistics()) is not None and counts.waiting == 1)
        await asyncio.to_thread(db.reset)
        assert (counts := service.statistics()) is not None
        assert counts.waiting == 0
    await asyncio.to_thread(db.execute, "INSERT INTO t (v) VALUES ('next message')")
    channel.close()
    assert await values(service) == ["next message"]


async def test_a_stopping_service_is_told_to_the_worker(workshop: Workshop, service: DatabaseService) -> None:
    db = await stub(workshop, service)
    await service.aclose()
    with pytest.raises(ChannelClosed, match="the service is stopping"):
        await asyncio.to_thread(db.execute, "INSERT INTO t (v) VALUES (1)")


async def test_eight_workers_write_at_once_and_share_their_commits(
    workshop: Workshop, service: DatabaseService
) -> None:
    each = 150
    finished: list[int] = []
    longest_s: list[float] = []

    def write(worker: int, db: DatabaseStub) -> None:
        worst_s = 0.0
        for number in range(each):
            began_s = time.monotonic()
            if number % 10 == 9:
                with db.transaction() as tx:
                    tx.execute("INSERT INTO t (v) VALUES (?)", (f"{worker} {number}",))
                    assert tx.fetch_one(
                        "SELECT count(*) AS n FROM t WHERE v = ?", (f"{worker} {number}",)
                    ) == {"n": 1}
            else:
                db.execute("INSERT INTO t (v) VALUES (?)", (f"{worker} {number}",))
            worst_s = max(worst_s, time.monotonic() - began_s)
            finished.append(worker)
        longest_s.append(worst_s)

    stubs = [await stub(workshop, service, f"slot {worker}") for worker in range(WORKERS)]
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(WORKERS) as threads:
        await asyncio.gather(*(loop.run_in_executor(threads, write, n, db) for n, db in enumerate(stubs)))

    assert Counter(finished) == dict.fromkeys(range(WORKERS), each)
    assert sorted(map(str, await values(service))) == sorted(
        f"{w} {n}" for w in range(WORKERS) for n in range(each)
    )
    assert (counts := service.statistics()) is not None
    assert counts.commits < counts.statements * 0.8, "they shared commits"
    # Clients that commit for themselves at this pace leave one of them waiting for the whole time.
    assert max(longest_s) < 5


async def test_eight_writers_at_once_are_served_in_order_of_arrival(service: DatabaseService) -> None:
    arrived: list[str] = []

    async def write(worker: int) -> None:
        db = local(service, f"slot {worker}")
        for number in range(60):
            arrived.append(name := f"{worker} {number}")
            if number % 7 == worker % 7:
                async with db.transaction() as tx:
                    await tx.execute("INSERT INTO t (v) VALUES (?)", (name,))
            else:
                await db.execute("INSERT INTO t (v) VALUES (?)", (name,))

    await asyncio.gather(*(write(worker) for worker in range(WORKERS)))
    assert await values(service) == arrived


# Processes, because they can be killed and frozen.

CHILD = """
import socket, sys
from penstock.channels.db.stub import DatabaseStub
from penstock.channels.stub import Channel
db = DatabaseStub(Channel(socket.socket(fileno=int(sys.argv[1])), limit_bytes=1 << 20))
try:
    with db.transaction() as tx:
        tx.execute("INSERT INTO t (v) VALUES ('child')")
        print("inside", flush=True)
        {then}
except Exception as error:
    print(f"{{type(error).__name__}}: {{error}}", flush=True)
"""


async def child(workshop: Workshop, service: DatabaseService, then: str) -> asyncio.subprocess.Process:
    sock = await workshop.socket_to({"db": service}, "slot 7")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD.format(then=then),
        str(sock.fileno()),
        pass_fds=[sock.fileno()],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    )
    sock.close()
    assert process.stdout is not None
    assert await process.stdout.readline() == b"inside\n"
    return process


@pytest.mark.parametrize("doing", ["nothing", "an endless statement"])
async def test_a_killed_workers_transaction_is_rolled_back_at_once(
    workshop: Workshop, service: DatabaseService, doing: str
) -> None:
    then = "sys.stdin.read()" if doing == "nothing" else f'tx.execute("INSERT INTO t (v) {ENDLESS}")'
    process = await child(workshop, service, then)
    if doing != "nothing":
        await until(lambda: "last statement: INSERT INTO t (v) WITH RECURSIVE" in repr(service))
    writing = asyncio.create_task(local(service).execute("INSERT INTO t (v) VALUES ('waits')"))
    await until(lambda: (counts := service.statistics()) is not None and counts.waiting == 1)
    began_s = time.monotonic()
    process.kill()
    assert await writing == 1
    assert time.monotonic() - began_s < 1, "far less than the idle limit"
    assert await values(service) == ["waits"]
    assert await process.wait() == -signal.SIGKILL


async def test_a_frozen_worker_loses_its_transaction_after_the_idle_limit_and_is_told(
    make_service: MakeService, workshop: Workshop
) -> None:
    service = make_service(transaction_idle_s=0.3)
    await local(service).execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE)")
    process = await child(
        workshop, service, "sys.stdin.read(); tx.execute(\"INSERT INTO t (v) VALUES ('late')\")"
    )
    os.kill(process.pid, signal.SIGSTOP)
    assert await local(service).execute("INSERT INTO t (v) VALUES ('next')") == 1
    os.kill(process.pid, signal.SIGCONT)
    told, _ = await process.communicate(b"")
    assert told.startswith(
        b"DatabaseError: the transaction is over: it was rolled back because it stood 0.3 s"
    )
    assert await values(service) == ["next"]


async def test_a_killed_workers_waiting_call_leaves_the_queue(
    workshop: Workshop, service: DatabaseService
) -> None:
    sock = await workshop.socket_to({"db": service}, "slot 7")
    doomed = DatabaseStub(Channel(sock, limit_bytes=1 << 20))
    async with local(service).transaction():
        call = asyncio.create_task(asyncio.to_thread(doomed.execute, "INSERT INTO t (v) VALUES ('gone')"))
        await until(lambda: (counts := service.statistics()) is not None and counts.waiting == 1)
        doomed._channel.close()
        await workshop.servers[0].eof
        assert (counts := service.statistics()) is not None
        assert counts.waiting == 0
        with pytest.raises(ChannelClosed):
            await call
    assert await values(service) == []
