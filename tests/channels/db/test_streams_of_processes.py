"""A stream in a process of its own: bounded memory on both sides, and nothing left of one that is killed."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tracemalloc
from typing import Final

from sqlalchemy import insert, select

from tests.channels.conftest import Workshop, until
from tests.channels.conftest import local as local_to
from tests.channels.db.databases import Case, open_results
from tests.channels.db.series import SERIES, marks, metadata

#: Ten megabytes, forty in a list of dicts.
LARGE: Final = 100_000

CHILD = """
import gc, resource, socket, sys
from penstock.channels.db.stub import DatabaseStub
from penstock.channels.stub import Channel
db = DatabaseStub(Channel(socket.socket(fileno=int(sys.argv[1])), limit_bytes=16 << 20), is_server={is_server})
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
{then}
"""


async def child(each: Case, workshop: Workshop, then: str) -> asyncio.subprocess.Process:
    sock: socket.socket = await workshop.socket_to({"db": each.services[-1]}, "slot 7", limit_bytes=16 << 20)
    program = CHILD.format(is_server=each.kind != "sqlite", then=then)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(sock.fileno()),
        pass_fds=[sock.fileno()], stdout=subprocess.PIPE, stdin=subprocess.PIPE,
    )  # fmt: skip
    sock.close()
    return process


async def test_a_large_result_passes_in_bounded_memory_on_both_sides(each: Case, workshop: Workshop) -> None:
    await each.service()
    then = f"""
list(db.stream({SERIES[each.kind].format(5000)!r}))
before, count = peak(), 0
for row in db.stream({SERIES[each.kind].format(LARGE)!r}):
    count += 1
print(count, row["i"], peak() - before)
"""
    tracemalloc.start()
    try:
        told, _ = await (await child(each, workshop, then)).communicate()
        _, loops_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    count, last, grown_mib = map(int, told.split())
    assert (count, last) == (LARGE, LARGE)
    assert grown_mib <= 4
    assert loops_peak < 5 << 20


async def test_a_killed_worker_s_stream_is_closed_and_its_transaction_rolled_back(
    each: Case, workshop: Workshop
) -> None:
    await asyncio.to_thread(metadata.create_all, each.engine)
    await each.service()
    then = f"""
with db.transaction() as tx:
    tx.execute("INSERT INTO marks (id, v) VALUES (1, 'child')")
    rows = tx.stream({SERIES[each.kind].format(LARGE)!r})
    next(rows)
    print("inside", flush=True)
    sys.stdin.read()
"""
    process = await child(each, workshop, then)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"inside\n"
    assert open_results(each.services[-1]) > 0
    process.kill()
    await process.wait()
    await until(lambda: open_results(each.services[-1]) == 0)
    db = local_to(each.services[-1])
    assert await db.execute(insert(marks).values(id=1, v="next")) == 1
    assert await asyncio.to_thread(each.plain, select(marks)) == [{"id": 1, "v": "next"}]
