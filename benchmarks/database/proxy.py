"""(d) The proxy with two processes against eight threads with thread-local connections, on one SQLite file.

Eight threads ask in both cases. A small statement's round trip is raced against `multiprocessing.Pool.apply`.
"""

from __future__ import annotations

import multiprocessing
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from benchmarks.database.findings import Effort, Finding, at_least, in_turn, quotient
from benchmarks.database.proxy_functions import COUNT, ROWS, open_connection, reduce_rows, select_one
from penstock import SQLProxy, get_connection

THREADS: Final = 8
PROCESSES: Final = 2
RETURNED: Final = 20_000
TABLE_ROWS: Final = 200_000
#: What is promised; two that are equal differ by that much from run to run.
EQUAL, RETURNED_RATIO, REDUCED_RATIO, SMALL_RATIO = 0.95, 1.5, 2.5, 2.0


@dataclass(frozen=True)
class Race:
    name: str
    rival: Callable[[int], object]
    proxy: Callable[[int], object]
    promise: float


@dataclass(frozen=True)
class Took:
    """A question, on average over a round."""

    wall_s: float
    cpu_s: float
    """In this process."""


def measure(folder: Path, effort: Effort) -> Iterator[Finding]:
    """All four."""
    path = folder / "proxy.db"
    fill(path)
    times, small = (8, 50) if effort.is_quick else (40, 1000)
    # A round is short here, so there may be many, of which the quietest third counts.
    rounds = effort.rounds if effort.is_quick else 3 * effort.rounds
    with SQLProxy(path, processes=PROCESSES) as proxy, ThreadPoolExecutor(THREADS) as threads:
        for race in races(proxy, path):
            list(threads.map(race.proxy, range(THREADS)))
            found = in_turn(
                {
                    "threads": partial(asked, threads, race.rival, times),
                    "proxy": partial(asked, threads, race.proxy, times),
                },
                rounds,
                kept=effort.rounds,
            )
            yield from told(race, found)
        yield round_trip(proxy, path, small, rounds, effort.rounds)


def told(race: Race, found: dict[str, list[Took]]) -> Iterator[Finding]:
    """The ratio, and what the application's own process spent: its other threads wait for that, and no neighbour changes it."""
    threads, proxy = found["threads"], found["proxy"]
    ms = [statistics.median(took.wall_s for took in way) * 1e3 for way in (proxy, threads)]
    cpu_ms = [statistics.median(took.cpu_s for took in way) * 1e3 for way in (proxy, threads)]
    ratio = quotient([took.wall_s for took in threads], [took.wall_s for took in proxy])
    detail = f"{ms[0]:.1f} against {ms[1]:.1f} ms of {THREADS} threads"
    yield at_least("d", race.name, ratio, race.promise, detail)
    yield Finding(
        "d", "  of that in the application's own process", f"{cpu_ms[0]:.1f} against {cpu_ms[1]:.1f} ms"
    )


def fill(path: Path) -> None:
    random = Random(2011)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE data (a INTEGER PRIMARY KEY, b REAL, c TEXT)")
        connection.executemany(
            "INSERT INTO data (b, c) VALUES (?, ?)",
            ((random.random(), f"text {random.random()}") for _ in range(TABLE_ROWS)),
        )


def races(proxy: SQLProxy, path: Path) -> list[Race]:
    def low(number: int) -> int:
        return number * 1000 % (TABLE_ROWS - RETURNED)

    def mine(sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        connection = get_connection(path)
        # Tuples, as the proxy gives them.
        connection.row_factory = None
        return connection.execute(sql, parameters).fetchall()

    def reduced(number: int) -> float:
        connection = get_connection(path)
        connection.row_factory = None
        return reduce_rows(connection, low(number))

    return [
        Race(
            "proxy: count(*) WHERE b > ?, no slower",
            lambda n: mine(COUNT, (n / 100,)),
            lambda n: proxy.execute(COUNT, (n / 100,)),
            EQUAL,
        ),
        Race(
            f"proxy: {RETURNED:,} rows returned",
            lambda n: mine(ROWS, (low(n),)),
            lambda n: proxy.execute(ROWS, (low(n),)),
            RETURNED_RATIO,
        ),
        Race(
            f"proxy: {RETURNED:,} rows reduced with run",
            reduced,
            lambda n: proxy.run(reduce_rows, low(n)),
            REDUCED_RATIO,
        ),
    ]


def round_trip(proxy: SQLProxy, path: Path, times: int, rounds: int, kept: int) -> Finding:
    """One thread, one small statement after the other."""
    with closing(multiprocessing.get_context("spawn").Pool(PROCESSES, open_connection, (str(path),))) as pool:
        pool.apply(select_one, (1,))
        found = in_turn(
            {
                "pool": lambda: timed(lambda: [pool.apply(select_one, (n,)) for n in range(times)]),
                "proxy": lambda: timed(lambda: [proxy.execute("SELECT ?", (n,)) for n in range(times)]),
            },
            rounds,
            kept=kept,
        )
        pool.terminate()
        pool.join()
    middle = {name: statistics.median(took) / times * 1e6 for name, took in found.items()}
    return at_least(
        "d",
        "proxy: a small statement, against Pool.apply",
        quotient(found["pool"], found["proxy"]),
        SMALL_RATIO,
        f"{middle['proxy']:.0f} µs against {middle['pool']:.0f} µs",
    )


def asked(threads: ThreadPoolExecutor, work: Callable[[int], object], times: int) -> Took:
    """All threads ask, so many times in all; what one got is gone before its next question, as in a server."""

    def ask(number: int) -> None:
        work(number)

    began_s, cpu_s = time.perf_counter(), time.process_time()
    list(threads.map(ask, range(times)))
    return Took((time.perf_counter() - began_s) / times, (time.process_time() - cpu_s) / times)


def timed(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s
