"""One statement for many rows of parameters: it crosses once, all or none, and the numbers are added up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam, func, insert, select, update

from penstock.channels.db.calls import Query
from penstock.errors import DatabaseError
from tests.channels.conftest import MakeService, until
from tests.channels.conftest import local as local_to
from tests.channels.db.databases import Case, Crossings

metadata = MetaData()
numbers = Table(
    "numbers", metadata, Column("id", Integer, primary_key=True), Column("v", String(2000), unique=True)
)
COUNT = select(func.count().label("n")).select_from(numbers)
TEXT = "INSERT INTO numbers (id, v) VALUES (:id, :v)"


def rows(first: int, count: int, size: int = 0) -> list[dict[str, Any]]:
    return [{"id": n, "v": f"{n:09}" + "x" * size} for n in range(first, first + count)]


@pytest.mark.parametrize("statement", [TEXT, insert(numbers)], ids=["text", "core"])
async def test_it_crosses_once_and_counts_all(
    each: Case, monkeypatch: pytest.MonkeyPatch, statement: Any
) -> None:
    db = await each.stub(metadata)
    crossings = Crossings(each, monkeypatch)

    def handler() -> None:
        assert db.fetch_one(COUNT) == {"n": 0}
        crossings.methods.clear()
        assert db.execute(statement, rows(1, 1000)) == 1000
        assert crossings.methods == ["execute"]
        assert db.execute(statement, rows(2001, 1)) == 1
        change = update(numbers).where(numbers.c.id == bindparam("which")).values(v=bindparam("new"))
        assert db.execute(change, [{"which": n, "new": str(n)} for n in (1, 2, 99_999)]) == 2
        with db.transaction() as tx:
            assert tx.execute(statement, rows(3001, 5)) == 5
        crossings.methods.clear()
        assert db.execute(statement, []) == 0
        assert db.execute(statement, ()) == 0
        assert crossings.methods == []
        assert db.fetch_one(COUNT) == {"n": 1006}

    await asyncio.to_thread(handler)


@pytest.mark.parametrize("statement", [TEXT, insert(numbers)], ids=["text", "core"])
@pytest.mark.parametrize("size", [0, 1000], ids=["one frame", "several frames"])
async def test_a_row_that_fails_leaves_none_of_them(
    each: Case, monkeypatch: pytest.MonkeyPatch, statement: Any, size: int
) -> None:
    db = await each.stub(metadata, frame_bytes=1 << 16)
    crossings = Crossings(each, monkeypatch)

    def handler() -> None:
        db.execute(statement, {"id": 150, "v": "in the way"})
        crossings.methods.clear()
        with pytest.raises(DatabaseError) as raised:
            db.execute(statement, rows(100, 100, size))
        assert raised.value.kind in ("IntegrityError", "UniqueViolation")
        assert (crossings.methods.count("execute") > 1) == bool(size)
        assert db.fetch_one(COUNT) == {"n": 1}
        with db.transaction() as tx:
            tx.execute(statement, rows(1, 2))
            if each.kind == "postgresql" and not size:
                # One statement that fails ends PostgreSQL's transaction, as it does on a connection.
                return
            with pytest.raises(DatabaseError):
                tx.execute(statement, rows(100, 100, size))
            assert tx.execute(statement, rows(500, 100, size)) == 100
        assert db.fetch_one(COUNT) == {"n": 103}

    await asyncio.to_thread(handler)


async def test_more_than_a_frame_goes_in_parts_inside_one_transaction(
    each: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = await each.stub(metadata, frame_bytes=1 << 16)
    await asyncio.to_thread(db.fetch_one, COUNT)
    crossings = Crossings(each, monkeypatch)

    def handler() -> None:
        assert db.execute(insert(numbers), rows(1, 500, 1000)) == 500
        if each.kind == "sqlite":
            # On a server it begins with the first statement.
            assert crossings.methods.pop(0) == "begin"
        assert crossings.methods.pop() == "commit"
        assert set(crossings.methods) == {"execute"}
        assert db.fetch_one(COUNT) == {"n": 500}

    await asyncio.to_thread(handler)


async def test_many_rows_of_an_async_handler_are_inserted_all_or_none(each: Case) -> None:
    db = await each.local(metadata)
    assert await db.execute(TEXT, rows(1, 100)) == 100
    assert await db.execute(insert(numbers), rows(101, 100)) == 100
    assert await db.execute(insert(numbers), []) == 0
    with pytest.raises(DatabaseError):
        await db.execute(insert(numbers), rows(200, 10))
    async with db.transaction() as tx:
        assert await tx.execute(insert(numbers), rows(201, 3)) == 3
    assert await db.fetch_one(COUNT) == {"n": 203}
    with pytest.raises(DatabaseError, match=r"are for execute\(\)"):
        await db.fetch_all("SELECT * FROM numbers WHERE id = :id", [{"id": 1}, {"id": 2}])
    with pytest.raises(DatabaseError, match=r"are for execute\(\)"):
        async for _ in db.stream(COUNT, [{}]):
            pass


@pytest.mark.parametrize("statement", [TEXT, insert(numbers)], ids=["text", "core"])
async def test_the_loop_turns_while_an_async_handler_s_many_rows_are_made_ready(
    each: Case, statement: Any
) -> None:
    db = await each.local(metadata)
    await db.execute(statement, rows(9000, 1))
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = asyncio.create_task(turn())
    preparing = db._prepared(statement, rows(1, 5001), gives_rows=False)
    prepared = await preparing
    turning.cancel()
    assert turns >= 20
    assert len(prepared.parameters) == 5001
    assert await db.execute(statement, rows(1, 5001)) == 5001
    # The first row says which columns there are, wherever a slice begins.
    uneven = [{"id": 6000 + n} for n in range(250)] + rows(6250, 10)
    assert await db.execute(insert(numbers), uneven) == 260
    assert await db.fetch_one(COUNT) == {"n": 5262}
    assert await db.fetch_one(select(numbers.c.v).where(numbers.c.id == 6255)) == {"v": None}


async def test_rows_may_go_by_place_on_sqlite(make_service: MakeService) -> None:
    db = local_to(make_service())
    await db.execute("CREATE TABLE t (a, b)")
    assert await db.execute("INSERT INTO t VALUES (?, ?)", [(1, None), (2, b"x")]) == 2
    assert await db.execute("INSERT INTO t VALUES (?, ?)", [[3, "c"]]) == 1
    assert await db.execute("INSERT INTO t VALUES (?, ?)", [4, "d"]) == 1, "the parameters of one row"
    assert await db.execute("INSERT INTO t VALUES ('?', ':a')", []) == 1, "no parameters"
    assert await db.execute("INSERT INTO t VALUES (?, ?)", []) == 0, "no rows"
    assert await db.fetch_one("SELECT count(*) AS n FROM t") == {"n": 5}
    with pytest.raises(DatabaseError, match="which SQLite cannot store"):
        await db.execute("INSERT INTO t VALUES (?, ?)", [(1, object())])
    with pytest.raises(DatabaseError, match="a mapping for :name or a sequence"):
        await db.execute("INSERT INTO t VALUES (?, ?)", [(1, 2), 3])


async def test_it_shares_a_commit_with_others_and_not_their_fate(make_service: MakeService) -> None:
    service = make_service()
    await local_to(service).execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")

    async def write(worker: int, values: list[int]) -> int | str:
        try:
            many = [{"id": value} for value in values]
            return await local_to(service, str(worker)).execute("INSERT INTO t VALUES (:id)", many)
        except DatabaseError as error:
            return error.kind

    async with local_to(service, "first").transaction():
        writing = [
            asyncio.create_task(write(1, [1, 2, 3])),
            asyncio.create_task(write(2, [4, 5, 1])),
            asyncio.create_task(write(3, [6, 7])),
        ]
        await until(lambda: (counts := service.statistics()) is not None and counts.waiting == 3)
    assert await asyncio.gather(*writing) == [3, "IntegrityError", 2]
    found = await local_to(service).fetch_all("SELECT id FROM t")
    assert [row["id"] for row in found] == [1, 2, 3, 6, 7]


def test_a_list_of_rows_is_told_from_a_list_of_values() -> None:
    from penstock.channels.db.sqlite.group import Statement

    for parameters, is_many in (
        (None, False),
        ([], False),
        ([1, 2], False),
        ({"a": 1}, False),
        ([[1]], True),
        ([{"a": 1}], True),
    ):
        assert Statement("", Query("", parameters).parameters, "execute").is_many == is_many
