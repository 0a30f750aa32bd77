"""What a handler leaves on a server's connection, in whatever way, does not reach the next message."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import psycopg.rows
import psycopg.sql
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

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


def test_nor_what_could_not_be_asked_for(mariadb_place: Place) -> None:
    """A temporary table that hides another one, a table that is locked, a prepared statement, a handler, an open block."""
    mariadb_place.fill(3)

    def handler(payload: str, ctx: Context) -> None:
        if payload:
            ctx.connection.exec_driver_sql(payload)
            return
        assert ctx.connection.exec_driver_sql("SELECT count(*) FROM item").scalar() == 3
        for unknown in ("EXECUTE mine", "HANDLER item READ FIRST"):
            with pytest.raises(DBAPIError):
                ctx.connection.exec_driver_sql(unknown)
        put(ctx, 99)
        ctx.connection.rollback()

    with mariadb_place.worker(handler) as worker:
        for statement in (
            "CREATE OR REPLACE TEMPORARY TABLE item (id INT, name VARCHAR(200), n INT)",
            "LOCK TABLES item READ",
            "PREPARE mine FROM 'SELECT 1'",
            "HANDLER item OPEN",
            "SET autocommit = 1",
            "FLUSH TABLES WITH READ LOCK",
        ):
            assert worker.run(statement).verdict == "acked", statement
            result = worker.run("")
            assert result.verdict == "acked", (statement, result.outcome)


def name_of_cursor(raw: Any) -> object:
    return type(raw.cursor()).__name__


@pytest.mark.parametrize(
    ("leave", "look"),
    [
        (lambda raw: raw.cursor().execute("SET @n = 1"), lambda raw: asked(raw, "SELECT @n")),
        (lambda raw: raw.select_db("information_schema"), lambda raw: asked(raw, "SELECT DATABASE()")),
        (
            lambda raw: raw.set_character_set("latin1"),
            lambda raw: asked(raw, "SELECT @@character_set_client"),
        ),
        (lambda raw: raw.autocommit(True), lambda raw: asked(raw, "SELECT @@autocommit")),
        (lambda raw: setattr(raw, "cursorclass", other_cursor(raw)), name_of_cursor),
        (lambda raw: raw.encoders.update({str: None}), lambda raw: raw.encoders.get(str)),
    ],
)
def test_nor_what_it_does_to_mysqls_driver(mariadb_place: Place, leave: Leave, look: Leave) -> None:
    finds_the_same(mariadb_place, leave, look)


def other_cursor(raw: Any) -> object:
    from importlib import import_module

    return import_module(f"{type(raw).__bases__[-1].__module__.partition('.')[0]}.cursors").DictCursor


def test_nor_what_a_function_or_a_trigger_sets_amid_a_write_by_pymysql(mariadb_place: Place) -> None:
    with mariadb_place.outside() as other:
        other.exec_driver_sql(
            "CREATE FUNCTION quietly() RETURNS INT BEGIN SET @n = 1; SET SESSION lock_wait_timeout = 77; RETURN 1; END"
        )
        other.exec_driver_sql("CREATE TRIGGER g AFTER DELETE ON item FOR EACH ROW SET @n = 1")
    mariadb_place.fill(3)
    number = iter(range(10, 20))
    for statement in (
        "INSERT INTO item VALUES (quietly() + {}, 'x', 0)",
        "DELETE FROM item ORDER BY id LIMIT 1",
    ):
        finds_the_same(
            mariadb_place,
            lambda raw, words=statement: asked(raw, words.format(next(number))),  # type: ignore[misc]
            lambda raw: asked(raw, "SELECT @n, @@lock_wait_timeout"),
        )


def test_a_ping_never_opens_another_connection(mariadb_place: Place) -> None:
    caught: list[Exception] = []

    def handler(_: int, ctx: Context) -> None:
        put(ctx, 1)
        raw: Any = ctx.connection.connection.driver_connection
        (number,) = mariadb_place.connections
        mariadb_place.running.kill_connection(number)
        with warnings.catch_warnings():
            # The driver gives the word up.
            warnings.simplefilter("ignore")
            try:
                raw.ping(True)
            except Exception as error:  # noqa: BLE001 - whatever the driver has for it
                caught.append(error)
        put(ctx, 2)

    with mariadb_place.worker(handler) as worker:
        assert worker.run().verdict == "retried"
    assert len(caught) == 1
    assert mariadb_place.rows() == []
