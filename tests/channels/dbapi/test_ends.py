"""What is left open over SQLite's channel: idle for too long, thrown away, cut short, or of a worker that has died."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from penstock.channels.dbapi import sqlite
from penstock.channels.dbapi.link import attach, detach
from penstock.channels.dbapi.sqlite.session import Session
from penstock.errors import DeadlineExceeded
from tests.channels.dbapi.served import ROWS, Served, count, served
from tests.soft_deadline import installed


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


def test_a_write_beside_the_message_s_own_transaction_is_refused_at_once(table: Served) -> None:
    stub = table.worker("slot 2")
    attach(stub.link)
    try:
        with stub.transaction() as tx:
            tx.execute("INSERT INTO t (v) VALUES ('kept')")
            for isolation_level in (None, ""):
                with closing(sqlite.connect(isolation_level=isolation_level)) as connection:
                    with pytest.raises(
                        sqlite3.OperationalError, match="this worker holds the writer already"
                    ):
                        connection.execute("INSERT INTO t (v) VALUES ('waits for itself')")
                    assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    finally:
        detach(stub.link)
    assert count() == 1


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
