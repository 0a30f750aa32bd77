"""On a server, too: no commit pretends, and what somebody leaves on a connection is gone with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from penstock import ConfigurationError, SQLProxy
from tests.proxy import functions
from tests.proxy.test_servers import proxy_on
from tests.servers import MariaDBServer, Template

ROLLED_BACK = "the transaction has been rolled back, "


@pytest.fixture(params=["mariadb", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def proxy(url: str) -> Iterator[SQLProxy]:
    """Of one connection, so that the next one finds what was left."""
    with proxy_on(url, processes=1) as proxy:
        proxy.execute("CREATE TABLE t (x INTEGER PRIMARY KEY)")
        yield proxy


@pytest.fixture
def on_postgresql(postgresql_url: str) -> Iterator[SQLProxy]:
    with proxy_on(postgresql_url, processes=1) as proxy:
        proxy.execute("CREATE TABLE t (x INTEGER PRIMARY KEY)")
        yield proxy


@pytest.fixture
def on_mariadb(mariadb_url: str) -> Iterator[SQLProxy]:
    """Two connections on which a row that changed since it was read is an error."""
    with proxy_on(mariadb_url, init_command="SET SESSION innodb_snapshot_isolation=ON") as proxy:
        make_tables(proxy)
        yield proxy


def make_tables(proxy: SQLProxy) -> None:
    proxy.execute("CREATE TABLE t (x INTEGER PRIMARY KEY)")
    proxy.execute("CREATE TABLE n (id INTEGER PRIMARY KEY, n INTEGER)")
    proxy.execute("INSERT INTO n VALUES (1, 0), (2, 0)")


def numbers(proxy: SQLProxy) -> list[int]:
    return [x for (x,) in proxy.execute("SELECT x FROM t ORDER BY x")]


def test_postgresql_a_commit_behind_a_caught_error_raises(on_postgresql: SQLProxy) -> None:
    proxy = on_postgresql
    with (  # noqa: PT012 - the end of the block raises
        pytest.raises(proxy.OperationalError, match=f"{ROLLED_BACK}because a statement in it failed"),
        proxy.transaction() as tx,
    ):
        tx.execute("INSERT INTO t VALUES (1)")
        with suppress(proxy.IntegrityError):
            tx.execute("INSERT INTO t VALUES (1)")
    connection = proxy.connect()
    connection.execute("INSERT INTO t VALUES (2)")
    with suppress(proxy.IntegrityError):
        connection.execute("INSERT INTO t VALUES (2)")
    with pytest.raises(proxy.OperationalError, match="SAVEPOINT: nothing of it was committed"):
        connection.commit()
    connection.execute("INSERT INTO t VALUES (3)")
    connection.commit()
    connection.close()
    insert = "INSERT INTO t VALUES (4)"
    with pytest.raises(proxy.OperationalError, match="nothing of it was committed"):
        proxy.run(functions.catch, insert, insert, write=True)
    assert numbers(proxy) == [3]


@pytest.mark.parametrize("commit", ["COMMIT", "/* a /* b */ */ end", "PREPARE TRANSACTION 'x'"])
def test_postgresql_a_commit_by_text_behind_a_caught_error_raises(
    on_postgresql: SQLProxy, commit: str
) -> None:
    proxy, insert = on_postgresql, "INSERT INTO t VALUES (1)"
    tx = proxy.transaction()
    tx.execute(insert)
    with suppress(proxy.IntegrityError):
        tx.execute(insert)
    for end in (lambda: tx.execute(commit), lambda: tx.end(commit=True)):
        with pytest.raises(proxy.OperationalError, match="nothing of it was committed"):
            end()
    connection = proxy.connect()
    connection.execute(insert)
    with suppress(proxy.IntegrityError):
        connection.execute(insert)
    with pytest.raises(proxy.OperationalError, match="nothing of it was committed"):
        connection.execute(commit)
    connection.close()
    for function, last in ((functions.catch, commit), (functions.catch_and_commit, insert)):
        with pytest.raises(proxy.OperationalError, match="nothing of it was committed"):
            proxy.run(function, insert, insert, last, write=True)
    assert numbers(proxy) == []


def test_postgresql_an_error_that_a_savepoint_undid_is_no_reason(on_postgresql: SQLProxy) -> None:
    with on_postgresql.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (1)")
        tx.execute("SAVEPOINT here")
        with pytest.raises(on_postgresql.IntegrityError):
            tx.execute("INSERT INTO t VALUES (1)")
        tx.execute("ROLLBACK TO here")
        tx.execute("INSERT INTO t VALUES (2)")
    assert numbers(on_postgresql) == [1, 2]


def test_mariadb_what_changed_since_it_was_read_undoes_all_and_nothing_half_is_committed(
    on_mariadb: SQLProxy,
) -> None:
    proxy = on_mariadb
    with (  # noqa: PT012 - the end of the block raises
        pytest.raises(
            proxy.OperationalError, match=rf"{ROLLED_BACK}by the server itself, with the error \(1020"
        ),
        proxy.transaction() as tx,
    ):
        tx.execute("INSERT INTO t VALUES (1)")
        tx.execute("SELECT * FROM n")
        proxy.execute("UPDATE n SET n = 5 WHERE id = 1")
        with pytest.raises(proxy.Error, match="1020"):
            tx.execute("UPDATE n SET n = 6 WHERE id = 1")
    tx = proxy.transaction()
    tx.execute("SELECT * FROM n")
    proxy.execute("UPDATE n SET n = 7 WHERE id = 1")
    with pytest.raises(proxy.Error, match="1020"):
        tx.execute("UPDATE n SET n = 8 WHERE id = 1")
    with pytest.raises(proxy.OperationalError, match=r"1020.*begin again"):
        tx.execute("INSERT INTO t VALUES (2)")
    tx.end(commit=False)
    connection = proxy.connect()
    connection.execute("SELECT * FROM n")
    proxy.execute("UPDATE n SET n = 9 WHERE id = 1")
    with pytest.raises(proxy.Error, match="1020"):
        connection.execute("UPDATE n SET n = 10 WHERE id = 1")
    connection.execute("ROLLBACK")
    connection.execute("INSERT INTO t VALUES (3)")
    connection.commit()
    connection.close()
    assert numbers(proxy) == [3]


def test_mariadb_a_deadlock_that_was_caught_undoes_all(on_mariadb: SQLProxy) -> None:
    with ThreadPoolExecutor(1) as pool, on_mariadb.transaction() as other:
        # Of two that wait for each other InnoDB takes the one that has changed less.
        other.executemany("INSERT INTO n VALUES (%s, 0)", [(number,) for number in range(100, 150)])
        other.execute("UPDATE n SET n = 1 WHERE id = 2")
        tx = on_mariadb.transaction()
        tx.execute("INSERT INTO t VALUES (1)")
        tx.execute("UPDATE n SET n = 1 WHERE id = 1")
        waiting = pool.submit(tx.execute, "UPDATE n SET n = 1 WHERE id = 2")
        other.execute("UPDATE n SET n = 2 WHERE id = 1")
        with pytest.raises(on_mariadb.OperationalError, match="1213"):
            waiting.result(20)
        with pytest.raises(on_mariadb.OperationalError, match=r"by the server itself, with the error \(1213"):
            tx.end(commit=True)
    assert numbers(on_mariadb) == []


@pytest.mark.parametrize("how", ["goes on", "commits", "commits by text", "begins again"])
def test_mariadb_a_function_that_caught_such_an_error_commits_nothing_half(
    on_mariadb: SQLProxy, how: str
) -> None:
    work = [
        "INSERT INTO t VALUES (1)",
        "SELECT * FROM n",
        "SELECT GET_LOCK('it has read', 20)",
        "SELECT GET_LOCK('the row has changed', 20)",
        "UPDATE n SET n = 2 WHERE id = 1",
    ]
    last = "INSERT INTO t VALUES (2)"
    calls: dict[str, tuple[Callable[..., None], list[str]]] = {
        "goes on": (functions.catch, [*work, last]),
        "commits": (functions.catch_and_commit, [*work, last]),
        "commits by text": (functions.catch, [*work, last, "COMMIT"]),
        "begins again": (functions.catch_and_begin_again, [";".join(work), last]),
    }
    function, statements = calls[how]
    with ThreadPoolExecutor(1) as pool:
        gate = on_mariadb.transaction()
        gate.execute("SELECT GET_LOCK('the row has changed', 20)")
        running = pool.submit(lambda: on_mariadb.run(function, *statements, write=True))
        while gate.execute("SELECT IS_USED_LOCK('it has read')") == [(None,)]:
            threading.Event().wait(0.02)
        gate.execute("UPDATE n SET n = 1 WHERE id = 1")
        gate.end(commit=True)  # and with its connection the lock is gone
        if how == "begins again":
            running.result(20)
        else:
            with pytest.raises(
                on_mariadb.OperationalError, match=r"with the error \(1020.*nothing of it was committed"
            ):
                running.result(20)
    assert numbers(on_mariadb) == ([2] if how == "begins again" else [])


def time_out(proxy: SQLProxy) -> None:
    """Commits 1 and 2, between which a lock was not had in time."""
    with proxy.transaction() as other:
        other.execute("UPDATE n SET n = 1 WHERE id = 1")
        with proxy.transaction() as tx:
            tx.execute("SET innodb_lock_wait_timeout = 1")
            tx.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(proxy.OperationalError, match="1205"):
                tx.execute("UPDATE n SET n = 2 WHERE id = 1")
            tx.execute("INSERT INTO t VALUES (2)")


def test_mariadb_a_lock_that_is_not_had_in_time_undoes_its_statement_alone(on_mariadb: SQLProxy) -> None:
    time_out(on_mariadb)
    assert numbers(on_mariadb) == [1, 2]


@pytest.fixture
def url_where_timeouts_undo_all(_mariadb_template: Template) -> Iterator[str]:
    with MariaDBServer(_mariadb_template, options={"innodb-rollback-on-timeout": "ON"}) as server:
        yield server.new_database()


def test_mariadb_a_lock_that_is_not_had_in_time_undoes_all_where_the_server_is_told_so(
    url_where_timeouts_undo_all: str,
) -> None:
    with proxy_on(url_where_timeouts_undo_all) as proxy:
        make_tables(proxy)
        with pytest.raises(proxy.OperationalError, match=r"by the server itself, with the error \(1205"):
            time_out(proxy)
        assert numbers(proxy) == []


@pytest.mark.parametrize("autocommit", [True, 1])
def test_a_connection_that_commits_by_itself_is_refused(autocommit: Any) -> None:
    with pytest.raises(ConfigurationError, match="does not take autocommit"):
        SQLProxy(driver="pymysql", autocommit=autocommit)


SETTING = {
    "mariadb": ("SET SESSION time_zone = '+05:00'", "SELECT @@time_zone"),
    "postgresql": ("SET application_name = 'mess'", "SELECT current_setting('application_name')"),
}


@pytest.fixture
def setting(proxy: SQLProxy) -> tuple[str, str]:
    return SETTING["postgresql" if proxy.driver.__name__ == "psycopg" else "mariadb"]


def test_what_a_statement_sets_ends_with_its_transaction(proxy: SQLProxy, setting: tuple[str, str]) -> None:
    sets, tells = setting
    before = proxy.execute(tells)
    proxy.execute(sets)
    assert proxy.execute(tells) == before
    with proxy.transaction() as tx:
        tx.execute(sets)
        changed = tx.execute(tells)
        assert changed != before
    assert proxy.execute(tells) == before
    connection = proxy.connect()
    connection.execute(sets)
    assert connection.execute(tells).fetchall() == changed
    connection.commit()
    assert connection.execute(tells).fetchall() == before
    connection.close()
    proxy.run(functions.execute, sets, "SELECT 1")
    assert proxy.execute(tells) == before
    proxy.run(functions.execute, sets, "INSERT INTO t VALUES (1)", "SELECT 1", write=True)
    assert proxy.execute(tells) == before
    assert len(proxy.pids) == 1


def test_a_result_that_is_still_read_outlives_its_connection(
    proxy: SQLProxy, setting: tuple[str, str]
) -> None:
    connection = proxy.connect()
    connection.executemany("INSERT INTO t VALUES (%s)", [(number,) for number in range(30_000)])
    connection.execute(setting[0])
    rest = connection.execute("SELECT x, 'some text' FROM t ORDER BY x")
    assert rest.fetchone() == (0, "some text")
    connection.commit()
    assert proxy.execute("SELECT count(*) FROM t") == [(30_000,)]
    assert rest.fetchall()[-1] == (29_999, "some text")
    connection.close()


def number_of(proxy: SQLProxy) -> object:
    is_postgresql = proxy.driver.__name__ == "psycopg"
    return proxy.run(
        functions.execute, "SELECT pg_backend_pid()" if is_postgresql else "SELECT connection_id()"
    )


def test_what_leaves_nothing_keeps_its_connection(proxy: SQLProxy) -> None:
    before = number_of(proxy)
    proxy.execute("INSERT INTO t VALUES (1)")
    with proxy.transaction() as tx:
        tx.execute("SELECT * FROM t")
    proxy.run(functions.execute, "INSERT INTO t VALUES (2)", "SELECT 1", write=True)
    with pytest.raises(proxy.Error):
        proxy.execute("INSERT INTO t VALUES (2)")
    assert number_of(proxy) == before


@pytest.mark.parametrize("name", ["prepare_threshold", "autocommit"])
def test_postgresql_an_attribute_that_a_function_sets_is_gone_with_it(
    on_postgresql: SQLProxy, name: str
) -> None:
    before = number_of(on_postgresql)
    on_postgresql.run(functions.set_attribute, name, True)
    assert number_of(on_postgresql) != before
    with pytest.raises(on_postgresql.IntegrityError), on_postgresql.transaction() as tx:  # noqa: PT012 - the end of the block raises
        tx.execute("INSERT INTO t VALUES (1)")
        tx.execute("INSERT INTO t VALUES (1)")
    assert numbers(on_postgresql) == []


def test_mariadb_an_attribute_that_a_function_sets_is_gone_with_it(on_mariadb: SQLProxy) -> None:
    on_mariadb.run(functions.set_attribute, "encoding", "latin1")
    assert on_mariadb.execute("SELECT HEX(%s), %s", ("ü", "ü")) == [("C3BC", "ü")]


def test_a_function_that_closes_its_connection_costs_nobody_anything(proxy: SQLProxy) -> None:
    pids = proxy.execute("SELECT 1") and proxy.pids
    assert proxy.run(functions.close_on_server) == 1
    assert proxy.execute("SELECT 1") == [(1,)]
    with pytest.raises(
        proxy.OperationalError,
        match=r"the connection that the function was lent is closed.*nothing of it was",
    ):
        proxy.run(functions.insert_and_close_on_server, write=True)
    assert numbers(proxy) == []
    assert proxy.pids == pids


def test_what_a_function_returns_is_too_long_before_the_commit(url: str) -> None:
    with proxy_on(url, processes=1, frame_bytes=100_000) as proxy:
        proxy.execute("CREATE TABLE t (x INTEGER)")
        with pytest.raises(proxy.DataError, match="its transaction was rolled back"):
            proxy.run(functions.execute, "INSERT INTO t VALUES (1)", "SELECT repeat('x', 200000)", write=True)
        with pytest.raises(proxy.DataError, match="the statement was rolled back"):
            proxy.execute("INSERT INTO t VALUES (2) RETURNING repeat('x', 200000)")
        assert numbers(proxy) == []
