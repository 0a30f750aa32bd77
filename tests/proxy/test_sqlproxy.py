"""Statements, transactions and functions through the proxy, from any thread."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from penstock import ConfigurationError, ProxyError, SQLProxy
from tests.proxy import functions


def test_nothing_is_started_before_it_is_needed_and_no_more_than_is(proxy: SQLProxy) -> None:
    connection = proxy.connect()
    assert proxy.pids == []

    assert proxy.execute("SELECT count(*) FROM t") == [(1000,)]
    assert len(proxy.pids) == 1
    for _ in range(5):
        proxy.execute("SELECT 1")
    assert len(proxy.pids) == 1

    proxy.execute("INSERT INTO t (x) VALUES (?)", (5,))
    assert len(proxy.pids) == 2
    connection.close()


def test_a_statement_gives_a_list_of_rows_and_is_committed(proxy: SQLProxy, path: Path) -> None:
    assert proxy.execute(
        "SELECT x, x * 0.5, 'ü', x'00ff', NULL FROM t WHERE x < :limit ORDER BY x", {"limit": 2}
    ) == [
        (0, 0.0, "ü", b"\x00\xff", None),
        (1, 0.5, "ü", b"\x00\xff", None),
    ]
    assert proxy.execute("INSERT INTO t (x) VALUES (?) RETURNING id, x", (7,)) == [(1001, 7)]
    assert proxy.execute("WITH one AS (SELECT 8 AS x) INSERT INTO t (x) SELECT x FROM one") == []
    assert proxy.execute("PRAGMA user_version = 3") == []
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT x FROM t WHERE id > 1000").fetchall() == [(7,), (8,)]
        assert other.execute("PRAGMA user_version").fetchone() == (3,)


def test_an_insert_that_inserted_nothing_knows_no_row_of_somebody_else_s(proxy: SQLProxy) -> None:
    proxy.execute("CREATE TABLE names (id INTEGER PRIMARY KEY, name UNIQUE)")
    proxy.execute("INSERT INTO names VALUES (70, 'theirs')")
    with closing(proxy.connect()) as connection:
        for row_id, ending in ((71, ""), (72, " RETURNING id")):
            cursor = connection.cursor()
            cursor.execute(f"INSERT OR IGNORE INTO names (name) VALUES ('theirs'){ending}")
            assert cursor.lastrowid is None
            cursor.execute(f"INSERT INTO names (name) VALUES ('mine{ending}'){ending}")
            assert cursor.lastrowid == row_id


def test_a_large_result_comes_whole(proxy: SQLProxy) -> None:
    sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000) SELECT i, 'row ' || i FROM n"
    rows = proxy.execute(sql)
    assert rows == [(i, f"row {i}") for i in range(1, 200_001)]


def test_many_rows_are_inserted_in_one_transaction(proxy: SQLProxy) -> None:
    assert proxy.executemany("INSERT INTO t (x) VALUES (?)", ((x,) for x in range(12_000))) == 12_000

    def source() -> Any:
        yield (1,)
        raise ValueError("the source is dry")

    with pytest.raises(ValueError, match="dry"):
        proxy.executemany("INSERT INTO t (x) VALUES (?)", source())
    assert proxy.execute("SELECT count(*) FROM t") == [(13_000,)]


def test_a_transaction_is_committed_at_its_end_and_rolled_back_when_it_raises(proxy: SQLProxy) -> None:
    with proxy.transaction() as tx:
        tx.execute("DELETE FROM t WHERE x >= ?", (10,))
        assert tx.execute("SELECT count(*) FROM t") == [(10,)]
        assert proxy.execute("SELECT count(*) FROM t") == [(1000,)]
        assert tx.executemany("INSERT INTO t (x) VALUES (?)", [(1,), (2,)]) == 2
    assert proxy.execute("SELECT count(*) FROM t") == [(12,)]

    with pytest.raises(KeyError), proxy.transaction() as tx:  # noqa: PT012 - the end of the block raises
        tx.execute("DELETE FROM t")
        raise KeyError
    assert proxy.execute("SELECT count(*) FROM t") == [(12,)]


def test_a_transaction_that_sqlite_itself_rolled_back_is_over(proxy: SQLProxy) -> None:
    proxy.execute("CREATE UNIQUE INDEX one_x ON t (x)")
    tx = proxy.transaction()
    tx.execute("INSERT INTO t (x) VALUES (-1)")
    with pytest.raises(sqlite3.IntegrityError):
        tx.execute("INSERT OR ROLLBACK INTO t (x) VALUES (1)")
    # Each of these alone would be committed at once.
    with pytest.raises(sqlite3.OperationalError, match="rolled back, by SQLite itself"):
        tx.execute("INSERT INTO t (x) VALUES (-2)")
    with pytest.raises(sqlite3.OperationalError, match="nothing of it was committed"):
        tx.end(commit=True)
    assert proxy.execute("SELECT count(*) FROM t") == [(1000,)]


def test_a_savepoint_lives_in_a_transaction(proxy: SQLProxy) -> None:
    with proxy.transaction() as tx:
        tx.execute("SAVEPOINT here")
        tx.execute("DELETE FROM t")
        tx.execute("ROLLBACK TO here")
        tx.execute("INSERT INTO t (x) VALUES (1)")
    assert proxy.execute("SELECT count(*) FROM t") == [(1001,)]


def test_a_failed_commit_is_told_and_undone(proxy: SQLProxy) -> None:
    proxy.execute("CREATE TABLE child (t INTEGER REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"), proxy.transaction() as tx:
        tx.execute("INSERT INTO child VALUES (-1)")
    assert proxy.execute("SELECT count(*) FROM child") == [(0,)]
    assert proxy.execute("INSERT INTO child VALUES (1)") == []


def test_threads_write_side_by_side_and_none_finds_the_file_locked(proxy: SQLProxy) -> None:
    def work(number: int) -> None:
        for step in range(25):
            if step % 5 == 0:
                with proxy.transaction() as tx:
                    (count,) = tx.execute("SELECT count(*) FROM t")[0]
                    tx.execute("INSERT INTO t (x) VALUES (?)", (count,))
            else:
                proxy.execute("INSERT INTO t (x) VALUES (?)", (number,))
            proxy.execute("SELECT max(x) FROM t")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert proxy.execute("SELECT count(*) FROM t") == [(1200,)]


def test_reads_run_in_as_many_processes_as_there_are(proxy: SQLProxy) -> None:
    together = threading.Barrier(2)

    def work() -> int:
        together.wait()
        proxy.run(functions.sleep, 0.3)
        return proxy.run(functions.pid)

    with ThreadPoolExecutor(2) as pool:
        pids = {future.result() for future in [pool.submit(work) for _ in range(2)]}
    assert len(proxy.pids) == 2
    assert pids <= set(proxy.pids)
    assert os.getpid() not in pids


def test_a_reader_cannot_write_and_a_function_may_when_it_says_so(proxy: SQLProxy) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        proxy.run(functions.insert, 1)
    assert proxy.run(functions.insert, 1, write=True) == 1
    with pytest.raises(ValueError, match="no 2"):
        proxy.run(functions.insert_and_fail, 2, write=True)
    assert proxy.execute("SELECT count(*) FROM t") == [(1001,)]


def test_a_function_reduces_rows_where_they_are(proxy: SQLProxy) -> None:
    assert proxy.run(functions.reduced, 998) == 998 + 999


def nested() -> Any:
    def inner(_connection: Any) -> None: ...

    return inner


class Holder:
    def method(self, _connection: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda _connection: 1, "a lambda has no name"),
        (nested(), "inside another function"),
        (Holder().method, "no plain function"),
        (print, "no plain function"),
    ],
)
def test_a_function_without_an_importable_name_is_refused(proxy: SQLProxy, function: Any, words: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"cannot run in a subprocess: .*{words}.*at the top of a module"
    ):
        proxy.run(function)
    assert proxy.pids == []


def test_a_function_of_the_main_module_is_refused(proxy: SQLProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions.same, "__module__", "__main__")
    with pytest.raises(ConfigurationError, match="main module, which a subprocess never imports"):
        proxy.run(functions.same, 1)


def test_a_function_that_another_one_hides_is_refused(
    proxy: SQLProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = functions.same
    monkeypatch.setattr(functions, "same", functions.pid)
    with pytest.raises(ConfigurationError, match=r"tests\.proxy\.functions\.same is something else"):
        proxy.run(hidden, 1)


def test_exceptions_are_the_driver_s_python_s_or_told_in_words(proxy: SQLProxy) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table: nowhere") as refused:
        proxy.execute("SELECT * FROM nowhere")
    assert "in the subprocess" in refused.value.__notes__[0]
    proxy.execute("CREATE UNIQUE INDEX one_x ON t (x)")
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE") as unique:
        proxy.execute("INSERT INTO t (x) VALUES (1)")
    assert unique.value.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE
    with pytest.raises(FileNotFoundError, match="not there"):
        proxy.run(functions.missing_file)
    with pytest.raises(ProxyError, match=r"tests\.proxy\.functions\.UnusualError: quite") as unusual:
        proxy.run(functions.unusual)
    assert unusual.value.type == "tests.proxy.functions.UnusualError"


def test_what_cannot_cross_is_refused_on_either_way(proxy: SQLProxy) -> None:
    with pytest.raises(sqlite3.ProgrammingError, match=r"cannot cross.*; nothing was run with it"):
        proxy.execute("SELECT ?", (object(),))
    with pytest.raises(TypeError, match=r"cannot cross.*; nothing was run with it"):
        proxy.run(functions.same, object())
    with pytest.raises(TypeError, match=r"cannot cross.*; the function has run: return something else"):
        proxy.run(functions.unreturnable)
    with pytest.raises(UnicodeEncodeError):
        proxy.execute("SELECT ?", ("\ud800",))
    assert proxy.run(functions.same, (1, [b"x"])) == (1, [b"x"])


@pytest.mark.parametrize("sql", ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT x", "end"])
def test_transaction_control_in_a_single_statement_is_refused(proxy: SQLProxy, sql: str) -> None:
    with pytest.raises(sqlite3.ProgrammingError, match=r"use proxy\.transaction\(\)"):
        proxy.execute(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH ':memory:' AS other", "DETACH main", "PRAGMA query_only = OFF", "PRAGMA foreign_keys = OFF", "CREATE TEMP TABLE x (y)",
        "CREATE TABLE temp.x (y)", "PRAGMA synchronous = OFF", "VACUUM INTO 'copy.db'", "SELECT load_extension('x')",
    ],
)  # fmt: skip
def test_what_would_stay_on_everybody_s_connection_is_refused(proxy: SQLProxy, sql: str) -> None:
    with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|denied|no such|cannot VACUUM"):
        proxy.execute(sql)
    with (
        pytest.raises(sqlite3.DatabaseError, match=r"not authorized|denied|no such|cannot VACUUM"),
        proxy.transaction() as tx,
    ):
        tx.execute(sql)


def test_vacuum_and_what_only_tells_are_allowed(proxy: SQLProxy) -> None:
    assert proxy.execute("VACUUM") == []
    assert proxy.execute("PRAGMA journal_mode") == [("wal",)]
    assert len(proxy.execute("PRAGMA TABLE_INFO(t)")) == 2
    assert proxy.execute("PRAGMA foreign_keys") == [(1,)]
    assert len(proxy.execute("PRAGMA table_info(t)")) == 2


@pytest.mark.parametrize("database", [":memory:", "", None, "file::memory:?cache=shared", "file:app.db"])
def test_a_database_that_processes_cannot_share_is_refused(database: str | None) -> None:
    with pytest.raises(ConfigurationError, match="would have a database of its own"):
        SQLProxy(database)


def test_options_and_drivers_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="does not take isolation_level"):
        SQLProxy("app.db", isolation_level="DEFERRED")
    with pytest.raises(ConfigurationError, match="no such module"):
        SQLProxy(driver="nosuchdriver")


def test_a_database_that_cannot_be_opened_says_so_to_whoever_asks(tmp_path: Path) -> None:
    with SQLProxy(tmp_path / "nowhere" / "app.db", processes=1) as proxy:
        for _ in range(3):
            with pytest.raises(sqlite3.OperationalError, match="unable to open database file") as refused:
                proxy.execute("SELECT 1")
            assert f"{tmp_path / 'nowhere'} is not a folder" in str(refused.value)

        (tmp_path / "nowhere").mkdir()
        assert proxy.execute("SELECT 1") == [(1,)]


@pytest.mark.parametrize("url", ["sqlite:///app.db", "mysql+pymysql://user:S3CR3T@host/name"])
def test_a_url_is_no_path(url: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"a path of an SQLite file, or driver=.* A URL is neither"
    ) as refused:
        SQLProxy(url)
    assert "S3CR3T" not in str(refused.value)


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("processes", 0, "a whole number, at least 1"),
        ("processes", "2", "a whole number, at least 1"),
        ("results", 0, "a whole number, at least 1"),
        ("frame_bytes", 1.5, "a whole number, at least 1"),
        ("wait_s", -1, "a number of seconds, more than 0"),
        ("wait_s", "long", "a number of seconds, more than 0"),
        ("transaction_idle_s", 0, "a number of seconds, more than 0"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(option: str, value: Any, wanted: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        SQLProxy("app.db", **{option: value})
    assert str(refused.value) == f"SQLProxy({option}={value!r}): {wanted}, is wanted"


def test_the_repr_tells_readers_from_the_writer(proxy: SQLProxy) -> None:
    proxy.execute("SELECT 1")
    with proxy.transaction():
        assert "readers <Pool of 2: 1 running, 1 idle, 0 in transactions" in repr(proxy)
        assert "writer <Pool of 1: 1 running, 0 idle, 1 in transactions" in repr(proxy)


def test_a_closed_proxy_has_no_process_left_and_says_so(path: Path) -> None:
    proxy = SQLProxy(path, processes=2)
    proxy.execute("INSERT INTO t (x) VALUES (1)")
    proxy.execute("SELECT 1")
    pids = proxy.pids

    proxy.close()
    proxy.close()

    assert [pid for pid in pids if psutil.pid_exists(pid)] == []
    with pytest.raises(sqlite3.InterfaceError, match="closed"):
        proxy.execute("SELECT 1")
    assert not path.with_name("app.db-wal").exists()


def test_the_subprocess_knows_neither_the_bus_nor_the_reactor(proxy: SQLProxy) -> None:
    loaded = proxy.run(functions.modules)
    assert "penstock.proxy.serving" in loaded
    assert not {"aio_pika", "sqlalchemy", "asyncio", "penstock.reactor", "penstock.buses"} & set(loaded)
    assert proxy.run(functions.threads) == (1 if sys.platform == "linux" else 2)


def test_a_password_is_in_no_command_line_and_no_repr(tmp_path: Path) -> None:
    with SQLProxy(str(tmp_path / "x.db"), driver="sqlite3.dbapi2", processes=1, timeout=7.25) as proxy:
        proxy.execute("SELECT 1")
        (pid,) = proxy.pids
        assert "7.25" not in " ".join(psutil.Process(pid).cmdline()) + repr(proxy)
