"""What the channel adds to the driver of SQLite: chunks, shared connections, and words for statements that cannot cross."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from penstock.channels.db import parting
from penstock.channels.db.calls import CHUNK_BYTES
from penstock.channels.dbapi import sqlite
from penstock.channels.dbapi.link import attach, current, detach
from penstock.channels.dbapi.sqlite.session import Session
from tests.channels.dbapi.crossings import Crossings
from tests.channels.dbapi.served import ROWS, Served, count, served


def test_nothing_crosses_before_the_first_statement_and_commits_only_when_there_is_something(
    table: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    crossings = Crossings(monkeypatch)
    connection = sqlite.connect()
    connection.begin()
    connection.commit()
    connection.rollback()
    connection.close()
    assert crossings.methods == []
    connection = sqlite.connect()
    connection.begin()
    connection.execute("INSERT INTO t (v) VALUES (1)")
    connection.commit()
    connection.commit()
    assert crossings.methods == ["run", "commit"]


def test_executemany_crosses_once(table: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    crossings = Crossings(monkeypatch)
    with sqlite.connect() as connection:
        cursor = connection.executemany("INSERT INTO t (v) VALUES (?)", ((n,) for n in range(20_000)))
    assert cursor.rowcount == 20_000
    assert crossings.methods == ["run", "commit"]


def test_an_insert_that_inserted_nothing_knows_no_row_of_somebody_else_s(table: Served) -> None:
    table.worker("slot 2").execute("INSERT INTO t (id, v) VALUES (70, 'theirs')")
    for isolation_level in (None, ""):
        with closing(sqlite.connect(isolation_level=isolation_level)) as connection:
            for ending in ("", " RETURNING id"):
                cursor = connection.execute(f"INSERT OR IGNORE INTO t (v) VALUES ('theirs'){ending}")
                assert cursor.lastrowid is None
            assert connection.execute("INSERT INTO t (v) VALUES ('mine')").lastrowid == 71
            assert connection.execute("INSERT INTO t (v) VALUES (1), (2) RETURNING id").lastrowid == 73
            connection.execute("DELETE FROM t WHERE id > 70")


def test_more_parameters_than_a_frame_holds_cross_in_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(tmp_path / "app.db", frame_bytes=64 * 1024):
        with sqlite.connect() as connection:
            connection.execute("CREATE TABLE t (v)")
            crossings = Crossings(monkeypatch)
            cursor = connection.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 500)
            assert cursor.rowcount == 500
            assert 8 < len(crossings.methods) < 30
        with pytest.raises(sqlite3.DataError, match=r"limits\.frame_bytes"):
            connection.execute("INSERT INTO t VALUES (?)", ("x" * 70_000,))
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (500,)


@pytest.mark.parametrize("options", [{"isolation_level": None}, {"autocommit": True}])
def test_executemany_in_autocommit_keeps_all_rows_or_none_however_often_it_crosses(
    table: Served, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(parting, "_MANY", 10)
    with closing(sqlite.connect(**options)) as connection:
        assert (
            connection.executemany("INSERT INTO t (id) VALUES (?)", [(n,) for n in range(25)]).rowcount == 25
        )
        with pytest.raises(sqlite3.IntegrityError):
            connection.executemany("INSERT INTO t (id) VALUES (?)", [(n % 24 + 100,) for n in range(25)])
        assert not connection.in_transaction
        assert connection.execute("SELECT count(*), max(id) FROM t").fetchone() == (25, 24)


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_large_result_comes_in_chunks_when_asked_for(
    table: Served, monkeypatch: pytest.MonkeyPatch, in_transaction: bool
) -> None:
    crossings = Crossings(monkeypatch)
    connection = sqlite.connect()
    if in_transaction:
        connection.begin()
    cursor = connection.execute(ROWS.format(100_000))
    assert cursor.fetchone()[0] == 1
    assert crossings.methods == ["run"]
    assert [row[0] for row in cursor] == list(range(2, 100_001))
    assert 25 <= crossings.methods.count("fetch") <= 60
    assert crossings.largest <= CHUNK_BYTES * 1.5
    # Nothing is left to close.
    connection.close()
    assert crossings.methods.count("drop") == 0


def test_a_row_beyond_a_frame_is_refused_and_many_that_fit_are_not(tmp_path: Path) -> None:
    with served(tmp_path / "app.db", frame_bytes=64 * 1024):
        connection = sqlite.connect()
        with pytest.raises(sqlite3.DataError, match=r"limits\.frame_bytes"):
            connection.execute("SELECT zeroblob(65536)")
        # Rows that grow: what was read ahead and does not fit waits for its turn.
        sizes = [*([10] * 300), *([40_000] * 30), 5]
        connection.execute("CREATE TABLE b (size)")
        connection.executemany("INSERT INTO b VALUES (?)", [(size,) for size in sizes])
        connection.commit()
        found = [len(blob) for (blob,) in connection.execute("SELECT zeroblob(size) FROM b ORDER BY rowid")]
        assert found == sizes


def test_a_write_is_seen_while_an_older_result_is_half_read(table: Served) -> None:
    connection = sqlite.connect()
    connection.executemany("INSERT INTO t (v) VALUES (?)", [("x" * 1000 + str(n),) for n in range(2000)])
    connection.commit()
    older = connection.execute("SELECT * FROM t")
    older.fetchone()
    connection.execute("INSERT INTO t (v) VALUES ('new')")
    connection.commit()
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (2001,)
    assert len(older.fetchall()) == 1999


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


def test_writes_of_many_workers_in_autocommit_share_commits(table: Served) -> None:
    def write(slot: int) -> None:
        link = table.worker(f"slot {slot}").link
        connection = sqlite.Connection(Session(link), isolation_level=None, check_same_thread=False)
        for number in range(50):
            connection.execute("INSERT INTO t (v) VALUES (?)", (f"{slot} {number}",))

    threads = [threading.Thread(target=write, args=(slot,)) for slot in range(2, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count() == 300
    statistics = table.service.statistics()
    assert statistics is not None
    assert max(statistics.group_commits) > 1


def test_a_write_outside_a_transaction_gives_all_its_rows_and_is_committed(
    table: Served, database: Path
) -> None:
    connection = sqlite.connect(isolation_level=None)
    rows = connection.execute(
        f"INSERT INTO t (v) SELECT i FROM ({ROWS.format(30_000)}) RETURNING id"
    ).fetchall()
    assert len(rows) == 30_000
    with closing(sqlite3.connect(database)) as other:
        assert other.execute("SELECT count(*) FROM t").fetchone() == (30_000,)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE TEMP TABLE x (a)", "temporary tables"),
        ("CREATE TABLE temp.x (a)", "temporary tables"),
        ("ATTACH 'x' AS y", "the one file in database.url"),
        ("VACUUM", "with the service stopped"),
        ("PRAGMA foreign_keys = OFF", r"the \[database\] section"),
        ("PRAGMA synchronous = OFF", r"the \[database\] section"),
        ("PRAGMA user_version = 1; DROP TABLE t", "cannot be read"),
        ("SELECT load_extension('x')", "load_extension"),
        ("SAVEPOINT a; DROP TABLE t; SAVEPOINT b", "written alone"),
    ],
)
def test_statements_that_would_reach_others_are_refused(table: Served, statement: str, words: str) -> None:
    connection = sqlite.connect()
    with pytest.raises(sqlite3.NotSupportedError, match=words):
        connection.execute(statement)
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    assert connection.execute("PRAGMA foreign_keys = ON").fetchone() == (1,)


def test_only_a_worker_can_connect_and_only_to_its_database(service: Served) -> None:
    with pytest.raises(sqlite3.NotSupportedError, match=r"database\.url"):
        sqlite.connect("other.db")
    with pytest.raises(sqlite3.NotSupportedError, match="detect_types"):
        sqlite.connect(detect_types=sqlite.PARSE_DECLTYPES)
    link = current()
    detach(link)
    try:
        with pytest.raises(sqlite3.InterfaceError, match="no database channel in this process"):
            sqlite.connect()
    finally:
        attach(link)


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


@pytest.mark.parametrize("autocommit", [True, False])
def test_autocommit_is_that_of_python_3_12(table: Served, autocommit: bool) -> None:
    connection = sqlite.connect(autocommit=autocommit)
    assert connection.in_transaction is not autocommit
    connection.execute("INSERT INTO t (v) VALUES (1)")
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (int(autocommit),)
    connection.close()
