"""Results: whole or refused, never in pieces, and large ones do not hold up the loop."""

from __future__ import annotations

import asyncio
import gc
import random
import time

import pytest

from penstock.channels.db.stub import DatabaseStub
from penstock.errors import DatabaseError
from tests.channels.conftest import MakeService, Workshop, local

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"


async def test_what_the_limit_lets_through_fits_the_frame(
    make_service: MakeService, workshop: Workshop
) -> None:
    rng = random.Random(3)
    service = make_service(frame_bytes=4096)
    db = DatabaseStub(await workshop.channel_to({"db": service}, limit_bytes=4096))
    passed = refused = 0

    def ask(size: int, wanted: int, columns: int) -> bool:
        names = ", ".join(f"zeroblob(:size) AS column_{n}" for n in range(columns))
        text, parameters = f"{NUMBERS} SELECT {names} FROM n", {"count": wanted, "size": size}
        try:
            rows = db.fetch_all(text, parameters)
        except DatabaseError as refused:
            error = refused
        else:
            assert len(rows) == wanted
            assert all(value == bytes(size) for row in rows for value in row.values())
            return True
        assert error.kind == "DataError"
        assert "larger than a frame" in str(error)
        assert "LIMIT" in str(error)
        return False

    for size in (*range(3930, 4000), *(rng.randint(0, 4000) for _ in range(50))):
        if await asyncio.to_thread(ask, size, 1, 1):
            passed += 1
        else:
            refused += 1
    for _ in range(150):
        rows, columns = rng.randint(1, 60), rng.randint(1, 8)
        if await asyncio.to_thread(ask, max(0, 4096 // rows // columns - rng.randint(0, 20)), rows, columns):
            passed += 1
        else:
            refused += 1
    assert passed > 50
    assert refused > 50


@pytest.mark.parametrize("want", ["fetch_all", "fetch_one"])
async def test_one_row_beyond_the_limit_is_refused_on_both_ways(
    make_service: MakeService, workshop: Workshop, want: str
) -> None:
    service = make_service(frame_bytes=4096)
    db = DatabaseStub(await workshop.channel_to({"db": service}, limit_bytes=4096))
    with pytest.raises(DatabaseError, match=r"limits\.frame_bytes"):
        await asyncio.to_thread(getattr(db, want), "SELECT zeroblob(5000)")
    async with local(service).transaction() as tx:
        with pytest.raises(DatabaseError, match=r"limits\.frame_bytes"):
            await getattr(tx, want)("SELECT zeroblob(5000)")
        assert await tx.fetch_one("SELECT 1 AS a") == {"a": 1}


async def test_the_first_row_of_many_is_read_alone(make_service: MakeService) -> None:
    service = make_service()
    text = f"{NUMBERS} SELECT i FROM n"
    async with asyncio.timeout(5):
        assert await local(service).fetch_one(text, {"count": 2_000_000_000}) == {"i": 1}
        async with local(service).transaction() as tx:
            assert await tx.fetch_one(text, {"count": 2_000_000_000}) == {"i": 1}


async def test_an_endless_result_ends_at_the_limit(make_service: MakeService) -> None:
    service = make_service(frame_bytes=1 << 20)
    async with asyncio.timeout(10):
        with pytest.raises(DatabaseError, match="larger than a frame"):
            await local(service).fetch_all(f"{NUMBERS} SELECT i FROM n", {"count": 2_000_000_000})


async def test_a_large_result_does_not_hold_up_the_loop(make_service: MakeService) -> None:
    service = make_service()
    gaps_s: list[float] = []

    async def watch() -> None:
        last_s = time.monotonic()
        while True:
            await asyncio.sleep(0.001)
            gaps_s.append(time.monotonic() - last_s)
            last_s = time.monotonic()

    await local(service).fetch_one("SELECT 1")
    text = f"{NUMBERS} SELECT i, 'some text of a usual length ' || i AS t, i * 1.5 AS f FROM n"
    # The collector's pauses are the price of 300,000 dicts wherever they come from.
    gc.disable()
    try:
        watching = asyncio.create_task(watch())
        rows = await local(service).fetch_all(text, {"count": 300_000})
        watching.cancel()
    finally:
        gc.enable()
    assert len(rows) == 300_000
    assert rows[-1] == {"i": 300_000, "t": "some text of a usual length 300000", "f": 450_000.0}
    assert max(gaps_s) < 0.2


async def test_text_that_is_no_utf8_is_an_error_in_words(make_service: MakeService) -> None:
    service = make_service()
    with pytest.raises(DatabaseError, match="decode to UTF-8"):
        await local(service).fetch_all("SELECT CAST(x'ff' AS TEXT) AS t")
    assert await local(service).fetch_one("SELECT 1 AS a") == {"a": 1}
