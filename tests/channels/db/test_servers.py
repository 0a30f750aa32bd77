"""The database channel on real servers, MariaDB and PostgreSQL: values, transactions, few connections for many, and ends."""

# ruff: noqa: PT012 - a block that raises is what is tested

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import threading
from decimal import Decimal
from types import SimpleNamespace
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from psycopg.types.range import Range

from penstock import App, AsyncContext, Context
from penstock.channels.db.service import DatabaseService
from penstock.channels.db.stub import DatabaseStub
from penstock.config.database import DatabaseSection
from penstock.errors import ChannelClosed, ConfigurationError, DatabaseBusy, DatabaseError
from penstock.testing import Worker
from tests.channels.conftest import FRAME_BYTES, Workshop, local, until
from tests.channels.db.series import SERIES
from tests.channels.db.server_case import KINDS, SLEEP, Case
from tests.servers import Server


async def test_statements_take_names_and_are_committed_each(case: Case) -> None:
    db = await case.db()
    assert await db.execute("INSERT INTO t (id, v) VALUES (:id, :v), (2, 'b')", {"id": 1, "v": "ä'%s:x"}) == 2
    assert case.rows("SELECT count(*) FROM t") == [(2,)]
    assert await db.fetch_one("SELECT v FROM t WHERE id = :id", {"id": 1}) == {"v": "ä'%s:x"}
    assert await db.fetch_one("SELECT v FROM t WHERE id = 99") is None
    assert await db.fetch_all("SELECT id FROM t ORDER BY id") == [{"id": 1}, {"id": 2}]
    assert await db.execute("UPDATE t SET v = 'c' WHERE id = 7") == 0
    assert await db.execute("SELECT * FROM t") == 0
    assert await db.fetch_all("WITH a AS (SELECT 1 AS one) SELECT one FROM a") == [{"one": 1}]
    with pytest.raises(DatabaseError, match="go by name"):
        await db.execute("INSERT INTO t (id) VALUES (:id)", [1])


async def test_values_keep_their_types(case: Case) -> None:
    day, moment = dt.date(2026, 1, 31), dt.datetime(2026, 1, 31, 13, 5, 0, 123456)  # noqa: DTZ001
    values = {
        "a": Decimal("12345678901234567890.123456"),
        "b": moment,
        "c": day,
        "d": 2**63 - 1,
        "e": b"\0\xff",
        "f": None,
        "g": 1.5,
        "h": "ä😀",
    }
    decimal, timestamp, blob, text = {
        "mariadb": ("DECIMAL(30,6)", "DATETIME(6)", "BLOB", "VARCHAR(9) CHARACTER SET utf8mb4"),
        "postgresql": ("NUMERIC(30,6)", "TIMESTAMP", "BYTEA", "VARCHAR(9)"),
    }[case.kind]
    db = await case.db()
    await db.execute(
        f"CREATE TABLE x (a {decimal}, b {timestamp}, c DATE, d BIGINT, e {blob}, f INTEGER, g DOUBLE PRECISION, h {text})"
    )
    await db.execute("INSERT INTO x VALUES (:a, :b, :c, :d, :e, :f, :g, :h)", values)
    row = await db.fetch_one("SELECT * FROM x")
    assert row is not None
    assert dict(row) == values
    assert [type(value) for value in row.values()] == [type(value) for value in values.values()]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            "json '\"\\ud800\"'",
            "a value of column v holds a lone surrogate at character 0, .*the statement has run, and outside a transaction",
        ),
        ("(repeat('[', 9000) || repeat(']', 9000))::json", "nested too deeply .*the statement may have run"),
    ],
)
async def test_a_value_that_does_not_cross_is_not_said_to_have_changed_nothing(
    postgresql_url: str, postgresql: Server, value: str, words: str
) -> None:
    case = Case("postgresql", postgresql, postgresql_url)
    db = await case.db()
    for fetch in (db.fetch_all, db.fetch_one):
        with pytest.raises(DatabaseError, match=words) as caught:
            await fetch(f"INSERT INTO t (id) VALUES ((SELECT count(*) FROM t)) RETURNING {value} AS v")
        assert "nothing was run" not in str(caught.value)
    assert case.rows("SELECT count(*) FROM t") == [(2,)]
    for service in case.made:
        await service.aclose()


async def test_values_that_only_one_of_them_knows_keep_their_types(case: Case) -> None:
    db = await case.db()
    if case.kind == "mariadb":
        row = await db.fetch_one(
            "SELECT CAST('-30:00:01' AS TIME) AS t, JSON_OBJECT('a', 1) AS j, 18446744073709551615 AS u"
        )
        assert row == {"t": -dt.timedelta(hours=30, seconds=1), "j": '{"a": 1}', "u": 2**64 - 1}
        return
    moment = dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)
    given = {
        "u": UUID(int=5),
        "j": {"a": [1, {"b": None}]},
        "m": moment,
        "l": [1, 2],
        "d": dt.timedelta(days=2, seconds=1),
        "n": 10**30,
    }
    row = await db.fetch_one(
        "SELECT CAST(:u AS uuid) AS u, CAST(:j AS jsonb) AS j, CAST(:m AS timestamptz) AS m, CAST(:l AS integer[]) AS l, "
        "CAST(:d AS interval) AS d, CAST(:n AS numeric) AS n, true AS b",
        given,
    )
    assert row == {**given, "n": Decimal(10**30), "b": True}
    assert row is not None
    assert row["m"].utcoffset() is not None
    # A session's zone by name arrives as one.
    async with db.transaction() as tx:
        await tx.execute("SET LOCAL TIME ZONE 'Europe/Berlin'")
        there = await tx.fetch_one("SELECT CAST('2026-07-01 12:00+00' AS timestamptz) AS m")
    assert there is not None
    assert (there["m"], there["m"].tzinfo) == (moment, ZoneInfo("Europe/Berlin"))
    # The first hour of the calendar is Greenwich's year 0; psycopg does not read that.
    first = dt.datetime(1, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    with pytest.raises(DatabaseError, match="depends on the day"):
        await db.fetch_one("SELECT CAST(:t AS timetz)", {"t": dt.time(1, tzinfo=ZoneInfo("Europe/Berlin"))})
    text = "CAST(:m AS timestamptz) = CAST('0001-01-01 00:00:00+00:53:28' AS timestamptz)"
    assert await db.fetch_one(f"SELECT {text} AS same, :n::int AS n", {"m": first, "n": 5}) == {
        "same": True,
        "n": 5,
    }
    found = await db.fetch_one("SELECT int4range(1, 5) AS r, CAST('10.0.0.1' AS inet) AS i, ROW(1, 'a') AS o")
    assert found == {"r": Range(1, 5, "[)"), "i": ipaddress.ip_address("10.0.0.1"), "o": ("1", "a")}


async def test_a_block_commits_together_or_not_at_all(case: Case) -> None:
    db = await case.db()
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (1, 'a')")
        assert await tx.fetch_one("SELECT count(*) AS n FROM t") == {"n": 1}
        assert case.rows("SELECT count(*) FROM t") == [(0,)]
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (2, 'b')")
            raise ZeroDivisionError
    assert case.rows("SELECT id FROM t") == [(1,)]


@pytest.mark.parametrize(
    "commit",
    ["COMMIT", "; end", "/**/COMMIT", "/* a /* b */ c */ -- d\nCOMMIT AND CHAIN", "PREPARE TRANSACTION 'x'"],
)
async def test_a_commit_by_text_after_an_error_never_pretends(case: Case, commit: str) -> None:
    if case.kind == "mariadb":
        pytest.skip("an error undoes its statement alone there")
    db = await case.db()
    with pytest.raises(DatabaseError, match="cannot be committed"):
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1, 'a')")
            with pytest.raises(DatabaseError, match="duplicate key"):
                await tx.execute("INSERT INTO t VALUES (1, 'b')")
            with pytest.raises(DatabaseError, match="cannot be committed"):
                await tx.execute(commit)
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (2, 'a')")
        with pytest.raises(DatabaseError, match="duplicate key"):
            await tx.execute("INSERT INTO t VALUES (2, 'b')")
        await tx.execute("ROLLBACK")
        await tx.execute("INSERT INTO t VALUES (3, 'c')")
    assert case.rows("SELECT id FROM t") == [(3,)]


async def test_an_error_has_the_driver_s_kind_and_leaves_the_connection_usable(case: Case) -> None:
    db = await case.db(server_connections=1)
    await db.execute("INSERT INTO t VALUES (1, 'a')")
    with pytest.raises(DatabaseError) as raised:
        await db.execute("INSERT INTO t VALUES (:id, :v)", {"id": 1, "v": "a secret"})
    assert raised.value.kind in ("IntegrityError", "UniqueViolation")
    assert "a secret" not in str(raised.value)
    with pytest.raises(DatabaseError, match="nowhere"):
        await db.fetch_all("SELECT * FROM nowhere")
    assert await db.fetch_one("SELECT count(*) AS n FROM t") == {"n": 1}


async def test_many_workers_share_few_connections(case: Case) -> None:
    service = await case.service(server_connections=3)
    await local(service).execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v VARCHAR(200) UNIQUE)")
    most = 0

    async def work(number: int) -> None:
        nonlocal most
        db = local(service, f"slot {number}")
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (:id, :v)", {"id": number, "v": str(number)})
            most = max(most, case.connections())
        await db.fetch_one("SELECT v FROM t WHERE id = :id", {"id": number})

    await asyncio.gather(*(work(number) for number in range(32)))
    assert case.rows("SELECT count(*) FROM t") == [(32,)]
    assert 1 <= most <= 3


async def test_waiting_for_a_connection_ends(case: Case) -> None:
    service = await case.service(server_connections=1, wait_s=0.1)
    async with local(service).transaction() as tx:
        # Until its first statement it holds none.
        assert await local(service, "another").fetch_one("SELECT 1 AS one") == {"one": 1}
        await tx.fetch_one("SELECT 1 AS one")
        with pytest.raises(DatabaseBusy, match=r"database\.server_connections"):
            await local(service, "another").fetch_one("SELECT 1 AS one")


async def test_an_idle_transaction_is_rolled_back(case: Case) -> None:
    db = await case.db(transaction_idle_s=0.05, server_connections=1)
    with pytest.raises(DatabaseError, match="transaction_idle_s"):
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1, 'a')")
            # Its connection is somebody else's again.
            assert await local(case.made[-1], "another").fetch_one("SELECT count(*) AS n FROM t") == {"n": 0}
            await tx.execute("INSERT INTO t VALUES (2, 'b')")
    assert case.rows("SELECT count(*) FROM t") == [(0,)]


async def test_a_large_result_is_refused_in_bounded_memory_and_a_first_row_is_not(case: Case) -> None:
    db = await case.db(frame_bytes=1 << 20)
    with pytest.raises(DatabaseError, match=r"limits\.frame_bytes"):
        await db.fetch_all(SERIES[case.kind].format(1_000_000))
    row = await db.fetch_one(SERIES[case.kind].format(1_000_000))
    assert row is not None
    assert row["i"] == 1
    assert len(await db.fetch_all(SERIES[case.kind].format(5000))) == 5000


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_a_dead_worker_s_statement_is_ended_on_the_server(
    case: Case, workshop: Workshop, in_transaction: bool
) -> None:
    db = await case.db()
    service = case.made[-1]
    stub = DatabaseStub(await workshop.channel_to({"db": service}), is_server=True)
    server = workshop.servers[-1]

    def run() -> None:
        if in_transaction:
            with stub.transaction() as tx:
                tx.execute("INSERT INTO t VALUES (1, 'a')")
                tx.fetch_all(SLEEP[case.kind])
        else:
            stub.fetch_all(SLEEP[case.kind])

    def dying() -> None:
        with pytest.raises(ChannelClosed):
            run()

    thread = threading.Thread(target=dying, name="worker")
    thread.start()
    await until(case.sleeping)
    server.close()
    await until(lambda: not case.sleeping(), pause_s=0.01)
    await asyncio.to_thread(thread.join)
    # Nothing of it is held: the row can be written, by a worker of the same service.
    await db.execute("INSERT INTO t VALUES (1, 'b')")
    assert case.rows("SELECT v FROM t") == [("b",)]


async def test_a_server_that_was_restarted_is_found_again(request: pytest.FixtureRequest) -> None:
    for kind in KINDS:
        server: Server = request.getfixturevalue(f"own_{kind}")
        service = DatabaseService(
            DatabaseSection.model_validate({"url": server.url}), frame_bytes=FRAME_BYTES
        )
        await service.start()
        db = local(service)
        assert await db.fetch_one("SELECT 1 AS one") == {"one": 1}
        await asyncio.to_thread(server.stop)
        with pytest.raises(DatabaseBusy):
            await db.fetch_one("SELECT 1 AS one")
        await asyncio.to_thread(server.start)
        assert await db.fetch_one("SELECT 1 AS one") == {"one": 1}
        await service.aclose()


async def test_a_database_that_is_not_known_is_told_to_whoever_calls() -> None:
    service = DatabaseService(
        DatabaseSection.model_validate({"url": "oracle://u:p@h/d"}), frame_bytes=FRAME_BYTES
    )
    await service.start()
    with pytest.raises(ConfigurationError, match="SQLite, MySQL, MariaDB and PostgreSQL"):
        await local(service).fetch_one("SELECT 1")
    await service.aclose()


def test_handlers_of_both_kinds_reach_it(case: Case) -> None:
    app = App()

    @app.handler("plain")
    def plain(total: str, ctx: Context) -> None:
        with ctx.db.transaction() as tx:
            tx.execute("INSERT INTO x (total) VALUES (:total)", {"total": Decimal(total)})
            ctx.state.found = tx.fetch_all("SELECT total FROM x")

    @app.handler("on.the.loop")
    async def on_the_loop(total: str, ctx: AsyncContext) -> None:
        await ctx.db.execute("INSERT INTO x (total) VALUES (:total)", {"total": Decimal(total)})
        ctx.state.found = await ctx.db.fetch_all("SELECT total FROM x ORDER BY total")

    case.rows("CREATE TABLE x (total NUMERIC(10,2))")
    state = SimpleNamespace()
    with Worker(app, database=case.url, state=state) as worker:
        worker.run("plain", "9.90").raise_for_failure()
        assert state.found == [{"total": Decimal("9.90")}]
        worker.run("on.the.loop", "0.10").raise_for_failure()
        assert state.found == [{"total": Decimal("0.10")}, {"total": Decimal("9.90")}]
