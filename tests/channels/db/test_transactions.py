"""Interactive transactions: together or not at all, bounded in time, and never somebody else's."""

# ruff: noqa: PT012 - a block that raises is what is tested

from __future__ import annotations

import asyncio
import time

import pytest

from penstock.channels.db.service import DatabaseService
from penstock.channels.db.stub import DatabaseStub
from penstock.channels.service import Caller
from penstock.errors import DatabaseError
from tests.channels.conftest import MakeService, Workshop, local, local_of, until


async def count(service: DatabaseService) -> int:
    row = await local(service).fetch_one("SELECT count(*) AS n FROM t")
    assert row is not None
    return int(row["n"])


async def test_a_block_commits_together_and_reads_its_own_rows(service: DatabaseService) -> None:
    db = local(service)
    async with db.transaction() as tx:
        assert await tx.execute("INSERT INTO t (v) VALUES (1)") == 1
        assert await db.execute("INSERT INTO t (v) VALUES (2)") == 1
        assert await tx.fetch_all("SELECT v FROM t") == [{"v": 1}, {"v": 2}]
        assert await db.fetch_one("SELECT count(*) AS n FROM t") == {"n": 2}
        assert await tx.fetch_one("UPDATE t SET v = v + 10 RETURNING v") == {"v": 11}
        assert await count(service) == 0, "nobody else sees them yet"
    assert await count(service) == 2


async def test_a_block_that_raises_keeps_nothing(service: DatabaseService) -> None:
    with pytest.raises(KeyError, match="the handler's own"):
        async with local(service).transaction() as tx:
            await tx.execute("INSERT INTO t (v) VALUES (1)")
            raise KeyError("the handler's own")
    assert await count(service) == 0


async def test_a_failed_statement_costs_itself_and_the_block_goes_on(service: DatabaseService) -> None:
    async with local(service).transaction() as tx:
        await tx.execute("INSERT INTO t (v) VALUES (1)")
        with pytest.raises(DatabaseError, match="UNIQUE"):
            await tx.execute("INSERT OR FAIL INTO t (v) VALUES (2), (1), (3)")
        await tx.execute("INSERT INTO t (v) VALUES (4)")
    assert await local(service).fetch_all("SELECT v FROM t") == [{"v": 1}, {"v": 4}]


async def test_a_statement_that_ends_the_transaction_is_told_to_whatever_follows(
    service: DatabaseService,
) -> None:
    db = local(service)
    await db.execute("INSERT INTO t (v) VALUES (1)")
    words = r"the transaction is over: the database rolled it back with INSERT OR ROLLBACK .*nothing of it was kept"
    with pytest.raises(DatabaseError, match=words):
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t (v) VALUES (2)")
            with pytest.raises(DatabaseError, match="UNIQUE"):
                await tx.execute("INSERT OR ROLLBACK INTO t (v) VALUES (1)")
            with pytest.raises(DatabaseError, match=words):
                await tx.execute("INSERT INTO t (v) VALUES (3)")
    assert await local(service).fetch_all("SELECT v FROM t") == [{"v": 1}]


async def test_a_block_that_cannot_be_committed_keeps_nothing_and_says_so(service: DatabaseService) -> None:
    db = local(service)
    await db.execute("CREATE TABLE c (t REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(DatabaseError, match="FOREIGN KEY constraint failed") as caught:
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t (v) VALUES (1)")
            await tx.execute("INSERT INTO c VALUES (99)")
    assert caught.value.kind == "IntegrityError"
    assert await count(service) == 0
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO c VALUES (1)")
        await tx.execute("INSERT INTO t (id) VALUES (1)")
    assert await count(service) == 1


async def test_blocks_do_not_nest_and_a_handle_means_nothing_outside(service: DatabaseService) -> None:
    db = local(service)
    async with db.transaction() as tx:
        with pytest.raises(DatabaseError, match="does not nest"):
            async with db.transaction():
                pass
        await tx.execute("INSERT INTO t (v) VALUES (1)")
    with pytest.raises(DatabaseError, match="block is not open"):
        await tx.execute("INSERT INTO t (v) VALUES (2)")
    with pytest.raises(DatabaseError, match="block is not open"):
        await db.transaction().fetch_all("SELECT 1")
    assert await count(service) == 1


async def test_a_task_beside_the_block_is_not_inside_it_and_one_begun_there_is(
    service: DatabaseService,
) -> None:
    db = local(service)
    inside, may_end = asyncio.Event(), asyncio.Event()

    async def block() -> None:
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t (v) VALUES ('block')")
            async with asyncio.TaskGroup() as group:
                group.create_task(db.execute("INSERT INTO t (v) VALUES ('child')"))
            inside.set()
            await may_end.wait()
            raise KeyError("undone")

    running = asyncio.create_task(block())
    await inside.wait()
    beside = asyncio.create_task(db.execute("INSERT INTO t (v) VALUES ('beside')"))
    await until(lambda: (counts := service.statistics()) is not None and counts.waiting == 1)
    may_end.set()
    with pytest.raises(KeyError):
        await running
    assert await beside == 1
    assert await local(service).fetch_all("SELECT v FROM t") == [{"v": "beside"}]


async def test_writers_wait_for_the_block_and_come_in_order_of_arrival(service: DatabaseService) -> None:
    order: list[str] = []

    async def write(name: str) -> None:
        await local(service, name).execute("INSERT INTO t (v) VALUES (?)", (name,))
        order.append(name)

    async def write_in_block(name: str) -> None:
        async with local(service, name).transaction() as tx:
            await tx.execute("INSERT INTO t (v) VALUES (?)", (name,))
        order.append(name)

    def waiting(number: int) -> bool:
        counts = service.statistics()
        return counts is not None and counts.waiting == number

    async with local(service).transaction() as tx:
        await tx.execute("INSERT INTO t (v) VALUES ('first')")
        tasks: list[asyncio.Task[None]] = []
        for number, write_one in enumerate(
            [write, write, write_in_block, write, write_in_block, write_in_block, write]
        ):
            tasks.append(asyncio.create_task(write_one(f"{number}")))
            await until(lambda number=number: waiting(number + 1))  # type: ignore[misc]
    await asyncio.gather(*tasks)
    rows = await local(service).fetch_all("SELECT v FROM t ORDER BY id")
    assert [row["v"] for row in rows] == ["first", "0", "1", "2", "3", "4", "5", "6"]


async def test_an_idle_block_is_rolled_back_and_its_holder_told(make_service: MakeService) -> None:
    service = make_service(transaction_idle_s=0.2)
    await local(service).execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE)")
    words = r"stood 0\.2 s without a statement \(database\.transaction_idle_s\).*nothing of it was kept"
    with pytest.raises(DatabaseError, match=words):
        async with local(service).transaction() as tx:
            await tx.execute("INSERT INTO t (v) VALUES ('idle')")
            # Somebody else gets the writer without the holder doing anything.
            began_s = time.monotonic()
            assert await local(service).execute("INSERT INTO t (v) VALUES ('other')") == 1
            assert 0.1 < time.monotonic() - began_s < 2
            with pytest.raises(DatabaseError, match=words):
                await tx.fetch_all("SELECT * FROM t")
    assert await local(service).fetch_all("SELECT v FROM t") == [{"v": "other"}]
    async with local(service).transaction() as tx:
        for number in range(5):
            await tx.execute("INSERT INTO t (v) VALUES (?)", (number,))
            await asyncio.sleep(
                0.1
            )  # time is what is tested: together longer than the limit, never idle for it
    assert await count(service) == 6


async def test_an_idle_block_that_raises_keeps_its_own_exception(make_service: MakeService) -> None:
    service = make_service(transaction_idle_s=0.05)
    await local(service).execute("CREATE TABLE t (v)")
    with pytest.raises(KeyError, match="the handler's own"):
        async with local(service).transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
            await local(service).execute("INSERT INTO t VALUES (2)")
            raise KeyError("the handler's own")


async def test_a_forgotten_callers_block_is_rolled_back_at_once(service: DatabaseService) -> None:
    caller = Caller("slot 1")
    gone = local_of(service, caller)
    block = gone.transaction()
    await block.__aenter__()
    await gone.execute("INSERT INTO t (v) VALUES ('gone')")
    began_s = time.monotonic()
    service.forget(caller)
    assert await local(service).execute("INSERT INTO t (v) VALUES ('next')") == 1
    assert time.monotonic() - began_s < 1
    with pytest.raises(DatabaseError, match="the transaction is over"):
        await gone.execute("INSERT INTO t (v) VALUES ('late')")
    with pytest.raises(DatabaseError, match="the transaction is over"):
        await block.__aexit__(None, None, None)
    assert await local(service).fetch_all("SELECT v FROM t") == [{"v": "next"}]
    assert "0 transactions" in repr(service)


async def test_a_caller_that_goes_while_its_block_begins_leaves_nothing_open(
    service: DatabaseService,
) -> None:
    async with local(service).transaction():
        begins = asyncio.create_task(local(service, "gone").transaction().__aenter__())
        await until(lambda: (counts := service.statistics()) is not None and counts.waiting == 1)
        begins.cancel()
    with pytest.raises(asyncio.CancelledError):
        await begins
    assert await local(service).execute("INSERT INTO t (v) VALUES (1)") == 1


async def test_a_block_granted_in_the_moment_of_the_cancel_is_given_back(service: DatabaseService) -> None:
    hit = 0
    for number in range(10):
        begins = asyncio.create_task(local(service, "gone").transaction().__aenter__())
        await until(
            lambda: service._sqlite._writer is not None and service._sqlite._writer._transaction is not None,
            pause_s=0,
        )
        # Granted, and the one who waited for it has not run since.
        hit += not begins.done()
        begins.cancel()
        await asyncio.wait({begins})
        began_s = time.monotonic()
        if not begins.cancelled():
            await begins.result().__aexit__(None, None, None)
        await local(service).execute("INSERT INTO t (v) VALUES (?)", (number,))
        assert time.monotonic() - began_s < 2, "far less than the idle limit"
    assert hit


async def test_nobody_can_use_another_callers_transaction(service: DatabaseService) -> None:
    async with local(service, "slot 1").transaction() as tx:
        assert tx.number is not None
        thief = local(service, "slot 2")
        with pytest.raises(DatabaseError, match="the transaction is over"):
            await thief._ask("rollback", tx.number)
        await tx.execute("INSERT INTO t (v) VALUES (1)")
    assert await count(service) == 1


async def test_a_rollback_that_fails_does_not_hide_why_it_was_made(
    workshop: Workshop, service: DatabaseService
) -> None:
    db = local(service)
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t (v) VALUES (1)")
            # What a delivery's end does: nothing is there to be rolled back.
            db.close()
            raise ZeroDivisionError
    stub = DatabaseStub(await workshop.channel_to({"db": service}))

    def handler() -> None:
        with pytest.raises(ZeroDivisionError), stub.transaction() as tx:
            tx.execute("INSERT INTO t (v) VALUES (1)")
            stub.reset()
            raise ZeroDivisionError

    await asyncio.to_thread(handler)
    assert await db.fetch_all("SELECT v FROM t") == []
