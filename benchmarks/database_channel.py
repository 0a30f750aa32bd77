"""The database channel against the driver itself: on one SQLite file, and many workers on few connections to a server.

    python -m benchmarks.database_channel [--workers 8] [--seconds 4] [--rounds 3] [--rows 1000000]
                                          [--only writes|rows|servers]

Writes: workers that each insert row after row, through the channel and each committing for itself; rows a second, the
worst single wait, the smallest share of a worker. Rows: a large result read row by row, with the peak of memory on both
sides and the longest time for which the loop did not turn. Servers: 64 workers that insert and select in one transaction, over 8 connections of the
loop's and over one each; it starts a private MariaDB and PostgreSQL. Exit code 1 when a ratio is below what the project promises.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import socket
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, text

from penstock.channels.db.service import DatabaseService
from penstock.channels.db.stub import DatabaseStub
from penstock.channels.dbapi import sqlite
from penstock.channels.dbapi.link import attach
from penstock.channels.service import Caller
from penstock.channels.serving import ChannelServer
from penstock.channels.stub import Channel
from penstock.config.database import DatabaseSection
from penstock.config.limits import LimitsSection
from tests.servers import MariaDBServer, PostgreSQLServer, Server, Template

FRAME_BYTES: Final = LimitsSection().frame_bytes
INSERT: Final = "INSERT INTO t (worker, note) VALUES (?, ?)"
NOTE: Final = "x" * 100
#: What is promised of writes through the channel, against each worker for itself.
WAIT_RATIO, SHARE, FULL_RATIO = 0.1, 0.5, 1.2
#: Once the result is read the worker and the loop have grown by no more than that.
MEMORY_MIB: Final = 64.0
#: Workers, and the connections that the loop has for them.
MANY, FEW = 64, 8

# Fork, before there is a loop or a thread: the children need nothing but this module.
processes = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Writes:
    """One run."""

    a_second: float
    worst_wait_s: float
    smallest_share: float
    """Of what each would have had if all had had the same."""


def main() -> int:
    """Run what was asked for; 1 when a promise is broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", choices=("writes", "rows", "servers"))
    asked = parser.parse_args()
    kept = True
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        if asked.only in (None, "writes"):
            kept &= writes(Path(folder), asked.workers, asked.seconds, asked.rounds)
        if asked.only in (None, "rows"):
            kept &= rows(Path(folder), asked.rows)
        if asked.only in (None, "servers"):
            kept &= servers(asked.seconds)
    return 0 if kept else 1


def writes(folder: Path, workers: int, seconds: float, rounds: int) -> bool:
    """Both ways in turn, at FULL and at NORMAL; medians."""
    table = Table(
        "synchronous", "way", "rows/s", "worst wait", "smallest share", title=f"{workers} workers write"
    )
    broken: list[str] = []
    for synchronous in ("FULL", "NORMAL"):
        runs: dict[str, list[Writes]] = {"channel": [], "own": []}
        for round_ in range(rounds):
            for way, found in runs.items():
                file = folder / f"{synchronous}-{way}-{round_}.db"
                found.append(write(file, synchronous, workers, seconds, over_channel=way == "channel"))
        middle = {
            way: Writes(
                statistics.median(run.a_second for run in found),
                statistics.median(run.worst_wait_s for run in found),
                statistics.median(run.smallest_share for run in found),
            )
            for way, found in runs.items()
        }
        for way, run in middle.items():
            share = f"{run.smallest_share:.2f}"
            table.add_row(
                synchronous, way, f"{run.a_second:,.0f}", f"{run.worst_wait_s * 1000:,.0f} ms", share
            )
        channel, own = middle["channel"], middle["own"]
        ratio, wait = channel.a_second / own.a_second, channel.worst_wait_s / own.worst_wait_s
        table.add_row(synchronous, "ratio", f"{ratio:.2f}", f"{wait:.3f}", "")
        if wait > WAIT_RATIO:
            broken.append(f"{synchronous}: the worst wait is {wait:.3f} of the other's, not {WAIT_RATIO}")
        if channel.smallest_share < SHARE:
            broken.append(
                f"{synchronous}: a worker had {channel.smallest_share:.2f} of its share, not {SHARE}"
            )
        if synchronous == "FULL" and ratio < FULL_RATIO:
            broken.append(f"FULL: {ratio:.2f} times the rows, not {FULL_RATIO}")
    return tell(table, broken)


def write(file: Path, synchronous: str, workers: int, seconds: float, *, over_channel: bool) -> Writes:
    """One run: each worker inserts, one row a commit, until the time is up."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, worker INTEGER, note TEXT)")

    def work(number: int, sock: socket.socket) -> tuple[int, float]:
        if over_channel:
            stub = DatabaseStub(Channel(sock, limit_bytes=FRAME_BYTES))

            def insert() -> None:
                stub.execute(INSERT, (number, NOTE))
        else:
            own = sqlite3.connect(file, timeout=60, isolation_level="IMMEDIATE")
            own.execute(f"PRAGMA synchronous={synchronous}")

            def insert() -> None:
                own.execute(INSERT, (number, NOTE))
                own.commit()

        count, worst_s, until_s = 0, 0.0, time.monotonic() + seconds
        while (began_s := time.monotonic()) < until_s:
            insert()
            worst_s = max(worst_s, time.monotonic() - began_s)
            count += 1
        return count, worst_s

    ended = run_workers(file, synchronous, workers, work)[0]
    counts = [count for count, _ in ended]
    return Writes(
        sum(counts) / seconds, max(wait_s for _, wait_s in ended), min(counts) * workers / sum(counts)
    )


def rows(folder: Path, count: int) -> bool:
    """A result of so many rows, read over the channel and by the driver."""
    file = folder / "rows.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, amount REAL, note TEXT)")
        made = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        connection.execute(
            f"INSERT INTO t {made} SELECT i, 'name ' || i, i / 3.0, printf('%060d', i) FROM n", (count,)
        )
        connection.commit()

    def read(over_channel: bool) -> Callable[[int, socket.socket], tuple[float, float]]:  # noqa: FBT001 - one word
        def work(_: int, sock: socket.socket) -> tuple[float, float]:
            connection: Any
            if over_channel:
                attach(DatabaseStub(Channel(sock, limit_bytes=FRAME_BYTES)).link)
                connection = sqlite.connect()
            else:
                connection = sqlite3.connect(file)
            before_mib, began_s, seen = peak_mib(), time.monotonic(), 0
            for _row in connection.execute("SELECT * FROM t"):
                seen += 1
            assert seen == count
            return count / (time.monotonic() - began_s), peak_mib() - before_mib

        return work

    table = Table(
        "way", "rows/s", "worker grew by", "loop grew by", "loop's longest turn", title=f"{count:,} rows"
    )
    figures: dict[str, float] = {}
    broken: list[str] = []
    for way in ("own", "channel"):
        [(a_second, grown_mib)], loop_mib, lag_s = run_workers(file, "FULL", 1, read(way == "channel"))
        figures[way] = a_second
        table.add_row(
            way, f"{a_second:,.0f}", f"{grown_mib:.1f} MiB", f"{loop_mib:.1f} MiB", f"{lag_s * 1000:.0f} ms"
        )
        if grown_mib > MEMORY_MIB or loop_mib > MEMORY_MIB:
            broken.append(f"{way}: {grown_mib:.0f} and {loop_mib:.0f} MiB more, not {MEMORY_MIB:.0f}")
    table.add_row("ratio", f"{figures['channel'] / figures['own']:.2f}", "", "", "")
    return tell(table, broken)


def servers(seconds: float) -> bool:
    """64 workers on 8 connections of the loop's, and on 64 of their own."""
    table = Table("server", "way", "transactions/s", "worst wait", "connections", title=f"{MANY} workers")
    broken: list[str] = []
    for kind in (MariaDBServer, PostgreSQLServer):
        with closing(Template(kind)) as template, kind(template) as server:
            url = server.new_database()
            server.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, note VARCHAR(100))", url=url)
            for way in ("channel", "own"):
                server.execute("DELETE FROM t", url=url)
                seen = Connections(server, url)
                work = transactions(url, seconds, over_channel=way == "channel")
                ended = run_workers(url, "FULL", MANY, work, look=seen.look)[0]
                count, worst_s = sum(c for c, _ in ended), max(wait_s for _, wait_s in ended)
                figures = f"{count / seconds:,.0f}", f"{worst_s * 1000:,.0f} ms", str(seen.most)
                table.add_row(server.kind, way, *figures)
                if way == "channel" and seen.most > FEW:
                    broken.append(f"{server.kind}: {seen.most} connections, not {FEW}")
                if min(c for c, _ in ended) == 0:
                    broken.append(f"{server.kind}, {way}: a worker ended nothing")
    return tell(table, broken)


def transactions(
    url: str, seconds: float, *, over_channel: bool
) -> Callable[[int, socket.socket], tuple[int, float]]:
    """Insert and select in one transaction, again and again, until the time is up."""
    insert, select = "INSERT INTO t VALUES (:id, :note)", "SELECT note FROM t WHERE id = :id"

    def work(number: int, sock: socket.socket) -> tuple[int, float]:
        if over_channel:
            stub = DatabaseStub(Channel(sock, limit_bytes=FRAME_BYTES), exact=True)

            def run(key: int) -> None:
                with stub.transaction() as tx:
                    tx.execute(insert, {"id": key, "note": NOTE[:100]})
                    assert tx.fetch_one(select, {"id": key}) is not None
        else:
            own = create_engine(url).connect()

            def run(key: int) -> None:
                own.execute(text(insert), {"id": key, "note": NOTE[:100]})
                assert own.execute(text(select), {"id": key}).one() is not None
                own.commit()

        count, worst_s, until_s = 0, 0.0, time.monotonic() + seconds
        while (began_s := time.monotonic()) < until_s:
            run(number * 1_000_000 + count)
            worst_s = max(worst_s, time.monotonic() - began_s)
            count += 1
        return count, worst_s

    return work


class Connections:
    """The most that there were to one database, as the server's own list says."""

    def __init__(self, server: Server, url: str) -> None:
        self._server = server
        self._url = url
        self.most = 0

    def look(self) -> None:
        """Count them now."""
        self.most = max(self.most, len(self._server.connections(self._url)))


def run_workers(
    file: Path | str,
    synchronous: str,
    workers: int,
    work: Callable[[int, socket.socket], Any],
    look: Callable[[], None] | None = None,
) -> tuple[list[Any], float, float]:
    """What each worker process returned, by how many MiB the loop's process grew, and its longest turn in seconds."""
    pairs = [socket.socketpair() for _ in range(workers)]
    pipes = [processes.Pipe(duplex=False) for _ in range(workers)]
    go = processes.Event()

    def child(number: int, sock: socket.socket, result: Pipe) -> None:
        go.wait()
        result.send(work(number, sock))

    children = [
        processes.Process(target=child, args=(number, pairs[number][1], pipes[number][1]))
        for number in range(workers)
    ]
    for process in children:
        process.start()
    for _, theirs in pairs:
        theirs.close()
    results, grown_mib, lag_s = asyncio.run(
        serve(file, synchronous, [ours for ours, _ in pairs], [pipe for pipe, _ in pipes], go, look=look)
    )
    for process in children:
        process.join()
    return results, grown_mib, lag_s


async def serve(
    file: Path | str,
    synchronous: str,
    socks: list[socket.socket],
    pipes: list[Pipe],
    go: Any,
    *,
    look: Callable[[], None] | None,
) -> tuple[list[Any], float, float]:
    """The loop's side, until every worker has sent its result."""
    url = file if isinstance(file, str) else f"sqlite:///{file}"
    section = DatabaseSection.model_validate(
        {"url": url, "synchronous": synchronous, "server_connections": FEW, "wait_s": 60}
    )
    service = DatabaseService(section, frame_bytes=FRAME_BYTES)
    await service.start()
    servers = [
        await ChannelServer.start(
            sock,
            {"db": service},
            Caller(f"slot {number}"),
            limit_bytes=FRAME_BYTES,
            on_ended=print,
            on_line=print,
        )
        for number, sock in enumerate(socks)
    ]
    before_mib, longest_s, looked_s = peak_mib(), 0.0, 0.0
    go.set()
    results = asyncio.gather(*(asyncio.to_thread(pipe.recv) for pipe in pipes))
    while not results.done():
        began_s = time.monotonic()
        await asyncio.sleep(0.005)
        longest_s = max(longest_s, time.monotonic() - began_s - 0.005)
        if look is not None and began_s - looked_s > 0.5:
            looked_s = began_s
            await asyncio.to_thread(look)
    grown_mib = peak_mib() - before_mib
    for server in servers:
        server.close()
    await service.aclose()
    return list(await results), grown_mib, longest_s


def peak_mib() -> float:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def tell(table: Table, broken: list[str]) -> bool:
    """Print it; True when nothing is broken."""
    console = Console(width=120)
    console.print(table)
    for line in broken:
        console.print(f"[red]{line}")
    return not broken


if __name__ == "__main__":
    sys.exit(main())
