"""`database="channel"`: the same handlers, the same results, and every statement through the loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError

from penstock.app.application import App
from penstock.app.context import Context
from penstock.app.handlers import DatabaseWay
from penstock.app.outcomes import Raised
from penstock.errors import ConfigurationError
from penstock.testing import embedded_service
from tests.workers import channel_application
from tests.workers.channel_application import application
from tests.workers.databases.place import Place, Running, put, running_on, store


@pytest.fixture(params=["own", "channel"])
def way(request: pytest.FixtureRequest) -> DatabaseWay:
    found: DatabaseWay = request.param
    return found


class Case:
    """The application's tables."""

    def __init__(self, place: Place, running: Running) -> None:
        self._place = place
        self._running = running

    def run(self, queue: str, payload: Any = None) -> Any:
        self._running.run(payload, queue).raise_for_failure()
        return self._running.worker._state.found

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self._place.outside() as other:
            return [tuple(row) for row in other.execute(text(statement))]


@pytest.fixture
def case(place: Place) -> Iterator[Case]:
    with running_on(application(place.way), place.url) as running:
        made = Case(place, running)
        running.worker._state.found = None
        made.run("make")
        yield made


def test_orm_and_core_share_a_message_s_transaction(case: Case) -> None:
    case.run("write", "Ann")
    with pytest.raises(ValueError, match="not this one"):
        case.run("write", "bad")
    case.run("write", "Bob")
    assert case.rows("SELECT name FROM authors ORDER BY id") == [("Ann!!",), ("Bob!",)]
    assert case.rows("SELECT count(*) FROM books") == [(6,)]


def test_relationships_load_eagerly_and_lazily(case: Case) -> None:
    case.run("write", "Ann")
    assert case.run("read") == [("Ann!", ["Ann 0", "Ann 1", "Ann 2"]), "Ann!"]


def test_savepoints_undo_what_is_inside_them(case: Case) -> None:
    assert case.run("savepoint") in ("IntegrityError", "UniqueViolation")
    assert case.rows("SELECT name FROM authors") == [("outer",)]


def test_tables_are_reflected(case: Case) -> None:
    assert case.run("reflect") == [["author_id", "id", "title"], "authors", ["author_id"]]


def test_many_rows_go_there_and_come_back(case: Case) -> None:
    assert case.run("many", 5000) == sum(range(5000))


def test_a_large_result_streams_while_its_transaction_writes(case: Case) -> None:
    assert case.run("stream", 5000) == 5000
    assert case.rows("SELECT count(*) FROM authors WHERE name LIKE 'seen %'") == [(50,)]


def test_a_handler_commits_and_rolls_back_in_the_middle(case: Case) -> None:
    case.run("in.the.middle")
    assert case.rows("SELECT name FROM authors") == [("kept",)]


def test_every_statement_of_a_channel_handler_crosses_and_none_of_another(
    case: Case, place: Place, crossed: list[str]
) -> None:
    end = "commit" if place.kind == "sqlite" else "end"
    crossed.clear()
    case.run("write", "Ann")
    assert (crossed[-1:], set(crossed)) == (([end], {"run", end}) if place.way == "channel" else ([], set()))
    assert crossed.count(end) <= 1
    crossed.clear()
    case.run("many", 500)
    assert crossed.count("run") == (2 if place.way == "channel" else 0)


def test_isolation_is_that_of_the_setting_and_of_the_handler(server_place: Place) -> None:
    found: list[int] = []
    count = text("SELECT count(*) FROM item")

    def usual(payload: int, ctx: Context) -> None:
        before: int = ctx.connection.execute(count).scalar_one()
        with server_place.outside() as other:
            other.execute(text("INSERT INTO item (id, n) VALUES (:id, 0)"), {"id": payload})
            other.commit()
        found.append(ctx.connection.execute(count).scalar_one() - before)

    def repeatable(payload: int, ctx: Context) -> None:
        usual(payload, ctx)

    app = App()
    app.handler("usual", database=server_place.way)(usual)
    app.handler("repeatable", database=server_place.way, isolation="REPEATABLE READ")(repeatable)
    with running_on(app, server_place.url, isolation_level="READ COMMITTED") as running:
        for number, queue in enumerate(["usual", "repeatable", "usual", "repeatable"]):
            running.run(number, queue).raise_for_failure()
    assert found == [1, 0, 1, 0]


def test_an_error_that_the_handler_swallows_on_postgresql_commits_nothing_half(
    postgresql_place: Place, way: DatabaseWay
) -> None:
    def handler(payload: int, ctx: Context) -> None:
        put(ctx, payload)
        with pytest.raises(DBAPIError):
            ctx.connection.execute(text("SELECT * FROM nowhere"))

    place = replace(postgresql_place, way=way)
    with place.worker(handler, store) as worker:
        outcome = worker.run(1).outcome
        assert isinstance(outcome, Raised)
        assert "undid this message's transaction" in str(outcome)
        assert worker.run(2, "q1").verdict == "acked"
    assert [number for number, *_ in place.rows()] == [2]


@pytest.mark.parametrize("way", ["channel"])
def test_a_server_that_has_no_connection_left_brings_the_message_back_uncharged(server_place: Place) -> None:
    numbers = " CROSS JOIN ".join(f"(SELECT 0 AS a UNION ALL SELECT 1) AS t{n}" for n in range(15))

    def handler(payload: int, ctx: Context) -> None:
        # The one that there is has these rows on its wire.
        with ctx.db.stream(f"SELECT repeat('x', 99) FROM {numbers}") as rows:
            next(rows)
            put(ctx, payload)

    with server_place.worker(handler, server_connections=1, wait_s=0.05) as worker:
        outcome = worker.run(1).outcome
        assert isinstance(outcome, Raised)
        assert "wait_s" in str(outcome)
        assert not outcome.charged
    assert server_place.rows() == []


def test_an_option_that_its_driver_does_not_know_ends_the_start(server_place: Place) -> None:
    with (
        pytest.raises(ConfigurationError, match="nonsense") as refused,
        server_place.worker(store, url=f"{server_place.url}?nonsense=1"),
    ):
        pass
    assert "p%2Fw%40d" not in str(refused.value)


@pytest.mark.parametrize("way", ["channel"])
def test_a_limit_of_the_workers_connections_is_none_of_the_channel_s(place: Place) -> None:
    with place.worker(store, max_connections=1) as worker:
        worker.run(1).raise_for_failure()
    assert [number for number, *_ in place.rows()] == [1]


@pytest.mark.parametrize("way", ["channel"])
def test_an_idle_transaction_fails_its_message_and_keeps_nothing(place: Place) -> None:
    def handler(payload: int, ctx: Context) -> None:
        put(ctx, payload)
        # Somebody else's row of that number waits until the server has undone this one.
        with place.outside() as other:
            other.execute(text("INSERT INTO item (id, n) VALUES (:id, 0)"), {"id": payload})
            other.rollback()
        put(ctx, payload + 1)

    with place.worker(handler, store, transaction_idle_s=0.05) as worker:
        outcome = worker.run(1).outcome
        assert isinstance(outcome, Raised)
        assert "transaction_idle_s" in str(outcome)
        assert worker.run(5, "q1").verdict == "acked"
    assert [number for number, *_ in place.rows()] == [5]


@pytest.mark.parametrize("way", ["channel"])
def test_a_message_that_waits_for_its_own_row_is_told_what_it_waited_for(server_place: Place) -> None:
    server_place.fill(1)

    def handler(_: int, ctx: Context) -> None:
        ctx.connection.execute(text("UPDATE item SET n = 1"))
        ctx.db.execute("UPDATE item SET n = 2")

    with server_place.worker(handler, transaction_idle_s=0.2) as worker:
        outcome = worker.run(1).outcome
    assert isinstance(outcome, Raised)
    assert "it was rolled back because it stood 0.2 s" in str(outcome)
    assert "use one of the two in a message" in str(outcome)


@pytest.mark.parametrize("way", ["channel"])
@pytest.mark.parametrize("is_block", [False, True])
def test_a_worker_that_holds_the_only_connection_does_not_wait_for_it(
    server_place: Place, is_block: bool
) -> None:
    server_place.fill(1)

    def handler(_: int, ctx: Context) -> None:
        # What is left early, or committed, is on its way back, and waited for.
        for _row in ctx.db.stream("SELECT id FROM item"):
            break
        ctx.connection.execute(text("SELECT id FROM item"))
        ctx.connection.commit()
        with ctx.db.transaction():
            ctx.db.fetch_all("SELECT id FROM item")
        ctx.connection.execute(text("SELECT id FROM item"))
        with ctx.db.transaction() if is_block else nullcontext():
            ctx.db.fetch_all("SELECT id FROM item")

    with server_place.worker(handler, server_connections=1, transaction_idle_s=30) as worker:
        began_s = time.monotonic()
        outcome = worker.run(1).outcome
        assert time.monotonic() - began_s < 10
    assert isinstance(outcome, Raised)
    assert outcome.charged
    assert "this worker's own transactions hold all 1 connections" in str(outcome)


def test_what_a_handler_changes_on_the_connection_costs_the_next_one_nothing(place: Place) -> None:
    def spoil(_: int, ctx: Context) -> None:
        ctx.connection.execution_options(isolation_level="AUTOCOMMIT")
        ctx.connection.execute(text("SELECT 1"))

    def look(payload: int, ctx: Context) -> None:
        put(ctx, payload)
        raise ValueError("undone")

    with place.worker(spoil, look) as worker:
        assert worker.run(1).verdict == "acked"
        assert isinstance(worker.run(1, "q1").outcome, Raised)
    assert place.rows() == []


def test_an_engine_of_one_s_own_is_made_anywhere_and_connects_in_handlers(place: Place) -> None:
    name = make_url(place.url).get_backend_name()
    engine = create_engine(f"{name}+penstock://")
    with pytest.raises(DBAPIError, match="no database channel in this process"):
        engine.connect()
    for more in ("u:secret@h/d", "/d?password=secret"):
        with pytest.raises(
            ArgumentError, match=r"without more: the channel leads to the database in database\.url"
        ) as refused:
            create_engine(f"{name}+penstock://{more}").connect()
        assert "secret" not in str(refused.value)

    def handler(payload: int, ctx: Context) -> None:
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO item (id, n) VALUES (:id, 0)"), {"id": payload})
        with engine.connect() as connection, pytest.raises(IntegrityError):
            connection.execute(text("INSERT INTO item (id, n) VALUES (:id, 0)"), {"id": payload})
        ctx.state.found = payload
        engine.dispose()

    with place.worker(handler) as worker:
        worker.run(7).raise_for_failure()
    assert [number for number, *_ in place.rows()] == [7]


@pytest.mark.parametrize("way", ["channel"])
async def test_worker_processes_go_through_the_loop_which_says_goodbye(place: Place) -> None:
    with place.outside() as other:
        channel_application.Model.metadata.create_all(other)
        other.exec_driver_sql("INSERT INTO authors (id, name) VALUES (1, '0')")
        other.commit()
    address = f"{channel_application.__name__}:app"
    async with embedded_service(address, database=place.url, processes=3) as service:
        for _ in range(40):
            await service.client.publish("add.one", None)
        await service.wait_for(acked=40)
    with place.outside() as other:
        # No update was lost: what a message reads nobody changes before it commits.
        assert other.exec_driver_sql("SELECT name FROM authors").scalar_one() == "40"
    if place.server is not None:
        assert place.connections_once(0) == []
