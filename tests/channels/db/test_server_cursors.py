"""PEP 249's side of the database channel on real servers: what `run`, `fetch`, `drop` and `end` answer."""

# ruff: noqa: PT012 - a block that raises is what is tested

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import psycopg
import pytest

from penstock.channels.db.calls import Chunk, Failed, Fetch, Query
from penstock.channels.db.stub import DatabaseStub
from penstock.errors import DatabaseError
from tests.channels.conftest import Workshop, local, until
from tests.channels.db.series import SERIES
from tests.channels.db.server_case import SLOWLY_S, Case
from tests.channels.db.server_cursors import Worker


@pytest.fixture
async def worker(case: Case) -> Worker:
    service = await case.service(server_connections=2, wait_s=0.2)
    case.rows("CREATE TABLE t (id INTEGER PRIMARY KEY, v VARCHAR(200) UNIQUE)")
    return Worker(service)


async def test_a_statement_in_the_driver_s_style_is_committed_alone(case: Case, worker: Worker) -> None:
    ran = await worker.run("INSERT INTO t VALUES (%s, %s)", [1, "100 %"])
    assert (ran.columns, ran.chunk.row_count, ran.chunk.is_last, ran.transaction) == (None, 1, True, None)
    ran = await worker.run("INSERT INTO t VALUES (%(id)s, %(v)s)", {"id": 2, "v": "b"})
    assert case.rows("SELECT id, v FROM t ORDER BY id") == [(1, "100 %"), (2, "b")]
    # Without parameters % is not special.
    assert await worker.rows("SELECT id FROM t WHERE v LIKE '1%'") == [[1]]


async def test_columns_are_described_as_the_driver_does(case: Case, worker: Worker) -> None:
    ran = await worker.run("SELECT id, v FROM t")
    assert ran.columns == ["id", "v"]
    with case.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id, v FROM t")
        assert ran.types == [list(column[1:]) for column in cursor.description]


async def test_a_transaction_begins_with_its_first_statement(case: Case, worker: Worker) -> None:
    ran = await worker.run("INSERT INTO t VALUES (1, 'a')", begins=True)
    assert case.rows("SELECT count(*) FROM t") == [(0,)]
    again = await worker.run("INSERT INTO t VALUES (2, 'b')", transaction=ran.transaction)
    assert again.transaction == ran.transaction
    assert await worker.end(ran) is None
    assert case.rows("SELECT count(*) FROM t") == [(2,)]
    ran = await worker.run("DELETE FROM t", begins=True)
    assert await worker.end(ran, commit=False) is None
    assert case.rows("SELECT count(*) FROM t") == [(2,)]


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
async def test_a_transaction_has_the_level_that_was_asked_for(case: Case, worker: Worker, level: str) -> None:
    asked = {"mariadb": "SELECT count(*) FROM t", "postgresql": "SHOW transaction_isolation"}[case.kind]
    ran = await worker.run(asked, begins=True, isolation=level, is_read_only=True)
    if case.kind == "mariadb":
        listed = (
            "SELECT trx_isolation_level, trx_is_read_only FROM information_schema.innodb_trx "
            "JOIN information_schema.processlist ON trx_mysql_thread_id = id WHERE db = DATABASE()"
        )
        await until(lambda: case.rows(listed) == [(level, 1)], pause_s=SLOWLY_S)
    else:
        assert [row async for row in worker.rest(ran)] == [[level.lower()]]
    refused = await worker.fail("INSERT INTO t VALUES (1, 'a')", transaction=ran.transaction)
    assert refused.code == (1792 if case.kind == "mariadb" else None)
    assert refused.sqlstate == "25006"
    await worker.end(ran, commit=False)
    # The next one has the usual ones again.
    again = await worker.run("INSERT INTO t VALUES (1, 'a')", begins=True)
    assert await worker.end(again) is None


async def test_a_large_result_comes_chunk_by_chunk(case: Case, worker: Worker) -> None:
    statement = SERIES[case.kind].format(20_000)
    for options in ({}, {"begins": True}):
        ran = await worker.run(statement, **options)
        assert not ran.chunk.is_last
        assert ran.cursor is not None
        found = [row async for row in worker.rest(ran)]
        assert len(found) == 20_000
        assert found[-1][0] == 20_000
        if options:
            await worker.end(ran)


async def test_rows_are_counted_as_the_driver_does(case: Case, worker: Worker) -> None:
    for count in (0, 1, 63, 64, 65, 128, 200):
        ran = await worker.run(f"{SERIES[case.kind].format(1000)} LIMIT {count}")
        assert (ran.chunk.row_count, ran.chunk.is_last) == (count, True)
    await worker.run("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    assert (await worker.run("UPDATE t SET v = 'c' WHERE id = 1")).chunk.row_count == 1
    assert (await worker.run("DELETE FROM t")).chunk.row_count == 2
    made = await worker.run("CREATE TABLE more (id INTEGER)")
    with case.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE still_more (id INTEGER)")
        assert made.chunk.row_count == cursor.rowcount


async def test_an_open_result_holds_a_connection_until_it_is_dropped(case: Case, worker: Worker) -> None:
    statement = SERIES[case.kind].format(100_000)
    first, second = await worker.run(statement), await worker.run(statement)
    busy = await worker.fail("SELECT 1")
    assert (busy.name, busy.code_name) == ("OperationalError", "DatabaseBusy")
    await worker.call("drop", [first.cursor])
    assert await worker.rows("SELECT 1") == [[1]]
    assert await worker.rows("SELECT 2", dropped=[second.cursor]) == [[2]]
    gone = await worker.call("fetch", Fetch(second.cursor or 0))
    assert isinstance(gone, Failed)


async def test_what_is_unread_in_a_transaction_stands_in_the_way_until_it_is_dropped(
    case: Case, worker: Worker
) -> None:
    ran = await worker.run("INSERT INTO t VALUES (1, 'a')", begins=True)
    open_one = await worker.run(SERIES[case.kind].format(50_000), transaction=ran.transaction)
    refused = await worker.fail("SELECT 1", transaction=ran.transaction)
    assert (refused.name, refused.transaction) == ("ProgrammingError", ran.transaction)
    await worker.call("drop", [open_one.cursor])
    assert await worker.rows("SELECT count(*) FROM t", transaction=ran.transaction) == [[1]]
    await worker.run(SERIES[case.kind].format(50_000), transaction=ran.transaction)
    assert await worker.end(ran) is None
    assert case.rows("SELECT count(*) FROM t") == [(1,)]


async def test_an_error_is_the_driver_s(case: Case, worker: Worker) -> None:
    await worker.run("INSERT INTO t VALUES (1, 'a')")
    failed = await worker.fail("INSERT INTO t VALUES (%s, %s)", [1, "b"])
    if case.kind == "mariadb":
        assert failed.name == "IntegrityError"
        assert failed.arguments[0] == failed.code == 1062
    else:
        assert (failed.name, failed.sqlstate) == ("UniqueViolation", "23505")
        assert failed.diagnostics["constraint_name"] == "t_pkey"
        assert failed.diagnostics["table_name"] == "t"
    assert not failed.is_lost
    assert not failed.is_disconnect
    assert (await worker.fail("SELECT %s", [])).name in ("TypeError", "ProgrammingError")


async def test_many_rows_cross_once(case: Case, worker: Worker) -> None:
    rows = [[number, f"v{number}"] for number in range(5000)]
    ran = await worker.run("INSERT INTO t (id, v) VALUES (%s, %s)", rows, is_many=True)
    assert ran.chunk.row_count == 5000
    assert case.rows("SELECT count(*) FROM t") == [(5000,)]
    # All or nothing, also without a transaction of the caller's.
    failed = await worker.fail("INSERT INTO t (id, v) VALUES (%s, %s)", [[9000, "x"], [1, "y"]], is_many=True)
    assert failed.name in ("IntegrityError", "UniqueViolation")
    assert case.rows("SELECT count(*) FROM t") == [(5000,)]


async def test_many_rows_and_streams_of_ctx_db_cross_to_a_server(case: Case, worker: Worker) -> None:
    rows = [{"id": number, "v": f"v{number}"} for number in range(3000)]
    insert = "INSERT INTO t (id, v) VALUES (:id, :v)"
    assert await worker.call("execute", Query(insert, rows)) == 3000
    assert case.rows("SELECT count(*) FROM t") == [(3000,)]
    assert await worker.call("execute", Query(insert, [])) == 0
    ran = await worker.call("stream", Query("SELECT id, v FROM t WHERE id >= :low ORDER BY id", {"low": 10}))
    assert [row[0] async for row in worker.rest(ran)] == list(range(10, 3000))
    number = await worker.call("begin", None)
    ran = await worker.call("stream", Query(SERIES[case.kind].format(100_000), None, number))
    await worker.call("drop", [ran.cursor])
    assert await worker.call("execute", Query("DELETE FROM t WHERE id < :top", {"top": 10}, number)) == 10
    await worker.call("commit", number)
    assert case.rows("SELECT count(*) FROM t") == [(2990,)]


async def test_of_ctx_db_s_many_rows_none_is_kept_when_one_fails(case: Case, worker: Worker) -> None:
    insert = "INSERT INTO t (id, v) VALUES (:id, :v)"
    # MariaDB takes them in several statements, of which the last one fails.
    rows = [{"id": number, "v": f"{number:0100}"} for number in [*range(2000), 5]]
    for number in (None, await worker.call("begin", None)):
        with pytest.raises(DatabaseError):
            await worker.call("execute", Query(insert, rows, number))
        if case.kind == "mariadb" and number is not None:
            found = await worker.call("fetch_one", Query("SELECT count(*) AS n FROM t", None, number))
            assert msgspec.msgpack.decode(found.pieces[0]) == [[0]]
            assert await worker.call("execute", Query(insert, rows[:10], number)) == 10
            await worker.call("commit", number)
            assert case.rows("SELECT count(*) FROM t") == [(10,)]
        else:
            assert case.rows("SELECT count(*) FROM t") == [(0,)]


async def test_a_row_that_fails_late_fails_the_fetch_and_leaves_the_connection_usable(
    case: Case, worker: Worker
) -> None:
    if case.kind == "mariadb":
        case.rows(
            "CREATE PROCEDURE p() BEGIN SELECT 1 AS a; SELECT 2 AS b; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'late'; END"
        )
        failed = await worker.fail("CALL p()")
        assert (failed.code, failed.text) == (1644, "(1644, 'late')")
        assert await worker.rows("SELECT 1") == [[1]]
        return
    statement = "SELECT 1 / (20000 - i), repeat('x', 100) FROM generate_series(1, 100000) AS i"
    for begins in (False, True):
        ran = await worker.run(statement, begins=begins)
        answer: Any = ran.chunk
        while isinstance(answer, Chunk):
            answer = await worker.call("fetch", Fetch(ran.cursor or 0))
        assert (answer.name, answer.transaction, answer.is_lost) == ("DivisionByZero", ran.transaction, False)
        assert isinstance(await worker.call("fetch", Fetch(ran.cursor or 0)), Failed)
        if begins:
            await worker.end(answer, commit=False)
        assert await worker.rows("SELECT 1") == [[1]]


async def test_a_value_that_python_has_no_room_for_is_the_driver_s_error(case: Case, worker: Worker) -> None:
    if case.kind == "mariadb":
        # Its driver gives the text.
        assert await worker.rows("SELECT CAST(0 AS DATE)") == [["0000-00-00"]]
        return
    for begins in (False, True):
        failed = await worker.fail(
            "SELECT 'infinity'::date, repeat('x', 10000) FROM generate_series(1, 1000)", begins=begins
        )
        assert failed.name == "DataError"
        assert await worker.rows("SELECT 1", transaction=failed.transaction) == [[1]]
        if begins:
            await worker.end(failed)


async def test_what_a_procedure_says_behind_its_first_result_is_read_and_left(
    case: Case, worker: Worker
) -> None:
    if case.kind == "mariadb":
        case.rows(
            "CREATE PROCEDURE p() BEGIN SELECT 1 AS a; SELECT 2 AS b; INSERT INTO t VALUES (1, 'a'); END"
        )
        first, last = "CALL p()", "SELECT count(*) FROM t"
    else:
        # Several statements in one text: the driver has further results, too.
        first, last = "SELECT 1 AS a; SELECT 2 AS b; INSERT INTO t VALUES (1, 'a')", "SELECT count(*) FROM t"
    for count, begins in ((1, False), (2, True)):
        ran = await worker.run(first, begins=begins)
        assert ran.columns == ["a"]
        assert [row async for row in worker.rest(ran)] == [[1]]
        assert await worker.rows(last, transaction=ran.transaction) == [[1]]
        if begins:
            await worker.end(ran)
        case.rows(f"DELETE FROM t WHERE {count} = {count}")


async def test_a_commit_that_is_written_as_a_statement_begins_the_next_transaction(
    case: Case, worker: Worker
) -> None:
    ran = await worker.run("INSERT INTO t VALUES (1, 'a')", begins=True)
    await worker.run("COMMIT", transaction=ran.transaction)
    await worker.run("INSERT INTO t VALUES (2, 'b')", transaction=ran.transaction)
    assert case.rows("SELECT id FROM t") == [(1,)]
    assert await worker.end(ran, commit=False) is None
    assert case.rows("SELECT id FROM t") == [(1,)]


async def test_tasks_of_one_transaction_take_turns(case: Case, worker: Worker) -> None:
    db = local(worker.service)
    async with db.transaction() as tx:
        inserts = (tx.execute("INSERT INTO t (id) VALUES (:id)", {"id": number}) for number in range(20))
        assert await asyncio.gather(*inserts) == [1] * 20
    assert case.rows("SELECT count(*) FROM t") == [(20,)]


async def test_a_row_longer_than_a_frame_is_refused(case: Case) -> None:
    worker = Worker(await case.service(frame_bytes=1 << 16, server_connections=1))
    for begins in (False, True):
        failed = await worker.fail("SELECT repeat('x', 70000) AS v", begins=begins)
        assert failed.name == "DataError"
        assert "limits.frame_bytes" in failed.text
        assert await worker.rows("SELECT 1", transaction=failed.transaction) == [[1]]
        await worker.call("reset", None)
    assert await worker.rows(
        "SELECT repeat('x', 40000) AS v, i FROM (SELECT 1 AS i UNION SELECT 2) AS two"
    ) == [
        ["x" * 40000, 1],
        ["x" * 40000, 2],
    ]


async def test_ctx_db_begins_a_transaction_with_its_first_statement(case: Case, workshop: Workshop) -> None:
    service = await case.service(server_connections=1)
    case.rows("CREATE TABLE t (id INTEGER PRIMARY KEY, v VARCHAR(200) UNIQUE)")
    channel = await workshop.channel_to({"db": service})
    db = DatabaseStub(channel, is_server=True)
    methods: list[str] = []
    call = channel.call

    def noted(name: str, method: str, *rest: Any) -> Any:
        methods.append(method)
        return call(name, method, *rest)

    channel.call = noted  # type: ignore[method-assign,assignment]

    def handler() -> None:
        with db.transaction():
            pass
        assert methods == []
        with db.transaction() as tx:
            tx.execute("INSERT INTO t VALUES (1, 'a')")
            assert tx.fetch_one("SELECT count(*) AS n FROM t") == {"n": 1}
        assert methods == ["execute", "fetch_one", "commit"]
        with pytest.raises(ZeroDivisionError), db.transaction() as tx:
            tx.execute("DELETE FROM t")
            raise ZeroDivisionError
        # A first statement that fails has begun it all the same.
        with pytest.raises(DatabaseError), db.transaction() as tx:
            tx.execute("INSERT INTO t VALUES (1, 'b')")
        with db.transaction() as tx:
            with pytest.raises(DatabaseError, match="no value is given"):
                tx.execute("INSERT INTO t VALUES (:id, 'c')", {})
            tx.execute("INSERT INTO t VALUES (2, 'b')")
        # A block that outlives its message commits nothing, and says so.
        block = db.transaction()
        with block as tx:
            tx.execute("INSERT INTO t VALUES (3, 'c')")
            db.reset()
            with pytest.raises(DatabaseError, match="is over"):
                block.__exit__(None, None, None)
        assert not db.in_transaction

    await asyncio.to_thread(handler)
    assert case.rows("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


async def test_more_parameters_than_postgresql_counts_fail_their_statement_alone(
    case: Case, worker: Worker
) -> None:
    if case.kind == "mariadb":
        pytest.skip("only PostgreSQL counts parameters, in 16 bits")
    statement = f"SELECT {' + '.join(['%s'] * 65_536)}"
    for begins in (False, True):
        failed = await worker.fail(statement, [1] * 65_536, begins=begins)
        assert (failed.name, failed.is_lost) == ("OperationalError", False)
        assert "65535" in failed.text
        if begins:
            await worker.run("INSERT INTO t VALUES (1, 'a')", transaction=failed.transaction)
            assert await worker.end(failed) is None
    assert await worker.rows("SELECT id FROM t") == [[1]]


async def test_a_library_that_knows_no_chunks_sends_row_by_row(
    case: Case, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.kind == "mariadb":
        pytest.skip("only PostgreSQL's library has chunks")
    # As before version 17 of libpq.
    monkeypatch.setattr(type(psycopg.capabilities), "has_stream_chunked", lambda _: False)
    for begins in (False, True):
        ran = await worker.run(SERIES[case.kind].format(5000), begins=begins)
        assert len([row async for row in worker.rest(ran)]) == 5000
        assert (await worker.run("SELECT 1", transaction=ran.transaction)).chunk.row_count == 1
        await worker.call("reset", None)
