"""`ctx.db` in several threads of one handler: nobody's statement is in somebody else's transaction by accident."""

# ruff: noqa: PT012 - a block that raises is what is tested

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, select

from penstock.channels.db.stub import DatabaseStub
from penstock.errors import DatabaseError
from tests.channels.db.databases import Case

METADATA = MetaData()
ROWS = Table("t", METADATA, Column("id", Integer))
INSERT = "INSERT INTO t VALUES (:id)"
CALLS: tuple[Callable[[DatabaseStub], Any], ...] = (
    lambda db: db.execute(INSERT, {"id": 2}),
    lambda db: db.execute(INSERT, [{"id": 3}, {"id": 4}]),
    lambda db: db.fetch_all("SELECT id FROM t"),
    lambda db: db.fetch_one(select(ROWS)),
    lambda db: list(db.stream("SELECT id FROM t")),
    lambda db: db.transaction().__enter__(),
)


async def test_another_thread_is_not_inside_a_transaction_and_told_so_at_once(each: Case) -> None:
    db = await each.stub(METADATA)

    def handler() -> None:
        with ThreadPoolExecutor(1) as other:
            with pytest.raises(KeyError), db.transaction() as tx:
                tx.execute(INSERT, {"id": 1})
                for call in CALLS:
                    began_s = time.monotonic()
                    with pytest.raises(
                        DatabaseError, match="another thread of this handler has a transaction"
                    ):
                        other.submit(call, db).result()
                    assert time.monotonic() - began_s < 2
                assert db.execute(INSERT, {"id": 5}) == 1, "this thread is inside"
                raise KeyError
            # It is over: whoever comes now is alone.
            assert other.submit(db.execute, INSERT, {"id": 6}).result() == 1

    await asyncio.to_thread(handler)
    assert each.plain(select(ROWS)) == [{"id": 6}]


async def test_another_thread_that_is_given_the_block_s_handle_is_inside(each: Case) -> None:
    db = await each.stub(METADATA)

    def handler() -> None:
        with ThreadPoolExecutor(1) as other:
            with db.transaction() as tx:
                other.submit(tx.execute, INSERT, {"id": 1}).result()
                assert other.submit(tx.fetch_all, select(ROWS)).result() == [{"id": 1}]
                with pytest.raises(DatabaseError, match="another thread of this handler"):
                    other.submit(db.fetch_all, "SELECT id FROM t").result()
            with (
                db.transaction(),
                pytest.raises(DatabaseError, match="the transaction's block is not open"),
            ):
                other.submit(tx.execute, INSERT, {"id": 2}).result()

    await asyncio.to_thread(handler)
    assert each.plain(select(ROWS)) == [{"id": 1}]


async def test_threads_without_transactions_take_turns(each: Case) -> None:
    db = await each.stub(METADATA)

    def handler() -> None:
        with ThreadPoolExecutor(4) as threads:
            changed = list(threads.map(lambda n: db.execute(INSERT, {"id": n}), range(40)))
        assert changed == [1] * 40

    await asyncio.to_thread(handler)
    assert sorted(row["id"] for row in each.plain(select(ROWS))) == list(range(40))
