"""`ctx.db.stream`: rows in chunks as they are read, nothing ahead of the reader, and nothing left when it has gone."""

# ruff: noqa: PT012 - a block that raises is what is tested

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import (
    DateTime,
    func,
    insert,
    literal_column,
    select,
    text,
)

from penstock.channels.db.stub import DatabaseStub
from penstock.errors import DatabaseBusy, DatabaseError
from tests.channels.conftest import MakeService, Workshop, until
from tests.channels.conftest import local as local_to
from tests.channels.db.databases import Case, Crossings, open_results, open_transactions
from tests.channels.db.series import SERIES, marks, metadata, row


def open_streams(case: Case) -> int:
    return open_results(case.services[-1])


def is_in_transaction(case: Case) -> bool:
    return open_transactions(case.services[-1]) > 0


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "in a transaction"])
async def test_rows_come_in_order_and_a_chunk_at_a_time(
    each: Case, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    db = await each.stub(metadata)
    crossings = Crossings(each, monkeypatch)

    def read(stream: Callable[[str], Any]) -> None:
        number = 0
        for number, found in enumerate(stream(SERIES[each.kind].format(20_000)), start=1):
            assert found == row(number)
        assert number == 20_000

    def handler() -> None:
        if inside:
            with db.transaction() as tx:
                tx.execute(insert(marks).values(id=1, v="a"))
                read(tx.stream)
                assert [found["v"] for found in tx.stream(select(marks.c.v))] == ["a"]
        else:
            read(db.stream)
        assert list(db.stream("SELECT 1 AS one WHERE 1 = 0")) == []

    await asyncio.to_thread(handler)
    assert crossings.methods.count("fetch") >= 6
    assert crossings.largest <= 330 * 1024
    assert open_streams(each) == 0


async def test_an_async_handler_s_rows_come_chunk_by_chunk(each: Case) -> None:
    db = await each.local(metadata)
    number = 0
    async for found in db.stream(SERIES[each.kind].format(20_000)):
        number += 1
        assert found == row(number)
    assert number == 20_000
    async with db.transaction() as tx:
        await tx.execute(insert(marks).values(id=1, v="a"))
        assert [found async for found in tx.stream(select(marks))] == [{"id": 1, "v": "a"}]
        async with tx.stream(SERIES[each.kind].format(20_000)) as rows:
            assert await anext(rows) == row(1)
            if each.kind == "sqlite":
                assert await tx.execute(insert(marks).values(id=2, v="b")) == 1
            else:
                with pytest.raises(DatabaseError, match="still on the wire"):
                    await tx.execute(insert(marks).values(id=2, v="b"))
        assert await tx.execute(insert(marks).values(id=3, v="c")) == 1
    assert open_streams(each) == 0


async def test_types_are_made_of_streamed_rows(each: Case) -> None:
    db = await each.stub()
    moment = literal_column(
        "'2026-01-31 13:05:00'" if each.kind == "sqlite" else "TIMESTAMP '2026-01-31 13:05:00'", DateTime
    )

    def handler() -> None:
        (found,) = db.stream(select(moment.label("at")))
        assert found == db.fetch_one(select(moment.label("at")))
        assert found["at"].hour == 13

    await asyncio.to_thread(handler)


async def test_nothing_is_read_ahead_of_the_reader(each: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    db = await each.stub(metadata)
    crossings = Crossings(each, monkeypatch)

    def handler() -> None:
        # As good as endless: whoever read ahead would not come back.
        with db.stream(
            SERIES[each.kind].format(2_000_000_000 if each.kind == "sqlite" else 5_000_000)
        ) as rows:
            first = next(rows)
            assert first == row(1)
            assert crossings.methods == ["stream"]
            for number, found in enumerate(rows, start=2):
                if crossings.methods[-1] == "fetch":
                    # The second chunk was asked for when the first was used up, and not before.
                    assert found == row(number)
                    assert number > 500
                    break

    await asyncio.to_thread(handler)
    await until(lambda: crossings.methods == ["stream", "fetch", "drop"])
    await until(lambda: open_streams(each) == 0)


def leave(rows: Any, how: str) -> None:
    match how:
        case "break":
            for _ in rows:
                break
        case "raise":
            with pytest.raises(ZeroDivisionError):
                for found in rows:
                    _ = found["i"] / 0
        case "block":
            with rows:
                next(rows)
        case "close":
            next(rows)
            rows.close()
            rows.close()
            assert list(rows) == []
        case _:
            next(rows)


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "in a transaction"])
async def test_a_loop_that_is_left_early_leaves_nothing_open(each: Case, inside: bool) -> None:
    # With one connection to be had, the second loop would wait for what the first one left.
    options = {"readers": 1} if each.kind == "sqlite" else {"server_connections": 1}
    db = await each.stub(metadata, wait_s=5, **options)
    statement = SERIES[each.kind].format(10_000)

    def handler(how: str) -> None:
        for _ in range(3):
            if inside:
                with db.transaction() as tx:
                    leave(tx.stream(statement), how)
                    tx.execute("DELETE FROM marks")
            else:
                leave(db.stream(statement), how)
            assert db.fetch_one("SELECT 1 AS one") == {"one": 1}

    for how in ("break", "raise", "block", "close", "forgotten"):
        await asyncio.to_thread(handler, how)
        gc.collect()
        await until(lambda: open_streams(each) == 0)


async def test_inside_a_transaction_a_left_stream_is_closed_by_what_comes_next(
    each: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A rollback may be next, and to close it before that costs some servers the rest of the rows.
    db = await each.stub(metadata)
    crossings = Crossings(each, monkeypatch)

    def crossed() -> list[str]:
        # On a server a transaction begins with its first statement.
        return [method for method in crossings.methods if method != "begin"]

    def handler() -> None:
        with pytest.raises(ZeroDivisionError), db.transaction() as tx:
            with tx.stream(SERIES[each.kind].format(10_000)) as rows:
                next(rows)
            leave(rows, "break")
            assert crossed() == ["stream"]
            tx.execute("DELETE FROM marks")
            assert crossed() == ["stream", "drop", "execute"]
            for _ in tx.stream(SERIES[each.kind].format(10_000)):
                raise ZeroDivisionError
        assert crossed()[3:] == ["stream", "rollback"]
        assert db.fetch_one("SELECT 1 AS one") == {"one": 1}
        assert crossed()[5:] == ["fetch_one"]

    await asyncio.to_thread(handler)
    assert open_streams(each) == 0


async def test_a_loop_that_is_left_is_over_while_the_stream_is_still_there(each: Case) -> None:
    db = await each.stub(metadata)
    rows = await asyncio.to_thread(db.stream, SERIES[each.kind].format(100_000))

    def leave_it() -> None:
        for _ in rows:
            break

    await asyncio.to_thread(leave_it)
    await until(lambda: open_streams(each) == 0)
    assert await asyncio.to_thread(list, rows) == []


@pytest.mark.parametrize("how", ["break", "block", "cancelled"])
async def test_an_async_loop_that_is_left_early_leaves_nothing_open(each: Case, how: str) -> None:
    db = await each.local(metadata)
    statement = SERIES[each.kind].format(500_000)
    if how == "break":
        async for _ in db.stream(statement):
            break
    elif how == "block":
        async with db.stream(statement) as rows:
            async for _ in rows:
                break
    else:

        async def read() -> None:
            async for _ in db.stream(statement):
                pass

        reading = asyncio.create_task(read())
        await until(
            lambda: each.services[-1]._server is not None or each.services[-1]._sqlite._cursors is not None
        )
        await until(lambda: open_streams(each) > 0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        # What a delivery does at its end.
        db.close()
    await until(lambda: open_streams(each) == 0)
    assert await local_to(each.services[-1]).fetch_one("SELECT 1 AS one") == {"one": 1}


async def test_an_async_loop_that_is_left_stands_in_the_way_of_nothing(each: Case) -> None:
    db = await each.local(metadata)
    async with db.transaction() as tx:
        async for _ in tx.stream(SERIES[each.kind].format(20_000)):
            break
        assert await tx.fetch_one("SELECT 1 AS one") == {"one": 1}


async def test_a_message_s_end_ends_what_it_reads(each: Case) -> None:
    db = await each.stub(metadata)

    def handler() -> None:
        rows = iter(db.stream(SERIES[each.kind].format(100_000)))
        assert next(rows) == row(1)
        db.reset()
        with pytest.raises(DatabaseError, match="the message that they were read in has ended"):
            list(rows)
        with db.transaction() as tx:
            inside = tx.stream(SERIES[each.kind].format(100_000))
            assert next(inside) == row(1)
        with pytest.raises(DatabaseError, match="the transaction or the message"):
            list(inside)
        with pytest.raises(DatabaseError, match="block is not open"):
            tx.stream("SELECT 1")
        assert list(db.stream("SELECT 1 AS one")) == [{"one": 1}]

    await asyncio.to_thread(handler)
    await until(lambda: open_streams(each) == 0)


async def test_what_the_database_refuses_is_an_error_in_words(each: Case) -> None:
    db = await each.stub(metadata, frame_bytes=1 << 16)

    def handler() -> None:
        with pytest.raises(DatabaseError, match="nowhere"):
            db.stream("SELECT * FROM nowhere")
        with pytest.raises(DatabaseError, match=r"ctx\.db\.stream"):
            db.fetch_all(SERIES[each.kind].format(10_000))
        with db.transaction() as tx:
            with pytest.raises(DatabaseError, match=r"ctx\.db\.stream"):
                tx.fetch_all(SERIES[each.kind].format(10_000))
            assert len(list(tx.stream(SERIES[each.kind].format(10_000)))) == 10_000
        if each.kind == "sqlite":
            for refused in ("PRAGMA user_version", "SAVEPOINT x", "ATTACH 'x' AS y", "BEGIN"):
                with pytest.raises(DatabaseError, match="is refused"):
                    db.stream(refused)
        # One that fails in the middle.
        broken = {
            "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 90000) "
            "SELECT i, CASE WHEN i < 80000 THEN 1 ELSE abs(-9223372036854775808) END AS v FROM n",
            "mariadb": "SELECT seq AS i, CASE WHEN seq < 80000 THEN 1 ELSE (SELECT 1 UNION SELECT 2) END AS v FROM seq_1_to_90000",
            "postgresql": "SELECT i, 1 / (80000 - i) AS v FROM generate_series(1, 90000) AS i",
        }[each.kind]
        seen = 0
        with pytest.raises(DatabaseError) as raised:
            for _ in db.stream(broken):
                seen += 1
        assert each.kind == "mariadb" or 10_000 < seen < 80_000
        assert "SELECT" in str(raised.value)
        assert db.fetch_one("SELECT 1 AS one") == {"one": 1}

    await asyncio.to_thread(handler)
    assert open_streams(each) == 0


async def test_a_caller_that_finds_no_reader_in_time_is_not_charged(
    make_service: MakeService, workshop: Workshop
) -> None:
    service = make_service(readers=1, wait_s=0.05)
    first, second = [DatabaseStub(await workshop.channel_to({"db": service}, name)) for name in "ab"]

    def handler() -> None:
        with first.stream(SERIES["sqlite"].format(100_000)) as rows:
            next(rows)
            with pytest.raises(DatabaseBusy, match=r"database\.readers"):
                second.stream("SELECT 1")
            # ctx.db's other calls have readers of their own.
            assert second.fetch_one("SELECT 1 AS one") == {"one": 1}
        assert list(second.stream("SELECT 1 AS one")) == [{"one": 1}]

    await asyncio.to_thread(handler)


async def test_a_stream_that_is_thrown_away_in_the_middle_of_a_frame_is_told_with_the_next_one(
    each: Case,
) -> None:
    db = await each.stub(metadata)

    def handler() -> None:
        rows = db.stream(SERIES[each.kind].format(100_000))
        next(rows)
        # A finalizer runs anywhere, while its own thread writes, too: to wait there would be for ever.
        with db._channel._writes:
            del rows
            gc.collect()
        assert open_streams(each) > 0
        assert db.fetch_one("SELECT 1 AS one") == {"one": 1}

    await asyncio.to_thread(handler)
    await until(lambda: open_streams(each) == 0)


async def test_a_stream_that_reads_slowly_in_a_transaction_may_lose_it(each: Case) -> None:
    db = await each.stub(metadata, transaction_idle_s=0.05)
    gone = asyncio.Event()

    def handler() -> None:
        with pytest.raises(DatabaseError, match=r"transaction|gone"), db.transaction() as tx:
            rows = tx.stream(SERIES[each.kind].format(100_000))
            next(rows)
            asyncio.run_coroutine_threadsafe(gone.wait(), loop).result()
            list(rows)
        assert db.fetch_one(select(func.count().label("n")).select_from(marks)) == {"n": 0}
        assert list(db.stream(text("SELECT 1 AS one"))) == [{"one": 1}]

    loop = asyncio.get_running_loop()
    handling = asyncio.create_task(asyncio.to_thread(handler))
    await until(lambda: db._transaction is not None and db._streams)
    await until(lambda: not is_in_transaction(each))
    gone.set()
    await handling
