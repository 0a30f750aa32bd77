"""How things end on a real server: workers that are killed, connections that are lost, transactions that the server undoes."""

# ruff: noqa: PT012 - a block that raises is what is tested

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import subprocess
import sys

import pytest

from penstock.channels.db.calls import Failed, Fetch
from penstock.errors import DatabaseBusy, DatabaseError, DatabaseLost
from tests.channels.conftest import Workshop, local, until
from tests.channels.db.series import SERIES
from tests.channels.db.server_case import KINDS, SLEEP, SLOWLY_S, Case, service_with_table
from tests.channels.db.server_cursors import Worker
from tests.servers import Server

#: A worker process: its channel is descriptor 0; it does what its arguments say, and then nothing any more.
WORKER = """
import socket, sys, time
from penstock.channels.db.calls import SERVICE, Ran, Run
from penstock.channels.stub import Channel

channel = Channel(socket.socket(fileno=0), limit_bytes=1 << 24)
how, statement = sys.argv[1:]
number = None
if how == "inside":
    began = channel.call(SERVICE, "run", Run("INSERT INTO t VALUES (1, 'killed')", begins=True), Ran)
    number = began.transaction
print("ready", flush=True)
if statement:
    channel.call(SERVICE, "run", Run(statement, transaction=number), Ran)
    print("has a result", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("what", ["nothing", "a statement", "a result"])
@pytest.mark.parametrize("how", ["alone", "inside"])
async def test_a_killed_process_leaves_nothing_on_the_server(
    case: Case, workshop: Workshop, how: str, what: str
) -> None:
    service = await service_with_table(case, server_connections=2)
    sock = await workshop.socket_to({"db": service}, "slot 1", limit_bytes=1 << 24)
    statement = {
        "nothing": "",
        "a statement": SLEEP[case.kind],
        "a result": SERIES[case.kind].format(1_000_000),
    }[what]
    process = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond
        [sys.executable, "-c", WORKER, how, statement], stdin=sock.fileno(), stdout=subprocess.PIPE
    )
    sock.close()
    assert process.stdout is not None
    with process, process.stdout:
        await asyncio.to_thread(process.stdout.readline)
        if what == "a statement":
            await until(case.sleeping)
        if what == "a result":
            await asyncio.to_thread(process.stdout.readline)
        process.send_signal(signal.SIGKILL)
    await workshop.servers[-1].eof
    await until(lambda: case.at_work() == 0, pause_s=SLOWLY_S)
    await until(lambda: case.connections() <= 2, pause_s=0.01)
    # Nothing of it is held, and the pool is as large as before.
    db = local(service)
    async with db.transaction() as tx, local(service, "another").transaction() as other:
        assert await tx.execute("INSERT INTO t VALUES (1, 'a')") == 1
        assert await other.fetch_one("SELECT 1 AS one") == {"one": 1}
    assert case.rows("SELECT v FROM t") == [("a",)]


async def test_the_victim_of_a_deadlock_hears_of_it(case: Case) -> None:
    service = await service_with_table(case)
    first, second = Worker(service, "first"), Worker(service, "second")
    await first.run("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    here = await first.run("UPDATE t SET v = 'c' WHERE id = 1", begins=True)
    there = await second.run("UPDATE t SET v = 'd' WHERE id = 2", begins=True)
    waiting = asyncio.create_task(
        first.try_to_run("UPDATE t SET v = 'e' WHERE id = 2", transaction=here.transaction)
    )
    await until(lambda: case.waits_for_locks() == 1, pause_s=SLOWLY_S)
    last = await second.try_to_run("UPDATE t SET v = 'f' WHERE id = 1", transaction=there.transaction)
    outcomes = [(first, here, await waiting), (second, there, last)]
    [(victim, ran, failed)] = [outcome for outcome in outcomes if isinstance(outcome[2], Failed)]
    [(survivor, other, _)] = [outcome for outcome in outcomes if outcome[0] is not victim]
    assert isinstance(failed, Failed)
    if case.kind == "mariadb":
        # The server has undone it all: a commit of what comes behind it would be of half a transaction.
        assert (failed.code, failed.transaction, failed.is_lost) == (1213, None, True)
        again = await victim.fail("INSERT INTO t VALUES (9, 'x')", transaction=ran.transaction)
        assert again.is_lost
        assert "rolled it back" in again.text
        assert await victim.call("rollback", ran.transaction) is None
    else:
        assert (failed.name, failed.sqlstate) == ("DeadlockDetected", "40P01")
        assert (failed.transaction, failed.is_lost) == (ran.transaction, False)
        again = await victim.fail("INSERT INTO t VALUES (9, 'x')", transaction=ran.transaction)
        assert again.name == "InFailedSqlTransaction"
        refused = await victim.end(ran)
        assert refused is not None
        assert (refused.name, refused.transaction) == ("InFailedSqlTransaction", None)
    assert await survivor.end(other) is None
    assert len(case.rows("SELECT id FROM t")) == 2


@pytest.mark.parametrize("statement", ["SELECT 1", "commit"])
async def test_a_connection_that_the_server_closed_is_told_and_replaced(case: Case, statement: str) -> None:
    service = await service_with_table(case, server_connections=1)
    worker = Worker(service)
    ran = await worker.run("INSERT INTO t VALUES (1, 'a')", begins=True)
    case.kill_connections()
    await until(lambda: case.connections() == 0)
    if statement == "commit":
        failed = await worker.end(ran)
        assert failed is not None
    else:
        failed = await worker.fail(statement, transaction=ran.transaction)
    assert (failed.is_disconnect, failed.is_lost, failed.transaction) == (True, True, None)
    assert await worker.rows("SELECT count(*) FROM t") == [[0]]


async def test_a_commit_without_an_answer_is_told_as_what_it_is(case: Case) -> None:
    service = await service_with_table(case, server_connections=1)
    db = local(service)
    with pytest.raises(DatabaseLost, match="whether it was kept is not known"):
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1, 'a')")
            case.kill_connections()
            await until(lambda: case.connections() == 0)
    assert await db.fetch_one("SELECT count(*) AS n FROM t") == {"n": 0}


async def test_an_idle_connection_that_the_server_closed_costs_nobody_anything(case: Case) -> None:
    service = await service_with_table(case, server_connections=2)
    first, second = Worker(service, "first"), Worker(service, "second")
    open_ones = [await worker.run("SELECT 1", begins=True) for worker in (first, second)]
    for worker, ran in zip((first, second), open_ones, strict=True):
        await worker.end(ran)
    case.kill_connections()
    await until(lambda: case.connections() == 0)
    assert await first.rows("SELECT 1") == [[1]]
    assert await second.rows("SELECT 2") == [[2]]


async def test_an_idle_transaction_is_told_to_its_cursor(case: Case) -> None:
    worker = Worker(await service_with_table(case, transaction_idle_s=0.05, server_connections=1))
    ran = await worker.run("INSERT INTO t VALUES (1, 'a')", begins=True)
    await until(lambda: case.at_work() == 0, pause_s=SLOWLY_S)
    failed = await worker.fail("SELECT 1", transaction=ran.transaction)
    assert failed.is_lost
    assert "transaction_idle_s" in failed.text
    # Whoever catches that and goes on has the reason in the error that is logged.
    unkept = await worker.end(ran)
    assert unkept is not None
    assert "transaction_idle_s" in unkept.text
    assert await worker.end(ran, commit=False) is None
    assert await worker.rows("SELECT count(*) FROM t") == [[0]]


async def test_a_commit_that_the_server_refuses_is_told_whole(case: Case) -> None:
    if case.kind == "mariadb":
        pytest.skip("MariaDB checks every constraint with its statement")
    worker = Worker(await service_with_table(case))
    case.rows("CREATE TABLE d (id INTEGER, CONSTRAINT just_one UNIQUE (id) DEFERRABLE INITIALLY DEFERRED)")
    ran = await worker.run("INSERT INTO d VALUES (1), (1)", begins=True)
    failed = await worker.end(ran)
    assert failed is not None
    assert (failed.name, failed.sqlstate, failed.transaction) == ("UniqueViolation", "23505", None)
    assert failed.diagnostics["constraint_name"] == "just_one"


async def test_the_end_of_a_message_gives_everything_back(case: Case) -> None:
    service = await service_with_table(case, server_connections=2, wait_s=0.3)
    worker = Worker(service)
    ran = await worker.run("INSERT INTO t VALUES (1, 'a')", begins=True)
    left = await worker.run(SERIES[case.kind].format(1_000_000))
    with pytest.raises(DatabaseBusy):
        await local(service).fetch_one("SELECT 1 AS one")
    await worker.call("reset", None)
    assert await local(service).fetch_one("SELECT count(*) AS n FROM t") == {"n": 0}
    assert isinstance(await worker.call("fetch", Fetch(left.cursor or 0)), Failed)
    assert (await worker.fail("SELECT 1", transaction=ran.transaction)).is_lost
    await until(lambda: case.at_work() == 0, pause_s=SLOWLY_S)


async def test_a_block_whose_error_was_caught_is_not_committed_by_halves(case: Case) -> None:
    service = await service_with_table(case)
    db = local(service)

    async def run() -> None:
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1, 'a')")
            with pytest.raises(DatabaseError):
                await tx.execute("INSERT INTO t VALUES (1, 'b')")

    if case.kind == "mariadb":
        # It undoes the statement that failed, and no other.
        await run()
        assert case.rows("SELECT v FROM t") == [("a",)]
        return
    with pytest.raises(DatabaseError, match="so it was rolled back"):
        await run()
    assert case.rows("SELECT count(*) FROM t") == [(0,)]


async def test_a_frozen_server_keeps_nobody_for_ever(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await case.service(server_connections=2, idle_test_s=0, transaction_idle_s=0.05)
    worker, another = Worker(service), Worker(service, "another")
    await worker.run("SELECT 1", begins=True)
    await another.run("SELECT 1")
    limits = (
        "pool._PING_S",
        "pool._ROLLBACK_S",
        "work._PATIENCE_S",
        "mysql_connection.CONNECT_S",
        "postgresql.CONNECT_S",
    )
    for name in limits:
        monkeypatch.setattr(f"penstock.channels.db.server.{name}", 0.1)
    case.server.freeze()
    try:
        async with asyncio.timeout(5):
            # Whoever was there gives no sign of life, and nobody lets us in.
            failed = await another.fail("SELECT 1")
            assert failed.code_name == "DatabaseBusy"
            assert "cannot be reached: no answer in time" in failed.text
            service.forget(worker.caller)
            await service.aclose()
    finally:
        case.server.thaw()


@pytest.mark.parametrize("kind", KINDS)
async def test_under_load_a_server_that_is_killed_costs_no_commit_and_leaks_no_connection(
    kind: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(f"own_{kind}")
    case = Case(kind, server, server.new_database())
    service = await service_with_table(case, server_connections=3)
    committed: set[int] = set()
    tried = itertools.count(1)
    refused = 0
    is_over = False

    async def work(name: str) -> None:
        nonlocal refused
        db = local(service, name)
        while not is_over:
            number = next(tried)
            try:
                async with db.transaction() as tx:
                    await tx.execute("INSERT INTO t (id) VALUES (:id)", {"id": number})
                    await tx.fetch_one("SELECT v FROM t WHERE id = :id", {"id": number})
                committed.add(number)
            except DatabaseError:
                refused += 1
                await asyncio.sleep(0.01)

    async def after(more: int) -> None:
        so_far = len(committed)
        await until(lambda: len(committed) >= so_far + more, pause_s=0.01)

    workers = [asyncio.create_task(work(f"slot {number}")) for number in range(8)]
    await after(20)
    await asyncio.to_thread(case.kill_connections)
    await after(20)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    await after(20)
    await asyncio.to_thread(server.restart)
    await after(20)
    is_over = True
    await asyncio.gather(*workers)
    there = {number for (number,) in case.rows("SELECT id FROM t")}
    # What was lost amid its commit may be there or not.
    assert committed <= there
    assert len(there - committed) <= 3 * len(workers)
    assert refused > 0
    await until(lambda: case.at_work() == 0, pause_s=SLOWLY_S)
    await until(lambda: case.connections() <= 3, pause_s=0.01)
    await service.aclose()
    await until(lambda: case.connections() == 0)


async def test_callers_that_go_at_any_moment_leave_every_connection_to_the_others(case: Case) -> None:
    service = await service_with_table(case, server_connections=2, wait_s=5)
    chance = random.Random(5)

    async def go(number: int) -> None:
        worker = Worker(service, f"slot {number}")
        statements = [
            worker.try_to_run(f"INSERT INTO t (id) VALUES ({number})", begins=True),
            worker.try_to_run(SERIES[case.kind].format(20_000)),
            worker.try_to_run(
                "INSERT INTO t (id) VALUES (%s)", [[number + 1000], [number + 2000]], is_many=True
            ),
        ]
        running = [asyncio.create_task(statement) for statement in statements]
        await asyncio.sleep(chance.choice((0, 0.001, 0.01)) * chance.random())
        # As when its process dies: what it calls is cancelled, and everybody is told.
        for task in running:
            task.cancel()
        service.forget(worker.caller)
        await asyncio.gather(*running, return_exceptions=True)

    for first in range(0, 60, 6):
        await asyncio.gather(*(go(first + number) for number in range(6)))
    await until(lambda: case.at_work() == 0, pause_s=SLOWLY_S)
    one, another = Worker(service, "one"), Worker(service, "another")
    held = [await worker.run("SELECT count(*) FROM t", begins=True) for worker in (one, another)]
    await until(lambda: case.connections() == 2, pause_s=0.01)
    for worker, ran in zip((one, another), held, strict=True):
        assert await worker.end(ran) is None


async def test_a_statement_that_reads_commit_is_none_to_the_channel(case: Case) -> None:
    db = local(await service_with_table(case, server_connections=1))
    with pytest.raises(DatabaseLost, match="the transaction is gone"):
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1, 'a')")
            case.kill_connections()
            await until(lambda: case.connections() == 0)
            await tx.execute("commit")
