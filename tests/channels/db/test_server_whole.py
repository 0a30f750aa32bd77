"""A statement outside a transaction is run to its end, and fails as a whole, also when nobody wants its rows."""

from __future__ import annotations

import pytest

from penstock.errors import DatabaseError
from tests.channels.db.series import SERIES
from tests.channels.db.server_case import Case
from tests.channels.db.server_cursors import Worker

COUNT = 3000
#: More than a chunk of rows in front of the row that fails.
WRITES = {
    "mariadb": "INSERT INTO t (id, v) SELECT seq, concat(repeat('x', 100), seq) FROM seq_1_to_{} RETURNING id, v",
    "postgresql": "INSERT INTO t (id, v) SELECT i, repeat('x', 100) || i FROM generate_series(1, {}) AS i RETURNING id, v",
}


@pytest.mark.parametrize("want", ["execute", "fetch_one"])
async def test_rows_that_nobody_wants_are_written_all_the_same(case: Case, want: str) -> None:
    db = await case.db()
    await getattr(db, want)(WRITES[case.kind].format(COUNT))
    assert case.rows("SELECT count(*) FROM t") == [(COUNT,)]


@pytest.mark.parametrize("want", ["execute", "fetch_one"])
async def test_an_error_behind_the_rows_that_somebody_wanted_is_told(case: Case, want: str) -> None:
    db = await case.db()
    await db.execute(f"INSERT INTO t (id) VALUES ({COUNT})")
    with pytest.raises(DatabaseError, match=r"(?i)duplicate"):
        await getattr(db, want)(WRITES[case.kind].format(COUNT))
    assert case.rows("SELECT count(*) FROM t") == [(1,)]


async def test_a_cursor_that_is_closed_early_has_written_everything(case: Case) -> None:
    await case.db()
    worker = Worker(case.made[0])
    ran = await worker.run(WRITES[case.kind].format(COUNT))
    assert ran.cursor is not None
    await worker.call("drop", [ran.cursor])
    assert case.rows("SELECT count(*) FROM t") == [(COUNT,)]


async def test_a_refused_statement_leaves_the_open_result_as_it_was(case: Case) -> None:
    worker = Worker(await case.service())
    ran = await worker.run(SERIES[case.kind].format(50_000), begins=True)
    refused = await worker.fail("SELECT 1", transaction=ran.transaction)
    assert "nothing was run" in refused.text
    assert [row[0] async for row in worker.rest(ran)] == list(range(1, 50_001))


async def test_many_rows_that_return_something_are_counted_and_kept(case: Case) -> None:
    db = await case.db()
    changed = await db.execute(
        "INSERT INTO t (id) VALUES (:id) RETURNING id", [{"id": number} for number in range(5)]
    )
    assert changed == 5
    assert case.rows("SELECT count(*) FROM t") == [(5,)]
    assert await db.fetch_one("SELECT count(*) AS n FROM t") == {"n": 5}
