"""Whose fault it is: statements that are too long, DDL amid a transaction, a connection whose test fails unforeseen."""

from __future__ import annotations

import pytest

from penstock.channels.db.server import mysql_connection
from penstock.channels.db.server.mysql import MySQLDriver
from penstock.channels.db.server.postgresql import PostgreSQLDriver
from tests.channels.db.server_case import Case, service_with_table
from tests.channels.db.server_cursors import Worker


@pytest.mark.parametrize("inside", [False, True])
async def test_a_statement_too_long_for_mysql_is_refused_before_it_is_sent(case: Case, inside: bool) -> None:
    if case.kind == "postgresql":
        pytest.skip("PostgreSQL takes a gigabyte")
    worker = Worker(await service_with_table(case, server_connections=1, frame_bytes=64 * 2**20))
    began = await worker.run("INSERT INTO t VALUES (1, 'a')", begins=inside)
    before = case.server.connections(case.url)
    failed = await worker.fail("SELECT length(%s)", ["x" * 17 * 2**20], transaction=began.transaction)
    assert (failed.name, failed.is_disconnect, failed.is_lost) == ("DataError", False, False)
    assert "max_allowed_packet" in failed.text
    assert failed.transaction == began.transaction
    await worker.run("INSERT INTO t VALUES (2, 'b')", transaction=began.transaction)
    assert case.server.connections(case.url) == before
    if inside:
        assert await worker.end(began) is None
    assert case.rows("SELECT count(*) FROM t") == [(2,)]


@pytest.mark.parametrize("inside", [False, True])
async def test_a_statement_that_the_server_finds_too_long_is_its_own_fault_and_nobody_else_s(
    case: Case, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    if case.kind == "postgresql":
        pytest.skip("PostgreSQL takes a gigabyte")
    # As if we had not been told.
    monkeypatch.setattr(mysql_connection, "check_length", lambda *_: None)
    [(usual,)] = case.rows("SELECT @@global.max_allowed_packet")
    case.rows(f"SET GLOBAL max_allowed_packet = {2**20}")
    try:
        worker = Worker(await service_with_table(case, server_connections=1, frame_bytes=4 * 2**20))
        began = await worker.run("INSERT INTO t VALUES (1, 'a')", begins=inside)
        failed = await worker.fail("SELECT length(%s)", ["x" * 2**20], transaction=began.transaction)
    finally:
        case.rows(f"SET GLOBAL max_allowed_packet = {usual}")
    assert (failed.code, failed.is_disconnect, failed.is_lost) == (1153, False, inside)
    if inside:
        assert await worker.call("rollback", began.transaction) is None
    assert await worker.rows("SELECT count(*) FROM t") == [[0 if inside else 1]]


async def test_a_connection_whose_test_fails_unforeseen_is_given_back(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await service_with_table(case, server_connections=1, wait_s=0.2, idle_test_s=0.001)
    worker = Worker(service)
    await worker.run("INSERT INTO t VALUES (1, 'a')")
    driver = {"mariadb": MySQLDriver, "postgresql": PostgreSQLDriver}[case.kind]
    with monkeypatch.context() as patched:
        patched.setattr(driver, "ping", _raise)
        patched.setattr(driver, "has_heard", lambda *_: True)
        with pytest.raises(ZeroDivisionError):
            await worker.run("SELECT 1")
    assert await worker.rows("SELECT 1") == [[1]]


async def _raise(*_: object) -> None:
    raise ZeroDivisionError


async def test_a_failed_ddl_amid_a_mysql_transaction_has_committed_it_and_the_next_one_begins(
    case: Case,
) -> None:
    if case.kind == "postgresql":
        pytest.skip("there DDL is part of the transaction")
    worker = Worker(await service_with_table(case))
    began = await worker.run("INSERT INTO t VALUES (1, 'a')", begins=True)
    failed = await worker.fail("/* again */ CREATE TABLE t (id INTEGER)", transaction=began.transaction)
    assert (failed.code, failed.is_lost, failed.transaction) == (1050, False, began.transaction)
    assert case.rows("SELECT id FROM t") == [(1,)]
    await worker.run("INSERT INTO t VALUES (2, 'b')", transaction=began.transaction)
    assert case.rows("SELECT id FROM t") == [(1,)]
    assert await worker.end(began) is None
    assert case.rows("SELECT id FROM t") == [(1,), (2,)]
