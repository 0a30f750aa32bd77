"""(c) Many workers on few connections to a server, against a connection each.

Twice: all of them without a pause, which shows what the way costs; and at a pace that the machine keeps up with, as
workers have it that compute or wait between two transactions, which shows what a message waits longer for.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import create_engine, text

from benchmarks.database.findings import Effort, Finding, fair, in_turn, quotient
from benchmarks.database.loop import FRAME_BYTES, Work, processes, run_workers, section_of
from benchmarks.database.private_servers import SERVERS, private
from penstock.channels.db.stub import DatabaseStub
from penstock.channels.stub import Channel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Server

#: Connections that the loop has for all workers.
FEW: Final = 8
#: Between two transactions of a worker in the paced run.
PAUSE_S: Final = 1.0
#: So many a worker may use.
KEYS: Final = 1_000_000
NOTE: Final = "x" * 100


@dataclass(frozen=True)
class Seen:
    """One run."""

    a_second: float
    median_wait_s: float
    worst_wait_s: float
    smallest_share: float
    connections: int
    """The most that the server's own list had."""


def measure(_folder: Path, effort: Effort) -> Iterator[Finding]:
    """On both servers."""
    for name, kind in SERVERS.items():
        with private(kind) as (server, url):
            server.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, note VARCHAR(100))", url=url)
            for pause_s in (0.0, PAUSE_S):
                contestants = {
                    way: partial(run, server, url, effort, pause_s, over_channel=way == "channel")
                    for way in ("channel", "own")
                }
                found = in_turn(contestants, max(1, effort.rounds // 2))
                yield from told(name, effort.workers, pause_s, found)


def told(server: str, workers: int, pause_s: float, found: dict[str, list[Seen]]) -> Iterator[Finding]:
    channel, own = found["channel"], found["own"]
    if pause_s:
        waits = [statistics.median(one.median_wait_s for one in way) * 1000 for way in (channel, own)]
        yield Finding(
            "c",
            f"{server}: a transaction's time, {workers} workers that pause {pause_s:g} s",
            f"{waits[0]:.1f} ms (own: {waits[1]:.1f} ms)",
        )
        return
    connections = max(one.connections for one in channel)
    yield Finding(
        "c",
        f"{server}: connections of {workers} workers, on the server's list",
        f"{connections} (own: {max(one.connections for one in own)})",
        f"at most {FEW}",
        connections <= FEW,
    )
    yield fair("c", server, [one.smallest_share for one in channel], [one.smallest_share for one in own])
    rates = [statistics.median(one.a_second for one in way) for way in (channel, own)]
    waits = [statistics.median(one.worst_wait_s for one in way) * 1000 for way in (channel, own)]
    ratio = quotient([one.a_second for one in channel], [one.a_second for one in own])
    yield Finding(
        "c",
        f"{server}: transactions, channel against own, all at once",
        f"{ratio:.2f} times ({rates[0]:,.0f} against {rates[1]:,.0f} a second; "
        f"worst wait {waits[0]:,.0f} against {waits[1]:,.0f} ms)",
    )


def run(server: Server, url: str, effort: Effort, pause_s: float, *, over_channel: bool) -> Seen:
    """All workers, one way."""
    server.execute("DELETE FROM t", url=url)
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, len(server.connections(url)))

    section = section_of(url, server_connections=FEW, wait_s=60)
    seconds = max(effort.seconds, 2 * pause_s)
    work = transactions(url, seconds, pause_s, effort.workers, over_channel=over_channel)
    ended = run_workers(section, effort.workers, work, look).results
    counts = [len(waits_s) for waits_s in ended]
    waits_s = sorted(wait_s for waits_s in ended for wait_s in waits_s)
    return Seen(
        sum(counts) / seconds,
        statistics.median(waits_s),
        waits_s[-1],
        min(counts) * len(counts) / sum(counts),
        most,
    )


def transactions(url: str, seconds: float, pause_s: float, workers: int, *, over_channel: bool) -> Work:
    """Insert and select in one transaction, again and again, until the time is up: how long each took."""
    insert, select = "INSERT INTO t VALUES (:id, :note)", "SELECT note FROM t WHERE id = :id"

    ready = processes.Barrier(workers)

    def work(number: int, sock: socket.socket) -> list[float]:
        if over_channel:
            stub = DatabaseStub(Channel(sock, limit_bytes=FRAME_BYTES), is_server=True)

            def transact(key: int) -> None:
                with stub.transaction() as tx:
                    tx.execute(insert, {"id": key, "note": NOTE})
                    assert tx.fetch_one(select, {"id": key}) is not None
        else:
            own = create_engine(url).connect()

            def transact(key: int) -> None:
                own.execute(text(insert), {"id": key, "note": NOTE})
                assert own.execute(text(select), {"id": key}).one() is not None
                own.commit()

        # Connected, all of them, before the clock starts.
        transact(number * KEYS + KEYS - 1)
        ready.wait()
        waits_s: list[float] = []
        until_s = time.monotonic() + seconds
        # Not all at the same moment.
        time.sleep(pause_s * number / workers)
        while (began_s := time.monotonic()) < until_s or not waits_s:
            transact(number * KEYS + len(waits_s))
            waits_s.append(time.monotonic() - began_s)
            time.sleep(pause_s)
        return waits_s

    return work
