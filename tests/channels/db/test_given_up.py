"""A statement that an async handler gives up, by its deadline or one of its own: ended on the server, and told as that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from penstock import App, AsyncContext
from penstock.app.outcomes import Raised
from penstock.errors import DatabaseBusy, DatabaseError
from penstock.testing import Worker as WorkerUnderTest
from tests.channels.conftest import local, until
from tests.channels.db.server_case import SLEEP, Case

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
