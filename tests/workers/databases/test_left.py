"""What a handler leaves on a server's connection, in whatever way, does not reach the next message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg.rows
import psycopg.sql
import pytest
from sqlalchemy import text

from penstock.app.context import Context
from tests.channels.db.server_case import LEFT
from tests.workers.databases.place import Place, put

Leave = Callable[[Any], object]


@pytest.mark.parametrize("how", ["SET", "options"])
def test_what_a_handler_did_to_the_connection_does_not_last(server_place: Place, how: str) -> None:
    levels: list[str] = []

    def handler(payload: int, ctx: Context) -> None:
        if payload == 1:
            if how == "options":
                ctx.connection.execution_options(isolation_level="SERIALIZABLE")
            elif server_place.kind == "postgresql":
                ctx.connection.execute(
                    text("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE")
                )
            else:
                ctx.connection.execute(text("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        ctx.connection.execute(text("SELECT 1"))
        levels.append(ctx.connection.get_isolation_level())

    with server_place.worker(handler) as worker:
        worker.run(1)
        worker.run(2)
        assert len(server_place.connections_once(1)) == 1
    assert levels[1] == ("REPEATABLE READ" if server_place.kind == "mariadb" else "READ COMMITTED")


def test_what_is_less_plain_to_see_does_not_last_either(server_place: Place) -> None:
    found: list[object] = []
    scenes = LEFT[server_place.kind]

    def handler(payload: int, ctx: Context) -> None:
        statement, asking, _ = scenes[payload]
        found.append(ctx.connection.exec_driver_sql(asking).scalar())
        ctx.connection.exec_driver_sql(statement)

    with server_place.worker(handler) as worker:
        for number in range(len(scenes)):
            for _ in range(2):
                assert worker.run(number).verdict == "acked"
    assert found == [usual for *_, usual in scenes for _ in range(2)]


def test_an_ordinary_statement_does_not_cost_the_connection(server_place: Place) -> None:
    numbers: list[list[int]] = []

    def handler(payload: int, ctx: Context) -> None:
        put(ctx, payload, "it's; SET b := 'C:\\'")
        ctx.connection.exec_driver_sql("SELECT ';SET';")
        numbers.append(server_place.connections_once(1))

    with server_place.worker(handler) as worker:
        for number in range(3):
            assert worker.run(number).verdict == "acked"
    assert numbers[0] == numbers[1] == numbers[2]


def finds_the_same(place: Place, leave: Leave, look: Callable[[Any], object]) -> None:
    """Two messages on the driver's own connection find the same; the first of them leaves something."""
    found: list[object] = []

    def handler(_: int, ctx: Context) -> None:
        raw = ctx.connection.connection.driver_connection
        found.append(look(raw))
        leave(raw)

    with place.worker(handler) as worker:
        for _ in range(2):
            assert worker.run().verdict == "acked"
    assert found[0] == found[1]


def asked(raw: Any, question: str) -> object:
    with raw.cursor() as cursor:
        cursor.execute(question)
        return cursor.fetchone()


def shown(raw: Any) -> object:
    return asked(raw, "SHOW work_mem")


def by_a_named_cursor(raw: Any) -> None:
    with raw.cursor("mine") as cursor:
        cursor.execute("SELECT set_config('work_mem', '8MB', false)")
        cursor.fetchall()


def by_copy(raw: Any) -> None:
    with raw.cursor().copy("COPY (SELECT set_config('work_mem', '8MB', false)) TO STDOUT") as rows:
        list(rows)


@pytest.mark.parametrize(
    "leave",
    [
        lambda raw: raw.execute("SET work_mem = '8MB'"),
        lambda raw: raw.execute(b"SELECT 1; SET work_mem = '8MB'"),
        lambda raw: raw.execute(psycopg.sql.SQL("SET {} = '8MB'").format(psycopg.sql.Identifier("work_mem"))),
        lambda raw: raw.cursor().executemany("SELECT set_config('work_mem', %s, false)", [("8MB",)]),
        lambda raw: list(raw.cursor().stream("SELECT set_config('work_mem', '8MB', false)")),
        by_a_named_cursor,
        by_copy,
    ],
)
def test_nor_what_it_says_to_psycopg_itself(postgresql_place: Place, leave: Leave) -> None:
    finds_the_same(postgresql_place, leave, shown)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("autocommit", True),
        ("isolation_level", psycopg.IsolationLevel.SERIALIZABLE),
        ("read_only", True),
        ("row_factory", psycopg.rows.dict_row),
        ("prepare_threshold", None),
    ],
)
def test_nor_an_attribute_of_psycopgs(postgresql_place: Place, name: str, value: object) -> None:
    def leave(raw: Any) -> None:
        raw.rollback()
        setattr(raw, name, value)

    finds_the_same(postgresql_place, leave, lambda raw: getattr(raw, name))


@pytest.mark.parametrize(("name", "value"), [("TimeZone", "Pacific/Chatham"), ("client_encoding", "LATIN1")])
def test_nor_what_a_function_sets_when_the_server_tells_of_it(
    postgresql_place: Place, name: str, value: str
) -> None:
    with postgresql_place.outside() as other:
        other.exec_driver_sql(
            f"CREATE FUNCTION quietly() RETURNS void LANGUAGE sql AS $$ SELECT set_config('{name}', '{value}', false) $$"
        )
        other.commit()
    finds_the_same(
        postgresql_place, lambda raw: asked(raw, "SELECT quietly()"), lambda raw: asked(raw, f"SHOW {name}")
    )


@pytest.mark.parametrize(
    "statement",
    [
        "SET LOCAL work_mem = '8MB'",
        "SET TRANSACTION READ WRITE; SET CONSTRAINTS ALL DEFERRED; SELECT 1",
        "SELECT set_config('app.tenant', '5', true)",
        "CREATE TEMP TABLE mine ON COMMIT DROP AS SELECT 1 AS one",
    ],
)
def test_what_postgresql_ends_with_the_transaction_does_not_cost_the_connection(
    postgresql_place: Place, statement: str
) -> None:
    numbers: list[object] = []

    def handler(_: int, ctx: Context) -> None:
        numbers.append(ctx.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar())
        ctx.connection.exec_driver_sql(statement)

    with postgresql_place.worker(handler) as worker:
        for _ in range(2):
            assert worker.run().verdict == "acked"
    assert numbers[0] == numbers[1]
