"""Transactions on a database server that end otherwise than by their program: lost, deadlocked, cut short, left open."""

from __future__ import annotations

import gc
import threading
from contextlib import closing
from typing import Any

import psycopg
import pymysql
import pytest

from penstock.channels.dbapi import mysql, postgresql
from penstock.channels.dbapi.server.session import is_disconnect
from penstock.errors import DatabaseBusy, DeadlineExceeded
from tests.channels.dbapi.programs import rows
from tests.channels.dbapi.served import Served, served
from tests.channels.dbapi.server_kind import Kind
from tests.soft_deadline import installed


def test_a_connection_that_is_not_to_be_had_in_time_is_busy(kind: Kind, on_server: Served) -> None:
    held = [kind.make(on_server.worker(name).link) for name in ("slot 2", "slot 3")]
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
    kind: Kind, on_server: Served
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
    assert kind.values == ["kept"]


def test_a_connection_that_the_server_ends_before_a_commit_is_told_by_the_commit(
    kind: Kind, on_server: Served
) -> None:
    with closing(kind.module.connect()) as connection:
        rows(connection, "INSERT INTO t VALUES (1, 'gone')")
        ((number,),) = rows(connection, kind.own_id)
        kind.server.kill_connection(number)
        with pytest.raises(kind.driver.Error) as raised:
            connection.commit()
        assert is_disconnect(raised.value)
        assert not connection.in_transaction
    assert kind.values == []


def test_a_deadlock_is_told_to_one_of_the_two_whose_transaction_is_over(
    kind: Kind, on_server: Served
) -> None:
    kind.server.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')", url=kind.url)
    first, second = kind.module.connect(), kind.make(on_server.worker("slot 2").link)
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


def test_what_a_message_leaves_open_is_rolled_back_at_its_end(kind: Kind, on_server: Served) -> None:
    stub = on_server.worker("slot 2")
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
    assert kind.values == ["kept"]


def test_a_connection_thrown_away_is_rolled_back(kind: Kind, on_server: Served) -> None:
    connection = kind.module.connect()
    rows(connection, "INSERT INTO t VALUES (1, 'left')")
    del connection
    gc.collect()
    with closing(kind.module.connect()) as connection:
        rows(connection, "INSERT INTO t VALUES (2, 'kept')")
        connection.commit()
    assert kind.values == ["kept"]


def test_a_deadline_inside_a_call_leaves_a_connection_that_wants_a_rollback(
    kind: Kind, on_server: Served
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
    assert kind.values == ["kept"]


def test_a_call_cut_short_costs_the_worker_s_other_transactions_with_words(
    kind: Kind, on_server: Served
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
    assert kind.values == ["kept"]


def test_a_lost_connection_that_nobody_holds_any_more_costs_nobody_else_anything(
    kind: Kind, on_server: Served
) -> None:
    connection = kind.module.connect()
    ((number,),) = rows(connection, kind.own_id)
    half_read = connection.cursor()
    half_read.execute(kind.numbers.format(300_000))
    half_read.fetchone()
    kind.server.kill_connection(number)
    # It hears of that when it comes to it, and may send the rest before.
    assert kind.server.connections_once(kind.url, 0) == []
    del connection, half_read
    gc.collect()
    with closing(kind.module.connect()) as connection:
        assert rows(connection, "SELECT 1") == [(1,)]
