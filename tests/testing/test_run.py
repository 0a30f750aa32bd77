"""`penstock.testing.run` and `Worker`: the real way of one message, without a broker."""

import asyncio
import functools
import sqlite3
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import text

from penstock import (
    App,
    AsyncContext,
    Backoff,
    ConnectionMisused,
    Context,
    DatabaseError,
    HandlerError,
    PayloadError,
    Reject,
    Retry,
)
from penstock.app.handlers import AnyHandler
from penstock.app.outcomes import DONE
from penstock.testing import Worker, run
from tests.testing.rows import rows


class Order(BaseModel):
    id: int
    total: Decimal


app = App()


@app.handler("orders", retry=Backoff(attempts=3, first_s=4))
def store(order: Order, ctx: Context) -> None:
    if order.id < 0:
        raise Reject("no such order")
    if order.id == 404:
        raise LookupError("the warehouse has none")
    if order.id == 503:
        raise Retry("the warehouse sleeps", delay=60)
    ctx.connection.execute(
        text("INSERT INTO orders VALUES (:id, :total)"), {"id": order.id, "total": str(order.total)}
    )
    ctx.bus.publish("orders.stored", {"id": order.id}, headers={"from": ctx.message.id or ""})
    ctx.bus.publish("as text", exchange="shop", routing_key="orders.eu")
    if order.id == 500:
        raise RuntimeError("after the insert")


@app.handler("totals")
async def total(order: Order, ctx: AsyncContext) -> None:
    async with ctx.db.transaction() as tx:
        await tx.execute("INSERT INTO orders VALUES (?, ?)", [order.id, str(order.total)])
        if order.id == 500:
            raise RuntimeError("after the insert")
    await ctx.bus.publish_now("totals.stored", b"\x00")


def test_a_message_that_is_handled_is_committed_published_and_acked(database: str) -> None:
    result = run(store, Order(id=1, total=Decimal("9.99")), database=database)

    assert result.verdict == "acked"
    assert result.raise_for_failure() is result
    assert (result.reason, result.retry_after_s, result.dead_letter, result.error) == ("", None, None, None)
    stored, told = result.published
    assert (stored.queue, stored.payload, stored.headers) == (
        "orders.stored",
        {"id": 1},
        {"from": "test-message"},
    )
    assert (told.queue, told.message.exchange, told.message.routing_key) == (None, "shop", "orders.eu")
    assert told.payload == "as text"
    assert rows(database) == [(1, "9.99")]


def test_a_repeated_run_repeats_the_ids_of_what_it_publishes(database: str) -> None:
    first = run(store, {"id": 1, "total": "9.99"}, database=database, id="order-1")
    second = run(store, {"id": 2, "total": "9.99"}, database=database, id="order-1")

    assert [sent.id for sent in first.published] == [sent.id for sent in second.published]
    assert len({sent.id for sent in first.published}) == 2


def test_a_handler_that_raises_leaves_no_row_and_no_message(database: str) -> None:
    result = run(store, {"id": 500, "total": "1"}, database=database)

    assert result.verdict == "retried"
    assert result.reason == "the handler raised RuntimeError: after the insert"
    assert result.retry_after_s is not None
    assert 0 <= result.retry_after_s <= 4
    assert result.published == ()
    assert rows(database) == []
    with pytest.raises(RuntimeError, match="after the insert") as raised:
        result.raise_for_failure()
    assert raised.value is result.error
    assert raised.traceback[-1].name == "store"


def test_the_last_attempt_is_a_dead_letter_with_its_evidence(database: str) -> None:
    result = run(store, {"id": 404, "total": "1"}, database=database, attempt=3, headers={"tenant": "north"})

    assert result.verdict == "dead lettered"
    assert result.dead_letter is not None
    assert result.dead_letter.queue == "orders.dead"
    assert result.dead_letter.payload == {"id": 404, "total": "1"}
    assert result.dead_letter.headers["tenant"] == "north"
    assert result.dead_letter.headers["x-penstock-attempts"] == 3
    assert "the warehouse has none (after 3 attempts)" in str(result.dead_letter.headers["x-penstock-reason"])


def test_what_the_handler_says_is_what_becomes_of_the_message(database: str) -> None:
    rejected = run(store, {"id": -1, "total": "1"}, database=database)
    assert (rejected.verdict, rejected.reason) == ("dead lettered", "rejected by the handler: no such order")
    with pytest.raises(Reject):
        rejected.raise_for_failure()

    later = run(store, {"id": 503, "total": "1"}, database=database)
    assert (later.verdict, later.retry_after_s) == ("retried", 60)
    with pytest.raises(Retry):
        later.raise_for_failure()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"body": b"{"}, "not valid JSON"),
        ({"body": b'{"id": "1"}'}, "id: Input should be a valid integer"),
        ({"body": b"{}", "content_type": "application/x-python-serialize"}, "is not read"),
        ({"body": b"{}", "content_encoding": "br"}, "is not read"),
        ({"payload": {"id": 1}}, "total: Field required"),
        ({"payload": "text"}, "content type 'text/plain' is not read"),
    ],
)
def test_a_message_that_cannot_be_read_never_reaches_the_handler(message: dict[str, Any], words: str) -> None:
    for handler in (store, total):
        result = run(handler, **message)

        assert result.verdict == "dead lettered"
        assert words in result.reason
        with pytest.raises(PayloadError):
            result.raise_for_failure()


def test_a_commit_that_fails_is_the_message_s_failure(database: str) -> None:
    connection = sqlite3.connect(database.removeprefix("sqlite:///"))
    connection.execute("CREATE TABLE lines (of INTEGER REFERENCES orders DEFERRABLE INITIALLY DEFERRED)")
    connection.close()
    local = App()

    @local.handler("lines")
    def add(number: int, ctx: Context) -> None:
        ctx.connection.execute(text("PRAGMA defer_foreign_keys = 1"))
        ctx.connection.execute(text("INSERT INTO lines VALUES (:number)"), {"number": number})

    result = run(add, 7, database=database)

    assert result.verdict == "retried"
    assert "FOREIGN KEY" in result.reason
    with pytest.raises(AssertionError, match="Traceback"):
        result.raise_for_failure()


def test_the_context_shows_the_message_as_a_service_would() -> None:
    local = App()
    seen: list[Any] = []

    @local.handler("looked.at")
    def look(payload: bytes, ctx: Context) -> None:
        seen.append(ctx.message)

    @local.handler("looked.at.too")
    async def look_too(payload: bytes, ctx: AsyncContext) -> None:
        seen.append(ctx.message)

    options: dict[str, Any] = {
        "id": "m-1", "headers": {"a": b"\xff"}, "attempt": 2, "redelivered": True, "correlation_id": "c", "reply_to": "r",
    }  # fmt: skip
    assert run(look, b"\xff", **options).outcome is DONE
    assert run(look_too, b"\xff", **options).outcome is DONE

    handlers: list[AnyHandler] = [look, look_too]
    for message, handler in zip(seen, handlers, strict=True):
        assert (message.queue, message.handler) == (handler.queue.name, handler.name)
        assert (message.id, message.headers, message.attempt, message.redelivered) == (
            "m-1",
            {"a": b"\xff"},
            2,
            True,
        )
        assert (message.correlation_id, message.reply_to) == ("c", "r")


def test_an_async_handler_uses_the_database_channel_and_publishes_at_once(database: str) -> None:
    result = run(total, {"id": 1, "total": "2.50"}, database=database).raise_for_failure()

    assert [(sent.queue, sent.payload) for sent in result.published_now] == [("totals.stored", b"\x00")]
    assert result.published == ()
    assert rows(database) == [(1, "2.50")]

    failed = run(total, {"id": 500, "total": "1"}, database=database)
    assert failed.verdict == "retried"
    assert isinstance(failed.error, RuntimeError)
    assert rows(database) == [(1, "2.50")]


def test_a_plain_handler_uses_the_database_channel_too_and_sees_the_driver_s_errors(database: str) -> None:
    local = App()

    @local.handler("orders")
    def store(payload: dict[str, Any], ctx: Context) -> None:
        with ctx.db.transaction() as tx:
            tx.execute("INSERT INTO orders VALUES (:id, :total)", payload)
        assert ctx.db.fetch_one("SELECT count(*) AS n FROM orders") == {"n": 1}
        ctx.bus.publish_now("told", {"id": payload["id"]})

    result = run(store, {"id": 1, "total": "1"}, database=database).raise_for_failure()
    assert [sent.payload for sent in result.published_now] == [{"id": 1}]

    refused = run(store, {"id": 2, "total": "0.13"}, database=database)
    assert isinstance(refused.error, DatabaseError)
    assert refused.error.kind == "IntegrityError"


def test_writing_one_file_both_ways_is_refused_here_as_in_a_service(database: str) -> None:
    local = App()

    @local.handler("orders")
    def both(payload: int, ctx: Context) -> None:
        ctx.connection.execute(text("INSERT INTO orders VALUES (1, '1')"))
        ctx.db.execute("INSERT INTO orders VALUES (2, '2')")

    result = run(both, 1, database=database)

    assert isinstance(result.error, ConnectionMisused)
    assert rows(database) == []


def test_a_handler_without_a_database_says_which_setting_is_missing() -> None:
    with pytest.raises(Exception, match=r"database\.url"):
        run(store, {"id": 1, "total": "1"}).raise_for_failure()


def test_a_handler_that_ends_the_interpreter_ends_only_its_message() -> None:
    local = App()

    @local.handler("x")
    def leave(payload: int) -> None:
        raise SystemExit(3)

    result = run(leave, 1)
    assert (result.verdict, type(result.error)) == ("retried", SystemExit)


def test_a_decorated_coroutine_is_awaited() -> None:
    local = App()
    seen: list[int] = []

    def measured(function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any) -> Any:
            return function(*args)

        return call

    @local.handler("x")
    @measured
    async def handle(payload: int) -> None:
        await asyncio.sleep(0)
        seen.append(payload)

    run(local, 1).raise_for_failure()
    assert seen == [1]


def test_a_coroutine_that_nobody_would_await_is_the_handler_s_failure() -> None:
    local = App()

    async def later(payload: int) -> None: ...

    @local.handler("x")
    def now(payload: int) -> Any:
        return later(payload)

    result = run(local, 1)

    assert result.verdict == "retried"
    assert "returned a coroutine that nobody awaits" in result.reason


def test_wrong_questions_are_answered_in_words() -> None:
    with pytest.raises(HandlerError, match="say for which of its queues"):
        run(app, {})
    with pytest.raises(HandlerError, match=r"no handler of queue 'stock' here; there are: orders, totals"):
        run(app, {}, queue="stock")
    with pytest.raises(PayloadError, match="as a payload, or as body"):
        run(store)
    with pytest.raises(PayloadError, match="as a payload, or as body"):
        run(store, {}, body=b"{}")
    with pytest.raises(PayloadError, match="cannot be written as JSON"):
        run(store, object())
    with pytest.raises(HandlerError, match=r"with penstock\.testing\.Worker"):
        Worker(app).run("orders", {})
