"""What a function does with the connection that it is lent costs nobody else anything, and what it returns comes or nothing is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import SQLProxy
from tests.proxy import functions

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT i, upper('row') FROM n"


@pytest.fixture
def proxy(path: Path) -> Iterator[SQLProxy]:
    """Of one reader, so that the next one finds what was left."""
    with SQLProxy(path, processes=1, wait_s=20, frame_bytes=1_000_000) as proxy:
        yield proxy


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize(
    "leave",
    [
        functions.leave_attributes,
        functions.leave_function,
        functions.leave_level,
        functions.leave_collation,
        functions.leave_no_authorizer,
    ],
)
def test_what_a_function_left_on_the_connection_is_gone_for_the_next(
    proxy: SQLProxy, leave: Callable[[Any], None], write: bool
) -> None:
    pids = [proxy.run(functions.pid, write=write)]
    proxy.run(leave, write=write)
    proxy.execute("INSERT INTO t (x) VALUES ('own')")
    assert proxy.run(functions.execute, "SELECT upper('text')", write=write) == ("TEXT",)
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        proxy.run(functions.execute, "CREATE TEMP TABLE x (y)", write=write)
    with pytest.raises(sqlite3.OperationalError, match="no such collation"):
        proxy.run(functions.execute, "SELECT x FROM t ORDER BY x COLLATE mess", write=write)
    assert proxy.run(functions.execute, "PRAGMA foreign_keys", write=write) == (1,)
    assert [proxy.run(functions.pid, write=write)] == pids


def test_a_function_that_leaves_nothing_costs_no_connection(proxy: SQLProxy) -> None:
    assert proxy.run(functions.identity) == proxy.run(functions.identity)
    assert proxy.run(functions.identity, write=True) == proxy.run(functions.identity, write=True)


def test_a_function_that_closes_its_connection_costs_nobody_anything(proxy: SQLProxy) -> None:
    pid = proxy.run(functions.pid)
    for _ in range(2):
        assert proxy.run(functions.read_and_close) == 1000
        assert proxy.run(functions.read_and_close_past_us) == 1000
        assert proxy.execute("SELECT count(*) FROM t") == [(1000,)]
    assert proxy.run(functions.pid) == pid


def test_a_function_that_writes_and_closes_its_connection_is_committed(proxy: SQLProxy) -> None:
    pid = proxy.run(functions.pid, write=True)
    assert proxy.run(functions.insert_and_close, -1, write=True) == -1
    with pytest.raises(
        sqlite3.OperationalError,
        match=r"the connection that the function was lent is closed.*nothing of it was",
    ):
        proxy.run(functions.insert_and_close_past_us, -2, write=True)
    proxy.execute("INSERT INTO t (x) VALUES (-3)")
    assert proxy.execute("SELECT x FROM t WHERE x < 0") == [(-1,), (-3,)]
    assert proxy.run(functions.pid, write=True) == pid


@pytest.mark.parametrize(
    "leave", [functions.leave_collation, functions.leave_level, functions.read_and_close]
)
def test_a_result_that_another_thread_still_reads_outlives_the_connection(
    proxy: SQLProxy, leave: Callable[[Any], None]
) -> None:
    connection = proxy.connect()
    rest = connection.execute(NUMBERS)
    assert rest.fetchone() == (1, "ROW")
    proxy.run(leave)
    assert proxy.execute("SELECT upper('x')") == [("X",)]
    rows = rest.fetchall()
    assert (len(rows), rows[-1]) == (99_999, (100_000, "ROW"))
    connection.close()


def test_what_a_function_returns_is_too_long_or_cannot_cross_before_the_commit(proxy: SQLProxy) -> None:
    words = r"too long for the proxy, 1000\d\d\d bytes where frame_bytes is 1000000; the function has run"
    with pytest.raises(sqlite3.DataError, match=f"{words}, and its transaction was rolled back"):
        proxy.run(functions.insert_and_return, -1, 1_000_000, write=True)
    with pytest.raises(sqlite3.DataError, match=f"{words}: return less"):
        proxy.run(functions.zeros, 1_000_000)
    with pytest.raises(
        TypeError, match=r"cannot cross.*the function has run, and its transaction was rolled back"
    ):
        proxy.run(functions.insert_and_return_an_object, -2, write=True)
    assert len(proxy.run(functions.insert_and_return, -3, 999_000, write=True)) == 999_000
    assert proxy.execute("SELECT x FROM t WHERE x < 0") == [(-3,)]


def test_a_function_that_catches_what_undid_its_transaction_commits_nothing_half(proxy: SQLProxy) -> None:
    proxy.execute("CREATE UNIQUE INDEX one_x ON t (x)")
    work = [
        "INSERT INTO t (x) VALUES (-1)",
        "INSERT OR ROLLBACK INTO t (x) VALUES (1)",
        "INSERT INTO t (x) VALUES (-2)",
    ]
    for function in (functions.catch, functions.catch_by_shortcut):
        with pytest.raises(sqlite3.OperationalError, match=r"by SQLite itself.*nothing of it was committed"):
            proxy.run(function, *work, write=True)
        assert proxy.execute("SELECT x FROM t WHERE x < 0") == []
    proxy.run(functions.catch, "INSERT INTO t (x) VALUES (-3)", "INSERT INTO t (x) VALUES (1)", write=True)
    assert proxy.execute("SELECT x FROM t WHERE x < 0") == [(-3,)]


@pytest.mark.parametrize(
    "sql", ["INSERT INTO t (x) VALUES (-1) {}", "WITH n AS (SELECT 1) INSERT INTO t (x) VALUES (-1) {}"]
)
def test_a_row_that_is_too_long_to_be_returned_is_not_inserted(proxy: SQLProxy, sql: str) -> None:
    with pytest.raises(sqlite3.DataError, match=r"a row is too long.*the statement was rolled back"):
        proxy.execute(sql.format("RETURNING zeroblob(2000000)"))
    assert proxy.execute("SELECT count(*) FROM t") == [(1000,)]
    assert proxy.execute(sql.format("RETURNING x")) == [(-1,)]
    with proxy.transaction() as tx:
        with pytest.raises(sqlite3.DataError, match=r"the statement has run, and its transaction goes on"):
            tx.execute(sql.format("RETURNING zeroblob(2000000)"))
        tx.execute(sql.format(""))
    assert proxy.execute("SELECT count(*) FROM t") == [(1003,)]
