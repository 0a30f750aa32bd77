"""(b) Eight workers write row after row into one SQLite file: through the channel, and each committing for itself."""

from __future__ import annotations

import socket
import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

from benchmarks.database.findings import Effort, Finding, at_least, at_most, fair, in_turn, quotient
from benchmarks.database.loop import FRAME_BYTES, run_workers, section_of
from penstock.channels.db.stub import DatabaseStub
from penstock.channels.stub import Channel

WORKERS: Final = 8
INSERT: Final = "INSERT INTO t (worker, note) VALUES (?, ?)"
NOTE: Final = "x" * 100
#: What is promised.
WAIT_RATIO, FULL_RATIO = 0.1, 1.2


@dataclass(frozen=True)
class Writes:
    """One run."""

    a_second: float
    worst_wait_s: float
    smallest_share: float
    """Of what each would have had if all had had the same."""


def measure(folder: Path, effort: Effort) -> Iterator[Finding]:
    """At FULL and at NORMAL."""
    numbers = count()

    def run(synchronous: str, *, over_channel: bool) -> Writes:
        file = folder / f"writers-{next(numbers)}.db"
        return write(file, synchronous, effort.seconds, over_channel=over_channel)

    for synchronous in ("FULL", "NORMAL"):
        found = in_turn(
            {
                "channel": partial(run, synchronous, over_channel=True),
                "own": partial(run, synchronous, over_channel=False),
            },
            # Whoever else uses the disk takes part.
            effort.rounds if effort.is_quick else effort.rounds + 2,
            kept=effort.rounds,
        )
        channel, own = found["channel"], found["own"]
        waits_ms = [statistics.median(one.worst_wait_s for one in way) * 1000 for way in (channel, own)]
        yield at_most(
            "b",
            f"{synchronous}: worst wait for a write, channel against own",
            quotient([one.worst_wait_s for one in channel], [one.worst_wait_s for one in own]),
            WAIT_RATIO,
            f"{waits_ms[0]:,.0f} ms against {waits_ms[1]:,.0f} ms",
        )
        yield fair(
            "b", synchronous, [one.smallest_share for one in channel], [one.smallest_share for one in own]
        )
        rates = [statistics.median(one.a_second for one in way) for way in (channel, own)]
        ratio = quotient([one.a_second for one in channel], [one.a_second for one in own])
        detail = f"{rates[0]:,.0f} against {rates[1]:,.0f} rows/s"
        what = f"{synchronous}: rows written, channel against own"
        if synchronous == "FULL":
            yield at_least("b", what, ratio, FULL_RATIO, detail)
        else:
            yield Finding("b", what, f"{ratio:.2f} times ({detail})")


def write(file: Path, synchronous: str, seconds: float, *, over_channel: bool) -> Writes:
    """Each worker inserts, one row a commit, until the time is up."""
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

        written, worst_s, until_s = 0, 0.0, time.monotonic() + seconds
        while (began_s := time.monotonic()) < until_s:
            insert()
            worst_s = max(worst_s, time.monotonic() - began_s)
            written += 1
        return written, worst_s

    ended = run_workers(section_of(f"sqlite:///{file}", synchronous=synchronous), WORKERS, work).results
    counts = [written for written, _ in ended]
    return Writes(
        sum(counts) / seconds, max(wait_s for _, wait_s in ended), min(counts) * WORKERS / sum(counts)
    )
