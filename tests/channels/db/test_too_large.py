"""A statement that no frame carries: it says what was too large, and leaves the transaction as it was."""

# ruff: noqa: PT012 - a block that raises is what is tested

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from penstock.channels.db.stub import DatabaseStub
from penstock.errors import DatabaseError, FrameError
from tests.channels.db.databases import Case
from tests.channels.db.series import SERIES, metadata

LONG = {"v": "x" * 5000}
WRITE = "INSERT INTO marks (id, v) VALUES (:id, NULL)"
LARGE = "SELECT length(:v) AS n"


async def run_with(each: Case, handler: Callable[[DatabaseStub], None]) -> list[int]:
    """What the handler has written."""
    await asyncio.to_thread(handler, await each.stub(metadata, frame_bytes=4096))
    return [row["id"] for row in each.plain(metadata.tables["marks"].select())]


async def test_as_the_first_of_a_transaction_it_begins_nothing_and_is_told_as_what_it_is(each: Case) -> None:
    def handler(db: DatabaseStub) -> None:
        with pytest.raises(FrameError) as raised, db.transaction() as tx:
            tx.fetch_one(LARGE, LONG)
        words = str(raised.value)
        assert words.startswith(f"{LARGE} is too large with its parameters: a frame of 50")
        assert "limits.frame_bytes = 4096; nothing was sent" in words
        assert LONG["v"] not in words
        assert ("the transaction is not begun" in words) is (each.kind != "sqlite")
        # Whoever catches it ends an empty block.
        with db.transaction() as tx, pytest.raises(FrameError):
            tx.fetch_one(LARGE, LONG)
        with pytest.raises(FrameError, match=r"at once$"):
            db.fetch_one(LARGE, LONG)
        with db.transaction() as tx:
            with pytest.raises(FrameError):
                tx.fetch_one(LARGE, LONG)
            tx.execute(WRITE, {"id": 1})

    assert await run_with(each, handler) == [1]


async def test_behind_another_statement_it_leaves_the_transaction_as_it_was(each: Case) -> None:
    def handler(db: DatabaseStub) -> None:
        with db.transaction() as tx:
            tx.execute(WRITE, {"id": 1})
            with pytest.raises(FrameError) as raised:
                tx.fetch_one(LARGE, LONG)
            assert "not begun" not in str(raised.value)
        with pytest.raises(FrameError), db.transaction() as tx:
            tx.execute(WRITE, {"id": 2})
            tx.fetch_one(LARGE, LONG)

    assert await run_with(each, handler) == [1]


async def test_an_answer_that_is_too_large_has_begun_the_transaction(each: Case) -> None:
    def handler(db: DatabaseStub) -> None:
        with db.transaction() as tx:
            with pytest.raises(DatabaseError, match=r"limits\.frame_bytes"):
                tx.fetch_all(SERIES[each.kind].format(100))
            assert db.in_transaction
            tx.execute(WRITE, {"id": 1})

    assert await run_with(each, handler) == [1]


@pytest.mark.parametrize("inside", [False, True])
async def test_one_of_many_rows_that_is_too_large_keeps_none_of_them(each: Case, inside: bool) -> None:
    rows = [{"id": number, "v": "x" * (5000 if number == 400 else 1)} for number in range(1, 402)]

    def write(db: DatabaseStub) -> None:
        with pytest.raises(FrameError):
            db.execute("INSERT INTO marks (id, v) VALUES (:id, NULLIF(:v, 'x'))", rows)

    def handler(db: DatabaseStub) -> None:
        if not inside:
            write(db)
            return
        with db.transaction() as tx:
            tx.execute(WRITE, {"id": 1000})
            write(db)

    assert await run_with(each, handler) == ([1000] if inside else [])
