"""What the channel adds to the drivers of database servers: chunks, shared connections, and what is refused."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from typing import Any

import pytest

from penstock.channels.db import parting
from penstock.channels.dbapi import mysql
from penstock.channels.dbapi.link import attach, current, detach
from tests.channels.dbapi.crossings import Crossings
from tests.channels.dbapi.programs import rows
from tests.channels.dbapi.served import Served, served
from tests.channels.dbapi.server_kind import Kind


def test_nothing_crosses_before_the_first_statement_and_commits_only_when_there_is_something(
    kind: Kind, on_server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    crossings = Crossings(monkeypatch)
    connection = kind.module.connect()
    connection.commit()
    connection.rollback()
    rows(connection, "BEGIN")
    rows(connection, "COMMIT")
    assert crossings.methods == []
    rows(connection, "INSERT INTO t VALUES (1, 'a')")
    connection.commit()
    connection.commit()
    connection.close()
    assert crossings.methods == ["run", "end"]
    assert kind.values == ["a"]


def test_executemany_crosses_once(kind: Kind, on_server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    crossings = Crossings(monkeypatch)
    with closing(kind.module.connect()) as connection:
        cursor = connection.cursor()
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", ((n, str(n)) for n in range(3000)))
        connection.commit()
        assert cursor.rowcount == 3000
    assert crossings.methods == ["run", "end"]
    assert len(kind.values) == 3000


def _rows_failing(fails: bool) -> Iterator[tuple[int, str]]:
    yield from ((number, f"x{number}") for number in range(25))
    if fails:
        raise KeyError("the argument of executemany")


@pytest.mark.parametrize("fails", [False, True])
def test_executemany_in_autocommit_keeps_all_rows_or_none_however_often_it_crosses(
    kind: Kind, on_server: Served, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr(parting, "_MANY", 10)
    with closing(kind.module.connect(autocommit=True)) as connection:
        cursor = connection.cursor()
        with pytest.raises(KeyError) if fails else nullcontext():
            cursor.executemany("INSERT INTO t VALUES (%s, %s)", _rows_failing(fails))
        assert len(kind.values) == (0 if fails else 25)
        with pytest.raises(kind.driver.IntegrityError):
            cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(n % 24 + 100, f"y{n}") for n in range(25)])
        assert len(kind.values) == (0 if fails else 25)
        cursor.execute("INSERT INTO t VALUES (1000, 'after')")
    assert kind.values[-1] == "after"


def test_a_long_statement_takes_its_part_of_a_frame(kind: Kind) -> None:
    kind.server.execute("CREATE TABLE t (id INTEGER, v TEXT)", url=kind.url)
    with served(kind.url, frame_bytes=64 * 1024), closing(kind.module.connect()) as connection:
        statement = f"INSERT INTO t VALUES (%s, %s) /* {'long ' * 2000}*/"
        connection.cursor().executemany(statement, [(n, "x" * 1000) for n in range(60)])
        connection.commit()
    assert len(kind.values) == 60


def test_more_parameters_than_a_frame_holds_cross_in_several(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind.server.execute("CREATE TABLE t (id INTEGER, v TEXT)", url=kind.url)
    with served(kind.url, frame_bytes=64 * 1024), closing(kind.module.connect()) as connection:
        crossings = Crossings(monkeypatch)
        cursor = connection.cursor()
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(n, "x" * 1000) for n in range(300)])
        assert cursor.rowcount == 300
        assert 5 <= len(crossings.methods) < 20
        with pytest.raises(kind.driver.DataError, match=r"limits\.frame_bytes"):
            cursor.execute("INSERT INTO t VALUES (1, %s)", ("x" * 70_000,))
        with pytest.raises(kind.driver.DataError, match=r"limits\.frame_bytes"):
            cursor.execute("SELECT repeat('x', 70000)")


def test_a_large_result_comes_in_chunks_when_asked_for(
    kind: Kind, on_server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    crossings = Crossings(monkeypatch)
    with closing(kind.module.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute(kind.numbers.format(50_000))
        assert (cursor.fetchone()[0], cursor.rowcount) == (1, -1)
        assert crossings.methods == ["run"]
        assert [row[0] for row in cursor] == list(range(2, 50_001))
        assert cursor.rowcount == 50_000
        assert 12 <= crossings.methods.count("fetch") <= 40
        assert crossings.largest < 512 * 1024


def test_what_follows_a_half_read_result_brings_the_rest_of_it_here(kind: Kind, on_server: Served) -> None:
    with closing(kind.module.connect()) as connection:
        first = connection.cursor()
        first.execute(kind.numbers.format(20_000))
        first.fetchone()
        rows(connection, "INSERT INTO t VALUES (1, 'between')")
        second = connection.cursor()
        second.execute(kind.numbers.format(20_000))
        connection.commit()
        # As the driver has them in its memory: after a commit, too.
        assert len(first.fetchall()) == 19_999
        assert len(second.fetchall()) == 20_000
        first.execute(kind.numbers.format(20_000))
        first.fetchone()
        connection.rollback()
        with pytest.raises(kind.driver.OperationalError, match="the rest of the result is gone"):
            first.fetchall()
    assert kind.values == ["between"]


def test_a_streamed_result_ends_with_its_transaction(
    kind: Kind, on_server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(kind.module.connect()) as connection:
        streamed = connection.cursor(mysql.cursors.SSCursor if kind.module is mysql else "stream")
        streamed.execute(kind.numbers.format(50_000))
        streamed.fetchone()
        crossings = Crossings(monkeypatch)
        connection.commit()
        assert crossings.methods == ["end"]
        with pytest.raises(kind.driver.OperationalError, match="the rest of the result is gone"):
            streamed.fetchall()


def test_results_thrown_away_half_read_give_their_connections_back(kind: Kind, on_server: Served) -> None:
    connection = kind.module.connect()
    connection.autocommit(True) if kind.module is mysql else connection.set_autocommit(True)
    for _ in range(20):
        cursor = connection.cursor()
        cursor.execute(kind.numbers.format(50_000))
        cursor.fetchone()
        del cursor
    gc.collect()
    assert rows(connection, "SELECT 1") == [(1,)]
    connection.close()


def test_threads_share_a_connection_one_statement_at_a_time(kind: Kind, on_server: Served) -> None:
    connection = kind.module.connect()

    def write(thread: int) -> None:
        for number in range(25):
            rows(connection, "INSERT INTO t VALUES (%s, %s)", (100 * thread + number, f"{thread} {number}"))
            assert rows(connection, "SELECT id FROM t WHERE v = %s", (f"{thread} {number}",)) == [
                (100 * thread + number,)
            ]

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    connection.commit()
    connection.close()
    assert len(kind.values) == 100
    assert kind.module.threadsafety == 2


def test_only_a_worker_can_connect_and_only_to_its_database(kind: Kind, on_server: Served) -> None:
    with pytest.raises(kind.driver.NotSupportedError, match=r"host: .*database\.url"):
        kind.module.connect(host="elsewhere")
    link = current()
    detach(link)
    try:
        with pytest.raises(kind.driver.InterfaceError, match="no database channel in this process"):
            kind.module.connect()
    finally:
        attach(link)


@pytest.mark.parametrize(
    "statement",
    ["SET SESSION sql_mode = ''", "CREATE TEMPORARY TABLE x (a INTEGER)", "SAVEPOINT a"],
)
def test_what_is_for_the_next_statement_is_refused_where_there_is_none(
    kind: Kind, on_server: Served, statement: str
) -> None:
    with (
        closing(kind.module.connect(autocommit=True)) as connection,
        pytest.raises(kind.driver.NotSupportedError, match="outside a transaction"),
    ):
        rows(connection, statement)


def test_what_of_a_cursor_cannot_cross_says_why(kind: Kind, on_server: Served) -> None:
    with closing(kind.module.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute(kind.numbers.format(10))
        cursor.fetchmany(5)
        with pytest.raises(kind.driver.NotSupportedError, match="rows that were read are not kept"):
            cursor.scroll(-1)
        refused: list[Callable[[], Any]] = (
            []
            if kind.module is mysql
            else [
                lambda: cursor.execute("SELECT 1", binary=True),
                lambda: cursor.executemany(
                    "INSERT INTO t VALUES (%s, '') RETURNING id", [(1,)], returning=True
                ),
            ]
        )
        for use in refused:
            with pytest.raises(kind.driver.NotSupportedError, match="does not cross the database channel"):
                use()
