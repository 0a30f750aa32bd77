"""The same programs on `sqlite3` and over the channel: what each call returned, raised and left must be equal."""

from __future__ import annotations

import datetime as dt
import enum
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from penstock.channels.dbapi import sqlite
from tests.channels.dbapi.served import served

Program: TypeAlias = Callable[[Any], Iterator[Any]]
_TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE, w)"


class _Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __conform__(self, protocol: object) -> str | None:
        return f"({self.x})" if protocol is sqlite3.PrepareProtocol else None


class _Number(enum.IntEnum):
    SEVEN = 7


def _state(connection: Any, cursor: Any) -> tuple[Any, ...]:
    return (
        cursor.description,
        cursor.rowcount,
        cursor.lastrowid,
        connection.in_transaction,
        connection.total_changes,
    )


def every_kind_of_value(connection: Any) -> Iterator[Any]:
    values = [
        *(None, 0, -1, 2**63 - 1, -(2**63), 1.5, float("inf"), float("nan"), "", "ä\0ü", b"", b"\0\xff"),
        *(True, bytearray(b"x"), memoryview(b"yz"), _Number.SEVEN, _Point(3), "😀"),
    ]
    for value in values:
        yield connection.execute("SELECT ?, typeof(?)", (value, value)).fetchone()
    yield connection.execute("SELECT :a, :b, :a", {"a": 1, "b": "x", "unused": 0}).fetchall()


def what_cannot_be_bound(connection: Any) -> Iterator[Any]:
    for value in (object(), [1], {1: 2}, 2**63, "\ud800", 1j):
        yield attempt(connection.execute, "SELECT 1, ?", (value,))
    for parameters in ((), (1, 2), {"a": 1}, None, 5, {1}, iter([1]), "x", "xy"):
        yield attempt(rows, connection, "SELECT ?", parameters)
    yield attempt(lambda: connection.execute("SELECT :a", {"b": 1}))
    yield attempt(lambda: connection.execute("SELECT :a", (1,)).fetchall())


def changes_and_counts(connection: Any) -> Iterator[Any]:
    cursor = connection.cursor()
    for statement, parameters in [
        (_TABLE, ()),
        ("INSERT INTO t (v, w) VALUES (?, ?)", ("a", 1)),
        ("INSERT INTO t (v) VALUES ('b'), ('c')", ()),
        ("UPDATE t SET w = 5", ()),
        ("UPDATE t SET w = 5 WHERE 0", ()),
        ("SELECT * FROM t ORDER BY id", ()),
        ("INSERT OR IGNORE INTO t (v) VALUES ('a')", ()),
        ("REPLACE INTO t (id, v) VALUES (7, 'a')", ()),
        ("DELETE FROM t WHERE id = 7", ()),
    ]:
        cursor.execute(statement, parameters)
        lastrowid = (
            cursor.lastrowid if not statement.startswith(("UPDATE", "DELETE", "SELECT", "CREATE")) else 0
        )
        yield (
            cursor.description,
            cursor.rowcount,
            lastrowid,
            connection.in_transaction,
            connection.total_changes,
        )
        yield cursor.fetchall()
    cursor.executemany("INSERT INTO t (v) VALUES (?)", [(n,) for n in range(1000)])
    yield cursor.rowcount, connection.total_changes
    cursor.executemany("INSERT INTO t (v) VALUES (?)", iter(()))
    yield cursor.rowcount
    connection.rollback()
    yield connection.execute("SELECT count(*) FROM t").fetchone(), connection.in_transaction


def returning(connection: Any) -> Iterator[Any]:
    connection.execute(_TABLE)
    cursor = connection.execute("INSERT INTO t (v) VALUES (1), (2), (3) RETURNING id, v * 2 AS twice")
    yield cursor.description, cursor.fetchall(), cursor.rowcount
    connection.commit()
    yield connection.execute("DELETE FROM t RETURNING id").fetchall()
    connection.commit()
    yield connection.execute("SELECT count(*) FROM t").fetchone()


def errors(connection: Any) -> Iterator[Any]:
    connection.execute(_TABLE)
    connection.execute("INSERT INTO t (v) VALUES (1)")
    connection.commit()
    for statement in [
        "INSERT INTO t (v) VALUES (1)",
        "SELECT * FROM nowhere",
        "SELEC 1",
        "SELECT 1; SELECT 2",
        "INSERT INTO t (nothing) VALUES (1)",
        "SELECT abs(-9223372036854775808)",
        "",
        "-- nothing",
        ";",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT",
    ]:
        yield attempt(rows, connection, statement)
        connection.rollback()
    yield attempt(lambda: connection.execute(5))
    yield attempt(lambda: connection.executemany("SELECT ?", [(1,)]))
    yield attempt(lambda: connection.executemany("INSERT INTO t (v) VALUES (?)", [(2,), (1,)]))
    yield connection.in_transaction, connection.execute("SELECT count(*) FROM t").fetchone()


def fetching(connection: Any) -> Iterator[Any]:
    query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i, 'x' || i FROM n"
    cursor = connection.execute(query)
    yield cursor.fetchone(), cursor.fetchmany(), cursor.fetchmany(3)
    cursor.arraysize = 7
    yield cursor.fetchmany(), next(cursor)
    yield len(cursor.fetchall()), cursor.fetchone(), cursor.fetchmany(2), cursor.fetchall(), list(cursor)
    yield sum(row[0] for row in connection.execute(query))
    # Two results at once, and a statement between their rows.
    outer = connection.execute(query)
    yield [(row, connection.execute("SELECT ? + 1", (row[0],)).fetchone()) for row in outer]
    cursor.execute("SELECT 1 WHERE 0")
    yield cursor.description, cursor.fetchone(), cursor.fetchall()


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


def transactions(connection: Any) -> Iterator[Any]:
    connection.execute(_TABLE)
    yield connection.in_transaction
    with connection:
        connection.execute("INSERT INTO t (v) VALUES (1)")
        yield connection.in_transaction
    yield connection.in_transaction
    try:
        with connection:
            connection.execute("INSERT INTO t (v) VALUES (2)")
            connection.execute("INSERT INTO t (v) VALUES (1)")
    except sqlite3.IntegrityError as error:
        yield str(error), connection.in_transaction
    yield connection.execute("SELECT v FROM t").fetchall()
    for statement in [
        "BEGIN",
        "INSERT INTO t (v) VALUES (3)",
        "BEGIN",
        "SAVEPOINT a",
        "INSERT INTO t (v) VALUES (4)",
        "SAVEPOINT b",
        "INSERT INTO t (v) VALUES (5)",
        "ROLLBACK TO b",
        "RELEASE a",
        "RELEASE nobody",
        "END",
        "SAVEPOINT s",
        "INSERT INTO t (v) VALUES (6)",
        "RELEASE S",
        "SAVEPOINT s",
        "INSERT INTO t (v) VALUES (7)",
        "ROLLBACK TO SAVEPOINT s",
        "ROLLBACK",
        "BEGIN IMMEDIATE TRANSACTION",
        "INSERT OR ROLLBACK INTO t (v) VALUES (1)",
        "INSERT INTO t (v) VALUES (8)",
    ]:
        yield (
            attempt(rows, connection, statement),
            connection.in_transaction,
        )
    connection.commit()
    yield connection.execute("SELECT v FROM t ORDER BY id").fetchall()


def isolation_levels(connection: Any) -> Iterator[Any]:
    connection.execute(_TABLE)
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


def attempt(what: Callable[..., Any], *arguments: Any) -> Any:
    """What it returned, or what it raised."""
    try:
        result = what(*arguments)
    except Exception as error:  # noqa: BLE001 - compared
        return type(error), str(error), getattr(error, "sqlite_errorname", None)
    return result if isinstance(result, list | tuple | None) else "done"


PROGRAMS = [
    every_kind_of_value,
    what_cannot_be_bound,
    changes_and_counts,
    returning,
    errors,
    fetching,
    rows_and_factories,
    transactions,
    isolation_levels,
    scripts_and_dumps,
    closed_things,
    schema,
    dates,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_does_the_same_on_both(program: Program, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "driver.db")) as driver:
        wanted = [repr(value) for value in program(driver)]
    with served(tmp_path / "channel.db"), closing(sqlite.connect()) as channel:
        found = [repr(value) for value in program(channel)]
    assert found == wanted
