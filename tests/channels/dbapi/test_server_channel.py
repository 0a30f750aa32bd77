"""What the channel adds to the drivers of database servers: chunks, shared connections, and what becomes of things left open."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg
import pymysql
import pytest

from penstock.channels.dbapi import mysql, postgresql
from penstock.channels.dbapi.link import Link, attach, current, detach
from penstock.channels.dbapi.mysql.errors import REFUSED as REFUSED_OF_MYSQL
from penstock.channels.dbapi.mysql.errors import Session as MySQLSession
from penstock.channels.dbapi.postgresql.errors import REFUSED as REFUSED_OF_POSTGRESQL
from penstock.channels.dbapi.postgresql.errors import Session as PostgreSQLSession
from penstock.channels.dbapi.server.session import is_disconnect
from penstock.errors import DatabaseBusy, DeadlineExceeded
from tests.channels.dbapi.programs import rows
from tests.channels.dbapi.served import Served, served
from tests.channels.dbapi.test_channel import Crossings
from tests.servers import Server
from tests.soft_deadline import installed


@dataclass(frozen=True)
class Kind:
    """What differs."""

    url: str
    server: Server
    module: Any
    driver: Any
    make: Callable[[Link], Any]
    numbers: str
    sleep: str
    own_id: str


@pytest.fixture(params=["mysql", "postgresql"])
def kind(request: pytest.FixtureRequest) -> Kind:
    if request.param == "mysql":
        return Kind(
            request.getfixturevalue("mariadb_url"),
            request.getfixturevalue("mariadb"),
            mysql,
            pymysql,
            lambda link: mysql.Connection(MySQLSession(link)),
            "SELECT seq, lpad(seq, 99, '0') FROM seq_1_to_{}",
            "SELECT sleep(30)",
            "SELECT CONNECTION_ID()",
        )
    return Kind(
        request.getfixturevalue("postgresql_url"),
        request.getfixturevalue("postgresql"),
        postgresql,
        psycopg,
        lambda link: postgresql.Connection(PostgreSQLSession(link)),
        "SELECT i, lpad(i::text, 99, '0') FROM generate_series(1, {}) AS i",
        "SELECT pg_sleep(30)",
        "SELECT pg_backend_pid()",
    )


@pytest.fixture
def service(kind: Kind) -> Iterator[Served]:
    kind.server.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v VARCHAR(99) UNIQUE)", url=kind.url)
    with served(kind.url, server_connections=2, wait_s=0.3) as made:
        yield made


def values(kind: Kind) -> list[Any]:
    return [value for (value,) in kind.server.execute("SELECT v FROM t ORDER BY id", url=kind.url)]


def test_nothing_crosses_before_the_first_statement_and_commits_only_when_there_is_something(
    kind: Kind, service: Served, monkeypatch: pytest.MonkeyPatch
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
    assert values(kind) == ["a"]


def test_executemany_crosses_once(kind: Kind, service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    crossings = Crossings(monkeypatch)
    with closing(kind.module.connect()) as connection:
        cursor = connection.cursor()
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", ((n, str(n)) for n in range(3000)))
        connection.commit()
        assert cursor.rowcount == 3000
    assert crossings.methods == ["run", "end"]
    assert len(values(kind)) == 3000


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
    kind: Kind, service: Served, monkeypatch: pytest.MonkeyPatch
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


def test_what_follows_a_half_read_result_brings_the_rest_of_it_here(kind: Kind, service: Served) -> None:
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
    assert values(kind) == ["between"]


def test_a_streamed_result_ends_with_its_transaction(
    kind: Kind, service: Served, monkeypatch: pytest.MonkeyPatch
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


def test_results_thrown_away_half_read_give_their_connections_back(kind: Kind, service: Served) -> None:
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


def test_a_connection_that_is_not_to_be_had_in_time_is_busy(kind: Kind, service: Served) -> None:
    held = [kind.make(service.worker(name).link) for name in ("slot 2", "slot 3")]
    for connection in held:
        rows(connection, "SELECT 1")
    waiting = kind.module.connect()
    with pytest.raises(kind.driver.OperationalError, match=r"database\.wait_s") as raised:
        rows(waiting, "SELECT 1")
    assert isinstance(raised.value.__cause__, DatabaseBusy)
    held[0].commit()
    assert rows(waiting, "SELECT 1") == [(1,)]
    for connection in (waiting, held[1]):
        connection.close()


def test_a_connection_that_the_server_ends_is_said_to_be_lost_until_a_rollback(
    kind: Kind, service: Served
) -> None:
    with closing(kind.module.connect()) as connection:
        rows(connection, "INSERT INTO t VALUES (1, 'gone')")
        ((number,),) = rows(connection, kind.own_id)
        kind.server.kill_connection(number)
        with pytest.raises(kind.driver.Error) as raised:
            rows(connection, "INSERT INTO t VALUES (2, 'gone too')")
        assert is_disconnect(raised.value)
        with pytest.raises(kind.driver.OperationalError, match="call rollback"):
            rows(connection, "SELECT 1")
        with pytest.raises(kind.driver.OperationalError, match="call rollback"):
            connection.commit()
        connection.rollback()
        rows(connection, "INSERT INTO t VALUES (3, 'kept')")
        connection.commit()
    assert values(kind) == ["kept"]


def test_a_connection_that_the_server_ends_before_a_commit_is_told_by_the_commit(
    kind: Kind, service: Served
) -> None:
    with closing(kind.module.connect()) as connection:
        rows(connection, "INSERT INTO t VALUES (1, 'gone')")
        ((number,),) = rows(connection, kind.own_id)
        kind.server.kill_connection(number)
        with pytest.raises(kind.driver.Error) as raised:
            connection.commit()
        assert is_disconnect(raised.value)
        assert not connection.in_transaction
    assert values(kind) == []


def test_a_deadlock_is_told_to_one_of_the_two_whose_transaction_is_over(kind: Kind, service: Served) -> None:
    kind.server.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')", url=kind.url)
    first, second = kind.module.connect(), kind.make(service.worker("slot 2").link)
    rows(first, "UPDATE t SET v = 'first' WHERE id = 1")
    rows(second, "UPDATE t SET v = 'second' WHERE id = 2")
    failed: list[tuple[Any, Exception]] = []

    def go_on(connection: Any, number: int) -> None:
        try:
            rows(connection, f"UPDATE t SET v = 'x{number}' WHERE id = {number}")
            connection.commit()
        except Exception as error:  # noqa: BLE001 - looked at below
            failed.append((connection, error))

    threads = [threading.Thread(target=go_on, args=arguments) for arguments in ((first, 2), (second, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((victim, error),) = failed
    if kind.module is mysql:
        assert error.args[0] == 1213
        with pytest.raises(pymysql.OperationalError, match="call rollback"):
            rows(victim, "SELECT 1")
    else:
        assert isinstance(error, psycopg.errors.DeadlockDetected)
    with pytest.raises(kind.driver.DatabaseError):
        victim.commit()
    victim.rollback()
    assert rows(victim, "SELECT 1") == [(1,)]
    for connection in (first, second):
        connection.close()


def test_a_commit_after_an_error_on_postgresql_raises_where_the_server_would_roll_back_in_silence(
    postgresql_url: str,
) -> None:
    with served(postgresql_url), closing(postgresql.connect()) as connection:
        connection.execute("CREATE TABLE t (id INTEGER)")
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM nowhere")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction, match="savepoint"):
            connection.commit()
        assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)


def test_what_a_message_leaves_open_is_rolled_back_at_its_end(kind: Kind, service: Served) -> None:
    stub = service.worker("slot 2")
    left = kind.make(stub.link)
    rows(left, "INSERT INTO t VALUES (1, 'left')")
    half_read = left.cursor()
    half_read.execute(kind.numbers.format(50_000))
    assert stub.in_transaction
    stub.reset()
    assert (stub.in_transaction, left.in_transaction) == (False, False)
    with pytest.raises(kind.driver.OperationalError, match="the rest of the result is gone"):
        half_read.fetchall()
    rows(left, "INSERT INTO t VALUES (2, 'kept')")
    left.commit()
    assert values(kind) == ["kept"]


def test_a_connection_thrown_away_is_rolled_back(kind: Kind, service: Served) -> None:
    connection = kind.module.connect()
    rows(connection, "INSERT INTO t VALUES (1, 'left')")
    del connection
    gc.collect()
    with closing(kind.module.connect()) as connection:
        rows(connection, "INSERT INTO t VALUES (2, 'kept')")
        connection.commit()
    assert values(kind) == ["kept"]


def test_a_deadline_inside_a_call_leaves_a_connection_that_wants_a_rollback(
    kind: Kind, service: Served
) -> None:
    with installed() as deadline:
        connection = kind.module.connect()
        rows(connection, "INSERT INTO t VALUES (1, 'cut')")
        deadline.arm(0.05)
        with pytest.raises(DeadlineExceeded):
            rows(connection, kind.sleep)
        with pytest.raises(kind.driver.OperationalError, match="roll back first"):
            rows(connection, "SELECT 1")
        connection.rollback()
        rows(connection, "INSERT INTO t VALUES (2, 'kept')")
        connection.commit()
    assert values(kind) == ["kept"]


def test_a_call_cut_short_costs_the_worker_s_other_transactions_with_words(
    kind: Kind, service: Served
) -> None:
    with (
        installed() as deadline,
        closing(kind.module.connect()) as other,
        closing(kind.module.connect()) as cut,
    ):
        rows(other, "INSERT INTO t VALUES (1, 'gone with it')")
        deadline.arm(0.05)
        with pytest.raises(DeadlineExceeded):
            rows(cut, kind.sleep)
        cut.rollback()
        with pytest.raises(
            kind.driver.OperationalError, match="another connection of this worker was cut short"
        ):
            rows(other, "INSERT INTO t VALUES (2, 'no half')")
        other.rollback()
        rows(other, "INSERT INTO t VALUES (3, 'kept')")
        other.commit()
    assert values(kind) == ["kept"]


def test_a_lost_connection_that_nobody_holds_any_more_costs_nobody_else_anything(
    kind: Kind, service: Served
) -> None:
    connection = kind.module.connect()
    ((number,),) = rows(connection, kind.own_id)
    half_read = connection.cursor()
    half_read.execute(kind.numbers.format(300_000))
    half_read.fetchone()
    kind.server.kill_connection(number)
    del connection, half_read
    gc.collect()
    with closing(kind.module.connect()) as connection:
        assert rows(connection, "SELECT 1") == [(1,)]


def test_threads_share_a_connection_one_statement_at_a_time(kind: Kind, service: Served) -> None:
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
    assert len(values(kind)) == 100
    assert kind.module.threadsafety == 2


def test_only_a_worker_can_connect_and_only_to_its_database(kind: Kind, service: Served) -> None:
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
    kind: Kind, service: Served, statement: str
) -> None:
    with (
        closing(kind.module.connect(autocommit=True)) as connection,
        pytest.raises(kind.driver.NotSupportedError, match="outside a transaction"),
    ):
        rows(connection, statement)


@pytest.mark.parametrize(
    "name", sorted(set(REFUSED_OF_MYSQL) - {"scroll backwards", "warning_count", "mogrify"})
)
def test_what_cannot_cross_to_mysql_says_why(name: str) -> None:
    connection: Any = mysql.Connection(None)  # type: ignore[arg-type] # it is not asked
    with pytest.raises(pymysql.NotSupportedError, match=f"^{name} does not cross the database channel: ..."):
        getattr(connection, name)()
    connection.is_closed = True


@pytest.mark.parametrize("name", sorted(name for name in REFUSED_OF_POSTGRESQL if name.isidentifier()))
def test_what_cannot_cross_to_postgresql_says_why(name: str) -> None:
    connection: Any = postgresql.Connection(None)  # type: ignore[arg-type] # it is not asked
    with pytest.raises(psycopg.NotSupportedError, match=f"^{name} does not cross the database channel: ..."):
        getattr(connection, name)
    connection.is_closed = True


def test_what_of_a_cursor_cannot_cross_says_why(kind: Kind, service: Served) -> None:
    with closing(kind.module.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute(kind.numbers.format(10))
        cursor.fetchmany(5)
        with pytest.raises(kind.driver.NotSupportedError, match="rows that were read are not kept"):
            cursor.scroll(-1)
        refused: list[Callable[[], Any]] = (
            [lambda: cursor.mogrify("SELECT 1"), lambda: cursor.warning_count]
            if kind.module is mysql
            else [
                lambda: cursor.copy("COPY t FROM STDIN"),
                lambda: cursor.execute("SELECT 1", binary=True),
                lambda: cursor.executemany(
                    "INSERT INTO t VALUES (%s, '') RETURNING id", [(1,)], returning=True
                ),
            ]
        )
        for use in refused:
            with pytest.raises(kind.driver.NotSupportedError, match="does not cross the database channel"):
                use()
