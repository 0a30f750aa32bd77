"""The same programs on `sqlite3` and over the channel: what each call returned, raised and left must be equal."""

from __future__ import annotations

import datetime as dt
import enum
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from penstock.channels.dbapi import sqlite
from tests.channels.dbapi.served import served
from tests.sqlite_scenes import SCENES, TABLE, Scene, attempt


class _Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __conform__(self, protocol: object) -> str | None:
        return f"({self.x})" if protocol is sqlite3.PrepareProtocol else None


class _Number(enum.IntEnum):
    SEVEN = 7


def values_of_other_types(connection: Any) -> Iterator[Any]:
    for value in (memoryview(b"yz"), _Number.SEVEN, _Point(3)):
        yield connection.execute("SELECT ?, typeof(?)", (value, value)).fetchone()


def what_cannot_be_bound(connection: Any) -> Iterator[Any]:
    for value in (object(), [1], {1: 2}, 2**63, "\ud800", 1j):
        yield attempt(connection.execute, "SELECT 1, ?", (value,))
    for parameters in ((), (1, 2), {"a": 1}, None, 5, {1}, iter([1]), "x", "xy"):
        yield attempt(rows, connection, "SELECT ?", parameters)
    yield attempt(lambda: connection.execute("SELECT :a", {"b": 1}))
    yield attempt(lambda: connection.execute("SELECT :a", (1,)).fetchall())


def counts(connection: Any) -> Iterator[Any]:
    connection.execute(TABLE)
    for statement in (
        "INSERT INTO t (v) VALUES (1), (2), (3) RETURNING id",
        "UPDATE t SET w = 5 RETURNING id",
        "INSERT OR IGNORE INTO t (v) VALUES (1)",
        "DELETE FROM t WHERE v = 1",
    ):
        cursor = connection.execute(statement)
        yield cursor.fetchall(), cursor.rowcount, connection.total_changes
    many = connection.executemany("INSERT INTO t (v) VALUES (?)", [(n,) for n in range(10, 20)])
    yield many.rowcount, connection.total_changes


def no_statements(connection: Any) -> Iterator[Any]:
    for statement in ("", "-- nothing", ";"):
        yield attempt(rows, connection, statement)
    yield attempt(lambda: connection.execute(5))
    yield attempt(lambda: connection.executemany("SELECT ?", [(1,)]))


def a_savepoint_that_is_the_transaction(connection: Any) -> Iterator[Any]:
    connection.execute(TABLE)
    for statement in (
        *("SAVEPOINT s", "INSERT INTO t (v) VALUES (6)", "RELEASE S"),
        *("SAVEPOINT s", "INSERT INTO t (v) VALUES (7)", "ROLLBACK TO SAVEPOINT s", "ROLLBACK"),
    ):
        yield attempt(rows, connection, statement), connection.in_transaction
    yield connection.execute("SELECT v FROM t ORDER BY id").fetchall()


def a_transaction_that_an_error_ends(connection: Any) -> Iterator[Any]:
    connection.execute(TABLE)
    connection.execute("INSERT INTO t (v) VALUES (1)")
    connection.commit()
    for statement in (
        "BEGIN IMMEDIATE TRANSACTION",
        "INSERT OR ROLLBACK INTO t (v) VALUES (1)",
        "INSERT INTO t (v) VALUES (8)",
    ):
        yield attempt(rows, connection, statement), connection.in_transaction
    connection.commit()
    yield connection.execute("SELECT v FROM t ORDER BY id").fetchall()


def rows_and_factories(connection: Any) -> Iterator[Any]:
    connection.row_factory = sqlite3.Row
    row = connection.execute("SELECT 1 AS a, 'x' AS \"B b\"").fetchone()
    yield type(row), row.keys(), row["A"], row["b B"], row[-1], tuple(row), len(row), dict(row)
    connection.row_factory = lambda cursor, row: {
        column[0]: v for column, v in zip(cursor.description, row, strict=True)
    }
    yield connection.execute("SELECT 1 AS a, 2 AS b").fetchall()
    connection.row_factory = None
    connection.text_factory = bytes
    yield connection.execute("SELECT 'ä', x'00ff', 1").fetchone()
    connection.text_factory = lambda raw: raw.decode("latin1")
    yield connection.execute("SELECT cast(x'e4' AS TEXT)").fetchone()
    connection.text_factory = str
    yield attempt(lambda: connection.execute("SELECT cast(x'e4' AS TEXT)").fetchone())


def isolation_levels(connection: Any) -> Iterator[Any]:
    connection.execute(TABLE)
    connection.execute("INSERT INTO t (v) VALUES (1)")
    connection.isolation_level = None
    yield connection.isolation_level, connection.in_transaction
    connection.execute("INSERT INTO t (v) VALUES (2)")
    yield connection.in_transaction
    connection.rollback()
    connection.isolation_level = "immediate"
    yield connection.isolation_level
    connection.execute("INSERT INTO t (v) VALUES (3)")
    yield connection.in_transaction
    connection.rollback()
    yield connection.execute("SELECT v FROM t").fetchall()
    yield attempt(lambda: setattr(connection, "isolation_level", "wrong"))
    yield attempt(lambda: setattr(connection, "isolation_level", 5))


def scripts_and_dumps(connection: Any) -> Iterator[Any]:
    script = """
        CREATE TABLE t (id INTEGER PRIMARY KEY, v); -- a; comment
        CREATE TRIGGER tr AFTER INSERT ON t BEGIN UPDATE t SET v = v || ';' WHERE id = new.id; END;
        INSERT INTO t (v) VALUES ('a;b');
        BEGIN; INSERT INTO t (v) VALUES ('c'); COMMIT;
        /* the last one without a semicolon */ INSERT INTO t (v) VALUES ('d')
    """
    yield connection.executescript(script).fetchall()
    yield connection.in_transaction, connection.execute("SELECT * FROM t").fetchall()
    yield list(connection.iterdump())
    yield attempt(
        lambda: connection.executescript(
            "INSERT INTO t (v) VALUES ('e'); SELEC; INSERT INTO t (v) VALUES ('f')"
        )
    )
    yield connection.execute("SELECT count(*) FROM t").fetchone()
    yield attempt(lambda: connection.executescript(b""))


def closed_things(connection: Any) -> Iterator[Any]:
    cursor = connection.execute("SELECT 1")
    cursor.close()
    cursor.close()
    yield attempt(cursor.fetchone)
    yield attempt(lambda: cursor.execute("SELECT 1"))
    other = connection.execute("SELECT 2")
    connection.close()
    connection.close()
    for use in (other.fetchone, connection.commit, connection.cursor, lambda: connection.execute("SELECT 1")):
        yield attempt(use)


def schema(connection: Any) -> Iterator[Any]:
    connection.execute("CREATE TABLE p (id INTEGER PRIMARY KEY)")
    connection.execute("CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p (id))")
    connection.execute("CREATE INDEX i ON c (p)")
    for pragma in (
        "table_info('c')",
        "foreign_key_list(c)",
        "index_list(c)",
        "main.table_xinfo(c)",
        "user_version",
    ):
        yield connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute("PRAGMA user_version = 7")
    yield connection.execute("PRAGMA user_version").fetchone()
    connection.execute("INSERT INTO p VALUES (1)")
    connection.execute("CREATE TABLE inside (a)")
    yield connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
    connection.rollback()
    yield connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()


def dates(connection: Any) -> Iterator[Any]:
    # With adapters of one's own: the driver's are deprecated.
    sqlite3.register_adapter(dt.timedelta, lambda value: value.total_seconds())
    try:
        yield connection.execute("SELECT ?", (dt.timedelta(minutes=1),)).fetchone()
    finally:
        del sqlite3.adapters[dt.timedelta, sqlite3.PrepareProtocol]


def rows(connection: Any, statement: str, parameters: Any = ()) -> Any:
    return connection.execute(statement, parameters).fetchall()


PROGRAMS: list[Scene] = [
    *SCENES,
    values_of_other_types,
    what_cannot_be_bound,
    counts,
    no_statements,
    a_savepoint_that_is_the_transaction,
    a_transaction_that_an_error_ends,
    rows_and_factories,
    isolation_levels,
    scripts_and_dumps,
    closed_things,
    schema,
    dates,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_does_the_same_on_both(program: Scene, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "driver.db")) as driver:
        wanted = [repr(value) for value in program(driver)]
    with served(tmp_path / "channel.db"), closing(sqlite.connect()) as channel:
        found = [repr(value) for value in program(channel)]
    assert found == wanted
