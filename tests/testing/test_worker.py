"""`penstock.testing.Worker` over several messages: its hooks, its state, its one connection."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from penstock import App, AsyncContext, Context
from penstock.testing import Worker, run
from tests.testing.rows import rows


def test_start_and_stop_hooks_run_around_all_messages_of_a_worker() -> None:
    local = App()
    ran: list[str] = []

    @local.on_worker_start
    def load(state: SimpleNamespace) -> None:
        state.rates = {"eur": 1}
        ran.append("start")

    @local.on_worker_stop
    def unload(state: SimpleNamespace) -> None:
        ran.append(f"stop {state.rates}")

    @local.handler("rates")
    def convert(payload: int, ctx: Context) -> None:
        ctx.state.rates["usd"] = payload

    with Worker(local) as worker:
        assert worker.queues == ("rates",)
        worker.run("rates", 1).raise_for_failure()
        worker.run(convert, 2).raise_for_failure()
        assert ran == ["start"]

    assert ran == ["start", "stop {'eur': 1, 'usd': 2}"]


def test_a_given_state_stands_in_for_the_start_hooks() -> None:
    local = App()
    local.on_worker_start(lambda _: pytest.fail("the hook ran"))

    @local.handler("rates")
    def convert(payload: int, ctx: Context) -> None:
        ctx.state.seen = payload * ctx.state.rate

    @local.handler("rates.later")
    async def convert_later(payload: int, ctx: AsyncContext) -> None:
        ctx.state.seen = payload * ctx.state.rate

    for queue in ("rates", "rates.later"):
        state = SimpleNamespace(rate=3)
        run(local, 2, queue=queue, state=state).raise_for_failure()
        assert state.seen == 6


def test_a_start_hook_that_fails_is_the_test_s_failure_and_leaves_nothing_behind() -> None:
    local = App()
    ran: list[str] = []
    local.handler("x")(lambda _: None)
    local.on_worker_stop(lambda _: ran.append("stop"))

    @local.on_worker_start
    def load(state: SimpleNamespace) -> None:
        raise LookupError("no rates")

    before = set(threading.enumerate())
    with pytest.raises(LookupError, match="no rates"):
        run(local, 1)
    assert set(threading.enumerate()) == before
    assert ran == []


def test_one_connection_serves_all_messages_of_a_worker(database: str) -> None:
    local = App()
    seen: list[Any] = []

    @local.handler("x")
    def look(payload: int, ctx: Context) -> None:
        seen.append(ctx.connection.connection.dbapi_connection)

    with Worker(local, database=database) as worker:
        for number in range(3):
            worker.run("x", number).raise_for_failure()

    assert len({id(one) for one in seen}) == 1


def test_a_worker_works_inside_a_running_loop_as_well(database: str) -> None:
    local = App()

    @local.handler("x")
    async def store(payload: int, ctx: AsyncContext) -> None:
        await ctx.db.execute("INSERT INTO orders VALUES (?, '1')", [payload])

    async def inside() -> None:
        run(local, 1, database=database).raise_for_failure()

    asyncio.run(inside())
    assert rows(database) == [(1, "1")]
