"""The same programs with PyMySQL and over the channel: what each call returned, raised and left must be equal."""
# ruff: noqa: DTZ001 - DATETIME has no zone

from __future__ import annotations

import datetime as dt
import enum
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any

import pymysql
import pytest
from pymysql.constants import CLIENT
from sqlalchemy import make_url

from penstock.channels.dbapi import mysql
from tests.channels.dbapi.programs import Program, attempt, rows, said
from tests.channels.dbapi.served import served
from tests.servers import Server, database_on

TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY AUTO_INCREMENT, v VARCHAR(20) UNIQUE, w INTEGER) CHARACTER SET utf8mb4"
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i, concat('x', i) FROM n"


class _Colour(enum.StrEnum):
    RED = "red"


class _Number(enum.IntEnum):
    SEVEN = 7


def every_kind_of_value(connection: Any) -> Iterator[Any]:
    for value in [
        *(
            None,
            True,
            False,
            0,
            -1,
            2**63 - 1,
            2**64 - 1,
            10**30,
            1.5,
            1e-300,
            "",
            "ä'\"\\%s\0\n",
            "😀",
            b"",
            b"\0\xff'",
        ),
        *(bytearray(b"x"), Decimal("1.10"), Decimal("-123456789012345678901234.5678"), uuid.UUID(int=7)),
        *(dt.date(2026, 1, 31), dt.datetime(2026, 1, 31, 13, 5), dt.datetime(2026, 1, 31, 13, 5, 0, 5)),
        *(
            dt.datetime(2026, 1, 31, tzinfo=dt.UTC),
            dt.time(1, 2, 3),
            dt.time(1, 2, 3, 4),
            dt.timedelta(hours=30),
        ),
        *(dt.timedelta(microseconds=-1), _Colour.RED, _Number.SEVEN, time.gmtime(0), object),
    ]:
        yield attempt(rows, connection, "SELECT %s", (value,))
    yield rows(connection, "SELECT %(a)s, %(b)s, %(a)s", {"a": 1, "b": "x", "unused": 0})
    yield rows(connection, "SELECT 1 IN %s, 'b' IN %s, %s", ([1, 2], ("a", "b"), "%s"))
    yield rows(connection, "SELECT (1, 2) IN %(a)s, 'ä' IN %(b)s, '%%s'", {"a": [(1, 2), [3, 4]], "b": {"ä"}})
    yield attempt(rows, connection, "SELECT 1 IN %s, %s", ([1],))
    yield attempt(rows, connection, "SELECT 1 IN %s", ([],))
    yield attempt(rows, connection, "SELECT %s", ([object],))
    yield rows(
        connection, "SELECT %s IN %s", ("\\'", ["\\'", b"\0'", Decimal("1.10"), None, dt.date(2026, 1, 31)])
    )


def many_rows(connection: Any) -> Iterator[Any]:
    rows(connection, "CREATE TABLE v (id INTEGER PRIMARY KEY, n INTEGER)")
    for statement, given in [
        ("INSERT INTO v VALUES (%s, %s IN %s)", [(1, 5, [5, 6]), (2, 5, (6,)), (3, "x", {"x"})]),
        (
            "INSERT INTO v VALUES (%(id)s, 'a' IN %(of)s)",
            [{"id": 4, "of": ["a", b"b"]}, {"id": 5, "of": "c"}],
        ),
        ("INSERT INTO v VALUES (%(id)s, 'a' IN %(of)s)", [{"id": 4, "of": ["a"]}, {"id": 5, "of": ["c"]}]),
        ("UPDATE v SET n = 9 WHERE id IN %s", [([1, 2],), ([3],)]),
        ("DELETE FROM v WHERE (id, n) IN %s", [([(1, 9), [2, 8]],), ([(3, 9)],)]),
        ("DELETE FROM v WHERE id IN %s", [([],)]),
        ("INSERT INTO v VALUES(%s, 7) ON DUPLICATE KEY UPDATE n = 17 %% 10", [(8,), (8,), (9,)]),
        (
            "INSERT INTO v VALUES (%(id)s, %(n)s)",
            [{"id": 10, "n": 1}, {"id": 10, "n": 2}, {"id": 11, "n": 1}],
        ),
        (
            "INSERT INTO v VALUES (%(id)s, 1 + %(n)s)",
            [{"id": 10, "n": 1}, {"id": 10, "n": 2}, {"id": 11, "n": 1}],
        ),
    ]:
        yield attempt(_many, connection, statement, given)
        yield rows(connection, "SELECT * FROM v ORDER BY id")


def _many(connection: Any, statement: str, given: list[Any]) -> Any:
    with closing(connection.cursor()) as cursor:
        return cursor.executemany(statement, given), cursor.rowcount


def columns_of_every_type(connection: Any) -> Iterator[Any]:
    types = [
        *(
            "b BOOLEAN",
            "i BIGINT UNSIGNED",
            "n NUMERIC(30, 10)",
            "f FLOAT",
            "g DOUBLE",
            "y YEAR",
            "d DATE",
            "t TIME(6)",
        ),
        *(
            "s DATETIME(6)",
            "p TIMESTAMP(3) NULL",
            "c CHAR(3)",
            "x TEXT",
            "r VARBINARY(9)",
            "l LONGBLOB",
            "j JSON",
        ),
        *("e ENUM('a', 'b')", "o SET('a', 'b')", "k BIT(9)"),
    ]
    rows(connection, f"CREATE TABLE v ({', '.join(types)})")
    values = [
        *(True, 2**64 - 1, Decimal("12345678901234567890.0123456789"), 0.1, 1e300, 2026, dt.date(1, 1, 1)),
        *(dt.timedelta(hours=-800, microseconds=1), dt.datetime(2026, 1, 31, 13, 5, 7, 999999)),
        *(dt.datetime(2026, 1, 31, 13, 5, 7, 123000), "abc", "ä" * 1000, b"\0\xff", b"\xff" * 70_000),
        *('{"a": [1, null, "ä"]}', "b", "a,b", b"\x01\x02"),
    ]
    insert = f"INSERT INTO v VALUES ({', '.join(['%s'] * len(values))})"
    rows(connection, insert, values)
    rows(connection, insert, [None] * len(values))
    with closing(connection.cursor()) as cursor:
        cursor.execute("SELECT * FROM v")
        yield cursor.description
        yield cursor.fetchall()
    for column in types:
        yield rows(connection, f"SELECT max({column[0]}), count(DISTINCT {column[0]}) FROM v")


def what_cannot_be_bound(connection: Any) -> Iterator[Any]:
    for value in ({"a": 1}, float("inf"), float("nan"), Decimal("NaN"), [1, {"a": 1}]):
        yield attempt(rows, connection, "SELECT 1, %s", (value,))
    for parameters in ((), (1, 2), {"a": 1}):
        yield attempt(rows, connection, "SELECT %s", parameters)
    yield attempt(rows, connection, "SELECT '100%'")
    yield attempt(rows, connection, "SELECT '100%%', %s", (1,))


def changes_and_counts(connection: Any) -> Iterator[Any]:
    cursor = connection.cursor()
    for statement, parameters in [
        (TABLE, None),
        ("INSERT INTO t (v, w) VALUES (%s, %s)", ("a", 1)),
        ("INSERT INTO t (v) VALUES ('b'), ('c')", None),
        ("UPDATE t SET w = 5", None),
        ("UPDATE t SET w = 5", None),
        ("UPDATE t SET w = 5 WHERE 0", None),
        ("SELECT * FROM t ORDER BY id", None),
        ("INSERT IGNORE INTO t (v) VALUES ('a')", None),
        ("INSERT INTO t (v) VALUES ('a') ON DUPLICATE KEY UPDATE w = 9", None),
        ("REPLACE INTO t (id, v) VALUES (7, 'a')", None),
        ("INSERT INTO t (v) VALUES ('r') RETURNING id, v", None),
        ("DELETE FROM t WHERE id = 7", None),
    ]:
        yield cursor.execute(statement, parameters)
        yield cursor.description, cursor.rowcount, cursor.lastrowid, cursor.rownumber
        yield list(cursor.fetchall()), cursor.rownumber
    yield cursor.executemany("INSERT INTO t (v) VALUES (%s)", [(f"m{n}",) for n in range(2000)])
    yield cursor.rowcount, rows(connection, "SELECT count(*), sum(length(v)) FROM t")
    yield cursor.executemany("UPDATE t SET w = %s WHERE v = %s", [(n, f"m{n}") for n in range(5)])
    yield cursor.executemany(
        "INSERT INTO t (v, w) VALUES (%(a)s, %(b)s)", [{"a": "n1", "b": 1}, {"a": "n2", "b": 2}]
    )
    yield cursor.executemany("INSERT INTO t (v) VALUES (%s)", [])
    connection.rollback()
    yield rows(connection, "SELECT count(*) FROM t")
    cursor.close()


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
        "INSERT INTO t (w) VALUES (99999999999)",
        "SELECT (SELECT i FROM (SELECT 1 AS i UNION SELECT 2) AS x)",
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'ä of ours', MYSQL_ERRNO = 1644",
        "",
    ]:
        yield attempt(rows, connection, statement)
    # A statement that fails is undone alone.
    rows(connection, "INSERT INTO t (v) VALUES ('b')")
    yield attempt(rows, connection, "INSERT INTO t (v) VALUES ('c'), ('a')")
    connection.commit()
    yield rows(connection, "SELECT v FROM t ORDER BY v")
    with closing(connection.cursor()) as cursor:
        yield attempt(cursor.fetchone)
        yield attempt(cursor.executemany, "INSERT INTO t (v) VALUES (%s)", [("d",), ("a",)])


def fetching(connection: Any) -> Iterator[Any]:
    cursor = connection.cursor()
    cursor.execute(NUMBERS)
    yield cursor.fetchone(), cursor.fetchmany(), cursor.fetchmany(3)
    cursor.arraysize = 7
    yield cursor.fetchmany(), next(cursor), cursor.rownumber
    cursor.scroll(3)
    cursor.scroll(50, "absolute")
    yield cursor.fetchone(), attempt(cursor.scroll, 5000), attempt(cursor.scroll, 1, "sideways")
    yield (
        len(cursor.fetchall()),
        cursor.fetchone(),
        list(cursor.fetchmany(2)),
        list(cursor.fetchall()),
        list(cursor),
    )
    # A statement between the rows of another one.
    cursor.execute(NUMBERS)
    yield [(row, rows(connection, "SELECT %s + 1", (row[0],))) for row in cursor]
    cursor.execute("SELECT 1 FROM dual WHERE 0")
    yield cursor.description, cursor.rowcount, cursor.fetchone(), list(cursor.fetchall())
    cursor.close()
    yield attempt(cursor.execute, "SELECT 1"), attempt(cursor.close)


def cursor_classes(connection: Any) -> Iterator[Any]:
    classes = pymysql.cursors if isinstance(connection, pymysql.Connection) else mysql.cursors
    for name in ("Cursor", "DictCursor", "SSCursor", "SSDictCursor"):
        with connection.cursor(getattr(classes, name)) as cursor:
            cursor.execute(
                "SELECT 1 AS a, 'x' AS b UNION SELECT 2, 'y' UNION SELECT 3, 'z' UNION SELECT 4, NULL"
            )
            yield (
                cursor.fetchone(),
                cursor.fetchmany(2),
                cursor.fetchall(),
                cursor.fetchone(),
                cursor.fetchmany(1),
            )
            cursor.execute("SELECT 1 AS a FROM dual WHERE 0")
            yield cursor.fetchall(), cursor.fetchmany()
    with connection.cursor(classes.SSCursor) as cursor:
        cursor.execute(NUMBERS)
        yield len(list(cursor.fetchall_unbuffered()))


def transactions(connection: Any) -> Iterator[Any]:
    rows(connection, TABLE)
    for statement in [
        *(
            "INSERT INTO t (v) VALUES ('a')",
            "SAVEPOINT one",
            "INSERT INTO t (v) VALUES ('b')",
            "ROLLBACK TO one",
        ),
        *(
            "INSERT INTO t (v) VALUES ('c')",
            "RELEASE SAVEPOINT one",
            "COMMIT",
            "BEGIN",
            "INSERT INTO t (v) VALUES ('d')",
        ),
        *("START TRANSACTION", "INSERT INTO t (v) VALUES ('e')", "ROLLBACK", "ROLLBACK TO SAVEPOINT nobody"),
    ]:
        yield attempt(rows, connection, statement)
        yield rows(connection, "SELECT v FROM t ORDER BY v")
    connection.rollback()
    connection.autocommit(True)
    yield connection.get_autocommit(), rows(connection, "INSERT INTO t (v) VALUES ('f')")
    connection.rollback()
    connection.begin()
    rows(connection, "INSERT INTO t (v) VALUES ('g')")
    connection.rollback()
    yield rows(connection, "SELECT v FROM t ORDER BY v")
    rows(connection, "SET autocommit=0")
    rows(connection, "INSERT INTO t (v) VALUES ('h')")
    connection.rollback()
    yield connection.get_autocommit(), rows(connection, "SELECT v FROM t ORDER BY v")
    connection.rollback()
    rows(connection, "SET TRANSACTION READ ONLY")
    yield attempt(rows, connection, "INSERT INTO t (v) VALUES ('i')")
    connection.rollback()
    yield rows(connection, "INSERT INTO t (v) VALUES ('j')")


def procedures(connection: Any) -> Iterator[Any]:
    rows(connection, "CREATE PROCEDURE p (a INTEGER, b VARCHAR(9)) SELECT a + 1, concat(b, '!')")
    with closing(connection.cursor()) as cursor:
        yield cursor.callproc("p", (1, "x")), list(cursor.fetchall())
    yield rows(connection, "SELECT 1")


def closed_things(connection: Any) -> Iterator[Any]:
    cursor = connection.cursor()
    yield connection.open
    connection.close()
    yield connection.open, attempt(connection.close)[0]
    for use in (connection.commit, connection.rollback, lambda: cursor.execute("SELECT 1")):
        yield attempt(use)[0]


PROGRAMS = [
    many_rows,
    *(
        every_kind_of_value,
        columns_of_every_type,
        what_cannot_be_bound,
        changes_and_counts,
        errors,
        fetching,
        cursor_classes,
    ),
    *(transactions, procedures, closed_things),
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_does_the_same_with_pymysql(program: Program, mariadb: Server) -> None:
    with database_on(mariadb) as first:
        url = make_url(first)
        driver = pymysql.connect(
            host=url.host,
            port=url.port or 0,
            user=url.username,
            password=str(url.password),
            database=url.database,
            # As SQLAlchemy has it, and the loop.
            client_flag=CLIENT.FOUND_ROWS,
        )
        try:
            wanted = said(program, driver)
        finally:
            if driver.open:
                driver.close()
    with database_on(mariadb) as second, served(second):
        channel = mysql.connect()
        try:
            found = said(program, channel)
        finally:
            if channel.open:
                channel.close()
    assert found == [text.replace(str(url.database), str(make_url(second).database)) for text in wanted]
