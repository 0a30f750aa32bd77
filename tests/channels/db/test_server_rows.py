"""A result of many rows on a real server: bounded memory on the loop, nothing read ahead, and a loop that keeps turning."""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec import Raw

from penstock.channels import wire
from penstock.channels.db.calls import Query, Ran, Run
from tests.channels.conftest import local, until
from tests.channels.db.series import SERIES
from tests.channels.db.server_case import Case
from tests.channels.db.server_cursors import Worker

ROWS = 300_000
#: What they take on the wire together is above 30 MiB.
MOST_MIB = 12.0
#: The longest turn of the loop in processor time; waiting for a processor is not its fault.
LONGEST_S = 0.03


class Turns:
    """How long the loop was busy at a stretch."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def watch(self) -> None:
        while True:
            began_s = time.thread_time()
            await asyncio.sleep(0.001)
            self.longest_s = max(self.longest_s, time.thread_time() - began_s)


@asynccontextmanager
async def watched() -> AsyncIterator[Turns]:
    turns = Turns()
    # What other tests have left on the heap is looked through by a collection, in one turn of this loop.
    gc.collect()
    gc.freeze()
    task = asyncio.create_task(turns.watch())
    try:
        yield turns
    finally:
        task.cancel()
        gc.unfreeze()


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("way", ["alone", "inside", "ctx.db"])
async def test_many_rows_pass_in_bounded_memory_and_the_loop_keeps_turning(case: Case, way: str) -> None:
    worker = Worker(await case.service())
    statement = SERIES[case.kind].format(ROWS)
    await worker.rows(SERIES[case.kind].format(10_000))
    before_mib, chunks, count = peak_mib(), 0, 0
    async with watched() as turns:
        if way == "ctx.db":
            ran: Ran = await worker.call("stream", Query(statement))
        else:
            ran = await worker.run(statement, begins=way == "inside")
        async for chunk in worker.chunks(ran):
            chunks += 1
            count += chunk.row_count if chunk.is_last else 0
    assert count == ROWS
    assert chunks > 100
    assert peak_mib() - before_mib < MOST_MIB
    assert turns.longest_s < LONGEST_S


async def test_nothing_is_read_ahead_of_the_worker(case: Case) -> None:
    worker = Worker(await case.service())
    ran = await worker.run(SERIES[case.kind].format(1_000_000))
    # The server has more to say and nobody to say it to.
    await until(case.is_stuck, pause_s=0.01)
    # What waits in the kernel's buffers is some MiB; this is more.
    chunks = worker.chunks(ran)
    for _ in range(60):
        await anext(chunks)
    await until(case.is_stuck, pause_s=0.01)
    await worker.call("drop", [ran.cursor])
    assert await worker.rows("SELECT 1") == [[1]]


async def test_a_refused_result_and_an_unread_one_do_not_hold_up_the_loop(case: Case) -> None:
    db = local(await case.service(frame_bytes=1 << 20, server_connections=1))
    async with watched() as turns:
        for _ in range(3):
            assert await db.fetch_one(SERIES[case.kind].format(ROWS)) is not None
        async with db.transaction() as tx:
            assert await tx.fetch_one(SERIES[case.kind].format(ROWS)) is not None
            assert await tx.fetch_one("SELECT 1 AS one") == {"one": 1}
    assert turns.longest_s < LONGEST_S


async def test_executemany_does_not_hold_up_the_loop(case: Case) -> None:
    worker = Worker(await case.service())
    case.rows("CREATE TABLE t (id INTEGER PRIMARY KEY, v VARCHAR(200))")
    rows = [[number, "x" * 50] for number in range(20_000)]
    # The worker's part of it, which is none of the loop's.
    asked = Raw(wire.encode(Run("INSERT INTO t (id, v) VALUES (%s, %s)", rows, is_many=True)))
    async with watched() as turns:
        answer = await worker.service.call("run", asked, worker.caller)
    assert answer.chunk.row_count == 20_000
    assert turns.longest_s < 2 * LONGEST_S
