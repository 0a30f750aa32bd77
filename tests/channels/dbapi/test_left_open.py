"""What becomes of results and transactions that are left open, cut short, or in somebody else's way, on SQLite."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from penstock.channels.dbapi import sqlite
from penstock.channels.dbapi.sqlite.session import Session
from penstock.errors import DeadlineExceeded
from tests.channels.dbapi.served import ROWS, Served, count, served
from tests.soft_deadline import installed


def test_a_commit_ends_what_its_transaction_was_reading(table: Served) -> None:
    connection = sqlite.connect()
    connection.begin()
    cursor = connection.execute(ROWS.format(50_000))
    cursor.fetchone()
    connection.commit()
    with pytest.raises(sqlite3.OperationalError, match="fetch all rows before commit"):
        cursor.fetchall()
    connection.execute("SELECT 1")


def test_results_thrown_away_half_read_give_their_readers_back(table: Served) -> None:
    connection = sqlite.connect()
    for _ in range(50):
        connection.execute(ROWS.format(50_000)).fetchone()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    held = [connection.execute(ROWS.format(50_000)) for _ in range(16)]
    with pytest.raises(sqlite3.OperationalError, match="half read"):
        connection.execute("SELECT 1")
    held.pop().close()
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_reader_held_by_others_is_waited_for(tmp_path: Path) -> None:
    with served(tmp_path / "app.db", readers=1, wait_s=0.3) as service:
        other = service.worker("slot 2").link
        slow = sqlite.Connection(Session(other))
        half_read = slow.execute(ROWS.format(50_000))
        connection = sqlite.connect()
        with pytest.raises(sqlite3.OperationalError, match=r"database is locked: waited 0\.3 s") as raised:
            connection.execute("SELECT 1")
        assert raised.value.sqlite_errorcode == sqlite3.SQLITE_BUSY
        # Whoever holds one is not made to wait for another.
        assert slow.execute("SELECT 1").fetchone() == (1,)
        half_read.close()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_transaction_that_stood_idle_is_lost_and_stays_lost_until_a_rollback(tmp_path: Path) -> None:
    with served(tmp_path / "app.db", transaction_idle_s=0.05):
        connection = sqlite.connect()
        connection.execute("CREATE TABLE t (v)")
        connection.execute("INSERT INTO t VALUES (1)")
        # Another writer gets its turn: the first one is over.
        with closing(sqlite3.connect(tmp_path / "app.db")) as other:
            other.execute("INSERT INTO t VALUES (2)")
            other.commit()
        for _ in range(2):
            with pytest.raises(sqlite3.OperationalError, match="transaction_idle_s"):
                connection.execute("INSERT INTO t VALUES (3)")
        with pytest.raises(sqlite3.OperationalError, match="call rollback"):
            connection.commit()
        connection.rollback()
        connection.execute("INSERT INTO t VALUES (4)")
        connection.commit()
        assert connection.execute("SELECT v FROM t ORDER BY v").fetchall() == [(2,), (4,)]


def test_a_commit_after_an_idle_transaction_says_that_nothing_was_kept(tmp_path: Path) -> None:
    with served(tmp_path / "app.db", transaction_idle_s=0.05):
        connection = sqlite.connect()
        connection.execute("CREATE TABLE t (v)")
        connection.execute("INSERT INTO t VALUES (1)")
        with closing(sqlite3.connect(tmp_path / "app.db")) as other:
            other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="rolled back"):
            connection.commit()
        assert connection.execute("SELECT * FROM t").fetchall() == []


def test_two_transactions_of_one_worker_do_not_wait_for_each_other(table: Served) -> None:
    first, second = sqlite.connect(), sqlite.connect()
    first.execute("INSERT INTO t (v) VALUES (1)")
    began_s = time.monotonic()
    with pytest.raises(sqlite3.OperationalError, match="this worker holds the writer already"):
        second.execute("INSERT INTO t (v) VALUES (2)")
    second.isolation_level = None
    with pytest.raises(sqlite3.OperationalError, match="this worker holds the writer already"):
        second.execute("INSERT INTO t (v) VALUES (2)")
    assert time.monotonic() - began_s < 5
    first.commit()
    second.execute("INSERT INTO t (v) VALUES (2)")
    assert count() == 2


def test_a_connection_thrown_away_is_rolled_back(table: Served) -> None:
    connection = sqlite.connect()
    connection.execute("INSERT INTO t (v) VALUES (1)")
    connection.execute(ROWS.format(50_000))
    readers = [sqlite.connect() for _ in range(20)]
    for reader in readers[:-4]:
        reader.execute(ROWS.format(50_000))
    del connection, reader
    readers.clear()
    with sqlite.connect() as connection:
        connection.execute("INSERT INTO t (v) VALUES (2)")
    assert count() == 1


def test_what_a_message_leaves_open_is_rolled_back_at_its_end(table: Served) -> None:
    stub = table.worker("slot 2")
    left = sqlite.Connection(Session(stub.link))
    left.execute("INSERT INTO t (v) VALUES (1)")
    half_read = left.execute(ROWS.format(50_000))
    assert stub.in_transaction
    stub.reset()
    assert (stub.in_transaction, left.in_transaction) == (False, False)
    with pytest.raises(sqlite3.OperationalError, match="the rest of the result is gone"):
        half_read.fetchall()
    left.execute("INSERT INTO t (v) VALUES (2)")
    left.commit()
    assert count() == 1


def test_a_worker_that_dies_leaves_nothing(table: Served) -> None:
    stub = table.worker("slot 2")
    dying = sqlite.Connection(Session(stub.link))
    dying.execute("INSERT INTO t (v) VALUES (1)")
    dying.execute(ROWS.format(50_000))
    table.loop.call_soon_threadsafe(table.servers[-1].close)
    with sqlite.connect() as connection:
        connection.execute("INSERT INTO t (v) VALUES (2)")
    assert count() == 1


def test_a_statement_that_runs_is_ended_with_its_worker(table: Served) -> None:
    link = table.worker("slot 2").link
    server = table.servers[-1]
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"

    def run() -> None:
        with pytest.raises(Exception, match="closed"):
            sqlite.Connection(Session(link), check_same_thread=False).execute("INSERT INTO t (v) " + endless)

    thread = threading.Thread(target=run)
    thread.start()
    while "running" not in repr(table.service) and "transaction open" not in repr(table.service):
        time.sleep(0.001)
    table.loop.call_soon_threadsafe(server.close)
    thread.join()
    with sqlite.connect() as connection:
        connection.execute("INSERT INTO t (v) VALUES (2)")
    assert count() == 1


def test_a_deadline_inside_a_call_leaves_a_connection_that_wants_a_rollback(tmp_path: Path) -> None:
    with installed() as deadline, served(tmp_path / "app.db"):
        connection = sqlite.connect()
        connection.execute("CREATE TABLE t (v)")
        connection.execute("INSERT INTO t VALUES (1)")
        deadline.arm(0.05)
        with pytest.raises(DeadlineExceeded):
            connection.execute(
                "INSERT INTO t "
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"
            )
        with pytest.raises(sqlite3.OperationalError, match="roll back first"):
            connection.execute("SELECT 1")
        connection.rollback()
        connection.execute("INSERT INTO t VALUES (2)")
        connection.commit()
        assert connection.execute("SELECT v FROM t").fetchall() == [(2,)]


def test_another_thread_is_refused_unless_it_is_let_in(table: Served) -> None:
    caught: list[BaseException] = []
    kept, shared = sqlite.connect(), sqlite.connect(check_same_thread=False)

    def use(name: int) -> None:
        try:
            kept.execute("SELECT 1")
        except sqlite3.ProgrammingError as error:
            caught.append(error)
        for number in range(50):
            shared.execute("INSERT INTO t (v) VALUES (?)", (f"{name} {number}",))

    threads = [threading.Thread(target=use, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared.commit()
    assert len(caught) == 4
    assert count() == 200
