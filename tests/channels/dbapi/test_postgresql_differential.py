"""The same programs with psycopg and over the channel: what each call returned, raised and left must be equal."""
# ruff: noqa: DTZ001 - a timestamp without a zone is one of the types

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import uuid
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg import IsolationLevel, Rollback, sql
from psycopg.rows import class_row, dict_row, namedtuple_row, scalar_row
from psycopg.types.json import Json, Jsonb
from psycopg.types.multirange import Multirange
from psycopg.types.numeric import Int2
from psycopg.types.range import Range
from sqlalchemy import make_url

from penstock.channels.dbapi import postgresql as postgresql_over_channel
from tests.channels.dbapi.programs import Program, attempt, rows, said
from tests.channels.dbapi.served import served
from tests.servers import Server, database_on

TABLE = "CREATE TABLE t (id SERIAL PRIMARY KEY, v VARCHAR(20) CONSTRAINT one_v UNIQUE, w INTEGER)"
NUMBERS = "SELECT i, 'x' || i FROM generate_series(1, 5000) AS i"


class _Colour(enum.StrEnum):
    RED = "red"


class _Size(enum.Enum):
    LARGE = 1


class _Pair:
    def __init__(self, a: int, b: str) -> None:
        self.both = (a, b)

    def __repr__(self) -> str:
        return f"Pair{self.both}"


def every_kind_of_value(connection: Any) -> Iterator[Any]:
    for value in [
        *(
            None,
            True,
            False,
            0,
            -1,
            2**63 - 1,
            2**64,
            10**30,
            1.5,
            1e-300,
            float("inf"),
            "",
            "ä'\"\\%s\n",
            "😀",
            b"",
            b"\0\xff'",
        ),
        *(
            bytearray(b"x"),
            memoryview(b"yz"),
            psycopg.Binary(b"q"),
            Decimal("1.10"),
            Decimal("NaN"),
            uuid.UUID(int=7),
        ),
        *(
            dt.date(2026, 1, 31),
            dt.datetime(2026, 1, 31, 13, 5, 0, 5),
            dt.datetime(2026, 1, 31, tzinfo=dt.UTC),
        ),
        *(
            dt.datetime(2026, 7, 31, 1, tzinfo=ZoneInfo("Europe/Berlin")),
            dt.time(1, 2, 3, 4),
            dt.time(1, tzinfo=dt.UTC),
        ),
        *(dt.timedelta(hours=30), dt.timedelta(days=-3, microseconds=1), _Colour.RED, _Size.LARGE, Int2(3)),
        *(
            [1, None, 3],
            [[1, 2], [3, 4]],
            ["ä", 'b"', None],
            [Decimal("1.5")],
            [dt.date(2026, 1, 1)],
            [uuid.UUID(int=1)],
        ),
        *(Json({"a": [1, None, "ä"]}), Jsonb([1.5, True]), [Jsonb({"a": 1})], (1, "x", None)),
        *(
            Range(1, 5),
            Range(dt.date(2026, 1, 1), None, "(]"),
            Range(empty=True),
            Multirange([Range(1, 2), Range(5, 6)]),
        ),
        *(
            ipaddress.ip_address("10.0.0.1"),
            ipaddress.ip_interface("::1/64"),
            ipaddress.ip_network("10.0.0.0/8"),
        ),
    ]:
        yield value, attempt(rows, connection, "SELECT %s, pg_typeof(%s)::text", (value, value))
        connection.rollback()
    yield rows(connection, "SELECT %(a)s, %(b)s, %(a)s", {"a": 1, "b": "x", "unused": 0})


def columns_of_every_type(connection: Any) -> Iterator[Any]:
    for expression in [
        *(
            "1::int2",
            "2::int8",
            "1.50::numeric(9, 4)",
            "0.1::float4",
            "true",
            "'x'::char(3)",
            "'y'::varchar(7)",
            "'z'::text",
        ),
        *(
            "'n'::name",
            "'\\xff'::bytea",
            "'2026-01-31'::date",
            "'13:05:07.5'::time(3)",
            "'13:05:07+02'::timetz",
        ),
        *(
            "'2026-01-31 13:05'::timestamp(2)",
            "'2026-01-31 13:05+01'::timestamptz",
            "'1 year -3 days 5 s'::interval",
        ),
        *(
            "'44 BC'::text::name",
            "gen_random_uuid() IS NULL",
            "'{\"a\": [1, 1.5]}'::jsonb",
            "'[1]'::json",
        ),
        *(
            "ARRAY[1, NULL]",
            "ARRAY[['a', 'b']]",
            "'{}'::int[]",
            "'[1,5)'::int4range",
            "'{[1,2), [4,5)}'::int8multirange",
        ),
        *(
            "'10.0.0.1'::inet",
            "'10.0.0.0/8'::cidr",
            "'08:00:2b:01:02:03'::macaddr",
            "'(1,2)'::point",
            "5::oid",
            "B'101'",
        ),
        *(
            "ROW(1, 'x')",
            "ARRAY['2026-01-31'::date]",
            "'pg_class'::regclass",
            "NULL",
            "1e400::numeric",
            '\'"1"=>"2"\'::text',
        ),
    ]:
        cursor = connection.cursor()
        yield expression, attempt(cursor.execute, f"SELECT {expression} AS it, 1 AS two")
        if cursor.description is not None:
            yield [tuple(column) for column in cursor.description], cursor.description[0].name
            yield cursor.description[0].type_code, cursor.rowcount, cursor.statusmessage
            yield attempt(cursor.fetchall)
        cursor.close()
        connection.rollback()


def what_cannot_be_bound(connection: Any) -> Iterator[Any]:
    for value in ({"a": 1}, {1, 2}, object(), 1j, [1, "a"], "\0"):
        yield attempt(rows, connection, "SELECT 1, %s", (value,))[0]
        connection.rollback()
    for parameters in ((), (1, 2), {"a": 1}, "x"):
        yield attempt(rows, connection, "SELECT %s", parameters)
        connection.rollback()
    yield attempt(rows, connection, "SELECT '100%'"), attempt(rows, connection, "SELECT '100%%', %s", (1,))
    yield attempt(rows, connection, "SELECT '100%', %s", (1,))


def changes_and_counts(connection: Any) -> Iterator[Any]:
    cursor = connection.cursor()
    for statement, parameters in [
        (TABLE, None),
        ("INSERT INTO t (v, w) VALUES (%s, %s)", ("a", 1)),
        ("INSERT INTO t (v) VALUES ('b'), ('c')", None),
        ("UPDATE t SET w = 5", None),
        ("UPDATE t SET w = 5 WHERE false", None),
        ("SELECT * FROM t ORDER BY id", None),
        ("INSERT INTO t (v) VALUES ('a') ON CONFLICT DO NOTHING", None),
        ("INSERT INTO t (v) VALUES ('r') RETURNING id, v", None),
        ("DELETE FROM t WHERE v = %(v)s", {"v": "r"}),
        ("SELECT", None),
    ]:
        yield cursor.execute(statement, parameters) is cursor
        yield cursor.rowcount, cursor.rownumber, cursor.statusmessage, cursor.description is None
        yield attempt(cursor.fetchall), cursor.rownumber
    cursor.executemany("INSERT INTO t (v) VALUES (%s)", [(f"m{n}",) for n in range(2000)])
    yield cursor.rowcount, rows(connection, "SELECT count(*), sum(length(v)) FROM t")
    cursor.executemany("UPDATE t SET w = %s WHERE v = %s", ((n, f"m{n}") for n in range(5)))
    yield cursor.rowcount, attempt(cursor.fetchone)[0]
    connection.rollback()
    yield attempt(rows, connection, "SELECT count(*) FROM t")


def errors(connection: Any) -> Iterator[Any]:
    rows(connection, TABLE)
    rows(connection, "INSERT INTO t (v) VALUES ('a')")
    connection.commit()
    for statement in [
        "INSERT INTO t (v) VALUES ('a')",
        "SELECT * FROM nowhere",
        "SELEC 1",
        "INSERT INTO t (nothing) VALUES (1)",
        "INSERT INTO t (v) VALUES (repeat('x', 21))",
        "SELECT 1 / 0",
        "SELECT (SELECT generate_series(1, 2))",
        "DO $$ BEGIN RAISE EXCEPTION 'ä of ours' USING ERRCODE = 'PX001', HINT = 'h', DETAIL = 'd'; END $$",
        "COPY t FROM '/nowhere/at/all'",
    ]:
        try:
            rows(connection, statement)
        except psycopg.Error as error:
            told = error.diag
            yield (
                type(error),
                str(error),
                error.sqlstate,
                told.constraint_name,
                told.table_name,
                told.message_hint,
            )
            yield told.message_primary, told.message_detail, told.severity, told.statement_position
        yield connection.info.transaction_status, attempt(rows, connection, "SELECT 1")
        connection.rollback()
        yield connection.info.transaction_status
    # In a savepoint an error is undone alone.
    rows(connection, "INSERT INTO t (v) VALUES ('b')")
    rows(connection, "SAVEPOINT one")
    yield attempt(rows, connection, "INSERT INTO t (v) VALUES ('a')")
    rows(connection, "ROLLBACK TO one")
    connection.commit()
    yield rows(connection, "SELECT v FROM t ORDER BY v")


def fetching(connection: Any) -> Iterator[Any]:
    cursor = connection.cursor()
    yield attempt(cursor.fetchone), cursor.rownumber
    cursor.execute(NUMBERS)
    yield cursor.fetchone(), cursor.fetchmany(), cursor.fetchmany(3)
    cursor.arraysize = 7
    yield cursor.fetchmany(), next(cursor), cursor.rownumber
    cursor.scroll(3)
    cursor.scroll(50, "absolute")
    yield (
        cursor.fetchone(),
        attempt(cursor.scroll, 9000),
        attempt(cursor.scroll, 1, "sideways"),
        cursor.rownumber,
    )
    yield len(cursor.fetchall()), cursor.fetchone(), cursor.fetchmany(2), cursor.fetchall(), list(cursor)
    # Statements between the rows of another one, on the same connection.
    cursor.execute("SELECT i FROM generate_series(1, 900) AS i")
    yield [(row, rows(connection, "SELECT %s + 1", (row[0],))) for row in cursor]
    cursor.execute("SELECT 1 WHERE false")
    yield cursor.rowcount, cursor.fetchone(), cursor.fetchall()
    yield sum(row[0] for row in cursor.stream(NUMBERS))
    with connection.cursor(name="named") as named:
        named.execute("SELECT i FROM generate_series(1, 300) AS i")
        yield named.fetchone(), named.fetchmany(3), len(named.fetchall())
    cursor.close()
    yield attempt(cursor.fetchone), attempt(cursor.execute, "SELECT 1"), attempt(cursor.close), cursor.closed


def factories(connection: Any) -> Iterator[Any]:
    for factory in (dict_row, namedtuple_row, scalar_row, class_row(_Pair)):
        cursor = connection.cursor(row_factory=factory)
        yield cursor.execute("SELECT 1 AS a, 'x' AS b").fetchall()
    connection.row_factory = dict_row
    yield connection.execute("SELECT 1 AS a").fetchone()
    query = sql.SQL("SELECT {} AS {}").format(sql.Literal("it's"), sql.Identifier('a "b'))
    yield connection.execute(query).fetchone(), connection.execute(b"SELECT 1 AS a").fetchone()


def transactions(connection: Any) -> Iterator[Any]:
    rows(connection, TABLE)
    connection.commit()
    with connection.transaction() as outer:
        rows(connection, "INSERT INTO t (v) VALUES ('a')")
        with connection.transaction(force_rollback=True):
            rows(connection, "INSERT INTO t (v) VALUES ('b')")
        with connection.transaction():
            rows(connection, "INSERT INTO t (v) VALUES ('c')")
            _undo()
        try:
            with connection.transaction("mine"):
                rows(connection, "INSERT INTO t (v) VALUES ('a')")
        except psycopg.errors.UniqueViolation as error:
            yield str(error)
        yield attempt(connection.commit)[0], attempt(connection.rollback)[0]
        yield rows(connection, "SELECT v FROM t ORDER BY v"), outer.savepoint_name
    yield connection.info.transaction_status
    with connection.transaction() as outer, connection.transaction():
        rows(connection, "INSERT INTO t (v) VALUES ('d')")
        _undo(outer)
    for statement in [
        "INSERT INTO t (v) VALUES ('e')",
        "SAVEPOINT x",
        "ROLLBACK",
        "INSERT INTO t (v) VALUES ('f')",
        "COMMIT",
    ]:
        yield attempt(rows, connection, statement)
        yield connection.info.transaction_status
    yield rows(connection, "SELECT v FROM t ORDER BY v")
    yield attempt(setattr, connection, "autocommit", True)
    connection.rollback()
    connection.autocommit = True
    yield (
        connection.autocommit,
        rows(connection, "INSERT INTO t (v) VALUES ('g')"),
        connection.info.transaction_status,
    )
    connection.rollback()
    rows(connection, "BEGIN")
    rows(connection, "INSERT INTO t (v) VALUES ('h')")
    connection.rollback()
    yield rows(connection, "SELECT v FROM t ORDER BY v")
    connection.autocommit = False
    for level in [*IsolationLevel, None]:
        connection.isolation_level = level
        yield connection.isolation_level, rows(connection, "SHOW transaction_isolation")
        connection.rollback()
    connection.read_only = True
    connection.deferrable = True
    yield rows(connection, "SHOW transaction_read_only"), rows(connection, "SHOW transaction_deferrable")
    yield attempt(rows, connection, "INSERT INTO t (v) VALUES ('i')")


def _undo(block: Any = None) -> None:
    raise Rollback(block)


def deferred_constraints(connection: Any) -> Iterator[Any]:
    rows(connection, "CREATE TABLE d (a INTEGER UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    connection.commit()
    rows(connection, "INSERT INTO d VALUES (1), (1)")
    yield attempt(connection.commit), connection.info.transaction_status
    yield rows(connection, "SELECT * FROM d")


def blocks(connection: Any) -> Iterator[Any]:
    with connection as same:
        yield same is connection
        rows(connection, TABLE)
    yield connection.closed
    for use in (
        connection.commit,
        connection.rollback,
        connection.cursor,
        lambda: connection.execute("SELECT 1"),
    ):
        yield attempt(use)


PROGRAMS = [
    *(
        every_kind_of_value,
        columns_of_every_type,
        what_cannot_be_bound,
        changes_and_counts,
        errors,
        fetching,
        factories,
    ),
    *(transactions, deferred_constraints, blocks),
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_does_the_same_with_psycopg(
    program: Program, postgresql_url: str, postgresql: Server
) -> None:
    address = make_url(postgresql_url).set(drivername="postgresql")
    with closing(psycopg.connect(address.render_as_string(hide_password=False))) as driver:
        wanted = said(program, driver)
    with database_on(postgresql) as url, served(url), closing(postgresql_over_channel.connect()) as channel:
        assert said(program, channel) == wanted
