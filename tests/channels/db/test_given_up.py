"""A statement that its handler gives up, by its deadline or one of its own: ended on the server, and told as that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from penstock import App, AsyncContext
from penstock.app.outcomes import Raised
from penstock.channels.db.calls import Failed
from penstock.errors import DatabaseBusy, DatabaseError
from penstock.testing import Worker as WorkerUnderTest
from penstock.testing import embedded_service
from tests.channels.conftest import local, until
from tests.channels.db import sleeping_application
from tests.channels.db.server_case import SLEEP, Case
from tests.channels.db.server_cursors import Worker

Use = Callable[[AsyncContext, str], Awaitable[object]]


async def alone(ctx: AsyncContext, sleep: str) -> None:
    await ctx.db.fetch_all(sleep)


async def inside(ctx: AsyncContext, sleep: str) -> None:
    async with ctx.db.transaction() as tx:
        await tx.fetch_all(sleep)


async def inside_twice(ctx: AsyncContext, sleep: str) -> None:
    async with ctx.db.transaction() as tx:
        await asyncio.gather(tx.fetch_all(sleep), tx.fetch_all(sleep))


async def streamed(ctx: AsyncContext, sleep: str) -> None:
    async with ctx.db.transaction() as tx, tx.stream(sleep) as rows:
        async for _ in rows:
            pass


async def tidied(ctx: AsyncContext, sleep: str) -> None:
    try:
        await ctx.db.fetch_all(sleep)
    finally:
        await ctx.db.fetch_one("SELECT 1 AS one")


@pytest.mark.parametrize("use", [alone, inside, inside_twice, streamed, tidied])
def test_a_handler_s_deadline_is_its_message_s_own_fault_and_called_by_its_name(case: Case, use: Use) -> None:
    app = App()

    @app.handler("q", timeout=0.2)
    async def handler(_: None, ctx: AsyncContext) -> None:
        await use(ctx, SLEEP[case.kind])

    with WorkerUnderTest(app, database=case.url) as worker:
        outcome = worker.run("q", None).outcome
    assert isinstance(outcome, Raised)
    assert outcome.charged
    assert "the handler ran longer than its timeout of 0.2 s" in str(outcome)


async def test_a_transaction_whose_statement_was_given_up_is_over_and_no_connection_was_lost(
    case: Case,
) -> None:
    db = await case.db()

    async def run(*, goes_on: bool) -> None:
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1, 'a')")
            sleeping = asyncio.create_task(tx.fetch_all(SLEEP[case.kind]))
            await until(case.sleeping)
            sleeping.cancel()
            await asyncio.wait({sleeping})
            if goes_on:
                await tx.execute("INSERT INTO t VALUES (2, 'b')")

    # PostgreSQL undoes the statement alone, and says itself that the transaction takes nothing more.
    words = {
        "mariadb": "the transaction is over: a statement of it was ended on the server: nobody waited for it any more",
        "postgresql": "aborted|takes nothing more",
    }[case.kind]
    for goes_on in (False, True):
        with pytest.raises(DatabaseError, match=words) as raised:
            await run(goes_on=goes_on)
        assert not isinstance(raised.value, DatabaseBusy)
    assert case.rows("SELECT count(*) FROM t") == [(0,)]


async def test_who_still_waits_when_the_message_is_over_hears_that(case: Case) -> None:
    db = await case.db()
    left = local(case.made[-1], "handler")
    sleeping = asyncio.create_task(left.fetch_all(SLEEP[case.kind]))
    await until(case.sleeping)
    left.close()
    with pytest.raises(DatabaseError, match="its message is over") as raised:
        await sleeping
    assert not isinstance(raised.value, DatabaseBusy)
    assert await db.fetch_one("SELECT 1 AS one") == {"one": 1}


async def test_a_rollback_does_not_wait_for_a_statement_that_its_worker_gave_up(case: Case) -> None:
    service = await case.service(server_connections=1)
    # A soft deadline ends the wait in the worker; the statement's own call goes on.
    worker = Worker(service)
    ran = await worker.run("SELECT 1", begins=True)
    given_up = asyncio.create_task(worker.try_to_run(SLEEP[case.kind], transaction=ran.transaction))
    await until(case.sleeping)
    async with asyncio.timeout(5):
        assert await worker.end(ran, commit=False) is None
        assert isinstance(await given_up, Failed)
        assert await worker.rows("SELECT 1") == [[1]]
    await until(lambda: not case.sleeping(), pause_s=0.01)


async def test_a_rollback_does_not_wait_for_a_connection_that_its_first_statement_waits_for(
    case: Case,
) -> None:
    service = await case.service(server_connections=1)
    holder = Worker(service, "holder")
    held = await holder.run("SELECT 1", begins=True)
    db = local(service)
    tx = db.transaction()
    await tx.__aenter__()
    waiting = asyncio.create_task(tx.fetch_one("SELECT 1 AS one"))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await tx.__aexit__(ValueError, ValueError(), None)
        with pytest.raises(DatabaseError, match="given up before it had a connection"):
            await waiting
    assert await holder.end(held) is None
    assert await db.fetch_one("SELECT 1 AS one") == {"one": 1}


@pytest.mark.parametrize("way", ["a block", "the channel"])
async def test_a_plain_handler_s_deadline_ends_its_statement_and_not_its_worker(
    case: Case, way: str, lines: list[Any]
) -> None:
    address = f"{sleeping_application.__name__}:app"
    async with embedded_service(address, database=case.url, processes=1) as service:
        await service.client.publish(f"sleep.in.{way.split()[1]}", SLEEP[case.kind])
        await service.wait_for(dead=1)
    events = [line["event"] for line in lines]
    assert not any("ignored its deadline" in event for event in events)
    [dead] = [line for line in lines if line["event"] == "message dead lettered"]
    assert "DeadlineExceeded" in dead["reason"] or "ran longer than its timeout" in dead["reason"]


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs() as found:
        yield found
