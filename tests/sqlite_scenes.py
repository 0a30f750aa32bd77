"""What a program does with a connection of `sqlite3`'s kind, scene by scene: played on the driver and on what stands for it.

A scene yields what each call returned and left; what it raised is a `Raised`, which whoever promises the exception's
type alone compares by that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

Scene: TypeAlias = Callable[[Any], Iterator[Any]]

TABLE: Final = "CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE, w)"
NUMBERS: Final = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) SELECT i, 'x' || i FROM n"


class Raised(NamedTuple):
    """An exception, as the other side's is compared with it."""

    kind: str
    text: str
    code: str | None


def attempt(what: Callable[..., Any], *arguments: Any) -> Any:
    """What it returned, or what it raised."""
    try:
        return what(*arguments)
    except Exception as error:  # noqa: BLE001 - compared
        return Raised(type(error).__name__, str(error), getattr(error, "sqlite_errorname", None))


def kinds(found: Any) -> Any:
    """The same, of exceptions the type alone."""
    if isinstance(found, Raised):
        return found.kind
    return tuple(map(kinds, found)) if type(found) is tuple else found


def execute(connection: Any, statement: str, parameters: Any = ()) -> Any:
    """What the statement gives: its columns."""
    return connection.execute(statement, parameters).description


def every_kind_of_value(connection: Any) -> Iterator[Any]:
    for value in [
        None, 0, -1, 2**63 - 1, -(2**63), 1.5, float("inf"), float("nan"), "", "ä\0ü", b"", b"\0\xff", True, bytearray(b"x"), "😀",
    ]:  # fmt: skip
        row = connection.execute("SELECT ?, typeof(?)", (value, value)).fetchone()
        yield repr(row), [type(column) for column in row]
    yield connection.execute("SELECT :a, :b, :a", {"a": 1, "b": "x", "unused": 0}).fetchall()


def parameters_that_do_not_fit(connection: Any) -> Iterator[Any]:
    for parameters in ((), (1, 2), {"a": 1}):
        yield attempt(execute, connection, "SELECT ?", parameters)
    yield attempt(execute, connection, "SELECT :a", {"b": 1})


def changes(connection: Any) -> Iterator[Any]:
    cursor = connection.cursor()
    for sql, parameters in [
        (TABLE, ()),
        ("INSERT INTO t (v, w) VALUES (?, ?)", ("a", 1)),
        ("INSERT INTO t (v) VALUES ('b'), ('c')", ()),
        ("UPDATE t SET w = 5", ()),
        ("UPDATE t SET w = 5 WHERE 0", ()),
        ("SELECT * FROM t ORDER BY id", ()),
        ("INSERT OR IGNORE INTO t (v) VALUES ('a')", ()),
        ("REPLACE INTO t (id, v) VALUES (7, 'a')", ()),
        ("DELETE FROM t WHERE id = 7", ()),
        ("  -- a comment\n DELETE FROM t WHERE id = 2", ()),
    ]:
        cursor.execute(sql, parameters)
        yield cursor.description, cursor.rowcount, connection.in_transaction
        if "INSERT" in sql or "REPLACE" in sql:
            yield cursor.lastrowid
        if cursor.description:
            yield cursor.fetchall()
    cursor.executemany("INSERT INTO t (v) VALUES (?)", [(n,) for n in range(12_000)])
    yield cursor.rowcount
    cursor.executemany("INSERT INTO t (v) VALUES (?)", iter(()))
    yield cursor.rowcount
    connection.rollback()
    yield connection.execute("SELECT count(*) FROM t").fetchone(), connection.in_transaction


def returning(connection: Any) -> Iterator[Any]:
    connection.execute(TABLE)
    cursor = connection.execute("INSERT INTO t (v) VALUES (1), (2), (3) RETURNING id, v * 2 AS twice")
    yield cursor.description, cursor.fetchall()
    connection.commit()
    yield connection.execute("DELETE FROM t RETURNING id").fetchall()
    connection.commit()
    yield connection.execute("SELECT count(*) FROM t").fetchone()


def errors(connection: Any) -> Iterator[Any]:
    connection.execute(TABLE)
    connection.execute("INSERT INTO t (v) VALUES (1)")
    connection.commit()
    for sql in [
        "INSERT INTO t (v) VALUES (1)", "SELECT * FROM nowhere", "SELEC 1", "INSERT INTO t (nothing) VALUES (1)",
        "SELECT 1; SELECT 2", "SELECT json('{')", "COMMIT", "ROLLBACK", "SAVEPOINT",
    ]:  # fmt: skip
        yield sql, attempt(execute, connection, sql)
        connection.rollback()
    # Some calculate the first row at once, some when it is asked for.
    yield attempt(lambda: connection.execute("SELECT abs(-9223372036854775808)").fetchall())
    yield attempt(connection.executemany, "INSERT INTO t (v) VALUES (?)", [(2,), (1,)])
    yield connection.in_transaction
    connection.rollback()
    yield connection.execute("SELECT count(*) FROM t").fetchone()


def fetching(connection: Any) -> Iterator[Any]:
    cursor = connection.execute(NUMBERS)
    yield cursor.fetchone(), cursor.fetchmany(), cursor.fetchmany(3), cursor.description, cursor.rowcount
    cursor.arraysize = 7
    yield cursor.fetchmany(), next(cursor), len(cursor.fetchmany(50_000))
    yield len(cursor.fetchall()), cursor.fetchone(), cursor.fetchmany(2), cursor.fetchall(), list(cursor)
    yield sum(row[0] for row in connection.execute(NUMBERS))
    # Two results at once, and a statement between their rows.
    outer = connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT i FROM n"
    )
    yield [(row, connection.execute("SELECT ? + 1", row).fetchone()) for row in outer]
    cursor.execute("SELECT 1 WHERE 0")
    yield cursor.description, cursor.fetchone(), cursor.fetchall()


def transactions(connection: Any) -> Iterator[Any]:
    connection.execute(TABLE)
    yield connection.in_transaction
    with connection:
        connection.execute("INSERT INTO t (v) VALUES (1)")
        yield connection.in_transaction
    yield connection.in_transaction

    def failing() -> None:
        with connection:
            connection.execute("INSERT INTO t (v) VALUES (2)")
            connection.execute("INSERT INTO t (v) VALUES (1)")

    yield attempt(failing), connection.in_transaction
    for sql in [
        "BEGIN", "INSERT INTO t (v) VALUES (3)", "BEGIN", "SAVEPOINT a", "INSERT INTO t (v) VALUES (4)", "SAVEPOINT b",
        "INSERT INTO t (v) VALUES (5)", "ROLLBACK TO b", "RELEASE a", "RELEASE nobody", "END",
        "BEGIN IMMEDIATE TRANSACTION", "DELETE FROM t", "ROLLBACK", "BEGIN", "COMMIT", "CREATE TABLE other (x)",
        "WITH x AS (SELECT 9 AS v) INSERT INTO t (v) SELECT v FROM x",
    ]:  # fmt: skip
        yield sql, attempt(execute, connection, sql), connection.in_transaction
        yield connection.execute("SELECT v FROM t ORDER BY id").fetchall()


def a_result_across_a_commit(connection: Any) -> Iterator[Any]:
    connection.execute(TABLE)
    connection.executemany("INSERT INTO t (v) VALUES (?)", ((n,) for n in range(30_000)))
    connection.commit()
    cursor = connection.execute("SELECT v FROM t ORDER BY v")
    yield cursor.fetchmany(3)
    connection.execute("UPDATE t SET w = 1")
    inside = connection.execute("SELECT v, w FROM t ORDER BY v")
    yield inside.fetchone()
    connection.commit()
    yield sum(v for (v,) in cursor)
    yield attempt(lambda: sum(v * w for v, w in inside))


#: On all that stands for the driver.
SCENES: Final[list[Scene]] = [
    every_kind_of_value,
    parameters_that_do_not_fit,
    changes,
    returning,
    errors,
    fetching,
    transactions,
]
