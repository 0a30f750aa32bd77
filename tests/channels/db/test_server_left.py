"""What a transaction leaves on its connection to a real server: nobody else finds it, and what cannot cross is refused."""

from __future__ import annotations

import asyncio

import pytest

from tests.channels.conftest import until
from tests.channels.db.server_case import LEFT, SLOWLY_S, Case, service_with_table
from tests.channels.db.server_cursors import Worker


async def test_what_a_transaction_sets_on_its_connection_nobody_else_finds(case: Case) -> None:
    service = await service_with_table(case, server_connections=1)
    worker = Worker(service)
    setting, asking = {
        "mariadb": ("SET SESSION lock_wait_timeout = 77", "SELECT @@lock_wait_timeout"),
        "postgresql": ("SET lock_timeout = 77", "SELECT current_setting('lock_timeout')"),
    }[case.kind]
    usual = await worker.rows(asking)
    ran = await worker.run(setting, begins=True)
    assert await worker.rows(asking, transaction=ran.transaction) != usual
    await worker.run("CREATE TEMPORARY TABLE mine (id INTEGER)", transaction=ran.transaction)
    assert await worker.end(ran) is None
    assert await worker.rows(asking) == usual
    await worker.fail("SELECT * FROM mine")
    # Alone it would say nothing to anybody.
    refused = await worker.fail(setting)
    assert refused.name == "NotSupportedError"
    assert "inside the transaction" in refused.text


async def test_what_is_less_plain_to_see_nobody_else_finds_either(case: Case) -> None:
    service = await service_with_table(case, server_connections=1)
    worker = Worker(service)
    for statement, asking, usual in LEFT[case.kind]:
        ran = await worker.run(statement, begins=True)
        assert await worker.end(ran) is None
        # A lock is the server's until it has seen its holder off.
        await until(lambda: case.connections() == 0)
        assert (statement, await worker.rows(asking)) == (statement, [[usual]])


@pytest.mark.parametrize("is_commit", [False, True])
async def test_the_isolation_that_a_transaction_sets_for_itself_is_gone_with_it(
    case: Case, is_commit: bool
) -> None:
    service = await service_with_table(case, server_connections=1)
    worker = Worker(service)
    who, level = {
        "mariadb": (
            "SELECT CONNECTION_ID()",
            "SELECT trx_isolation_level FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = CONNECTION_ID()",
        ),
        "postgresql": ("SELECT pg_backend_pid()", "SELECT current_setting('transaction_isolation')"),
    }[case.kind]
    before = await worker.rows(who)

    async def levels(first: str) -> set[str]:
        ran = await worker.run(first, begins=True)
        await worker.run("INSERT INTO t (id) VALUES (1)", transaction=ran.transaction)
        # The list is of some moments ago.
        await asyncio.sleep(SLOWLY_S)
        found = await worker.rows(level, transaction=ran.transaction)
        await worker.end(ran, commit=False)
        return {value.lower() for (value,) in found}

    assert await levels("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE") == {"serializable"}
    # Nothing behind it, so the server may not have begun.
    ran = await worker.run("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", begins=True)
    assert await worker.end(ran, commit=is_commit) is None
    assert await levels("SELECT 1") == {
        {"mariadb": "repeatable read", "postgresql": "read committed"}[case.kind]
    }
    assert await worker.rows(who) == before


async def test_an_ordinary_statement_does_not_cost_the_connection(case: Case) -> None:
    service = await service_with_table(case, server_connections=1)
    worker = Worker(service)
    who = {"mariadb": "SELECT CONNECTION_ID()", "postgresql": "SELECT pg_backend_pid()"}[case.kind]
    before = await worker.rows(who)
    for statement in ("SELECT 1;", "INSERT INTO t VALUES (1, 'a; SET b := 1')", "SELECT 2 -- it's; SET"):
        ran = await worker.run(statement, begins=True)
        assert await worker.end(ran) is None
    assert await worker.rows(who) == before


@pytest.mark.parametrize(
    "statement",
    [
        "LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE t",
        "/* hidden */ COPY t FROM STDIN",
        "COPY (SELECT 1) TO STDOUT",
        "LISTEN somebody",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    ],
)
async def test_what_cannot_cross_is_refused_with_the_reason(case: Case, statement: str) -> None:
    worker = Worker(await service_with_table(case))
    refused = await worker.fail(statement, begins=True)
    assert (refused.name, refused.transaction) == ("NotSupportedError", None)
    assert "does not cross" in refused.text
