"""A proxy with two processes against eight threads with thread-local connections, on one SQLite file.

    python -m benchmarks.proxy [--rounds 5] [--rows 200000]

Eight threads ask in both cases; the contestants run in turns, medians and ratios are printed. Exit code 1 when a ratio
is below what the project promises.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.proxy_functions import COUNT, ROWS, open_connection, reduce_rows, select_one
from penstock import SQLProxy, get_connection

THREADS: Final = 8
PROCESSES: Final = 2
SMALL: Final = 2000


@dataclass(frozen=True)
class Race:
    name: str
    rival: Callable[[int], object]
    proxy: Callable[[int], object]
    times: int
    promise: float


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--rows", type=int, default=200_000)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.db"
        fill(path, chosen.rows)
        with SQLProxy(path, processes=PROCESSES) as proxy, ThreadPoolExecutor(THREADS) as threads:
            figures = [run(race, threads, chosen.rounds) for race in races(proxy, path, chosen.rows)]
            figures.append(round_trips(proxy, path, chosen.rounds))
    return report(figures)


def fill(path: Path, rows: int) -> None:
    random = Random(2011)
    connection = get_connection(path)
    with connection:
        connection.execute("CREATE TABLE data (a INTEGER PRIMARY KEY, b REAL, c TEXT)")
        connection.executemany(
            "INSERT INTO data (b, c) VALUES (?, ?)",
            ((random.random(), f"text {random.random()}") for _ in range(rows)),
        )


def races(proxy: SQLProxy, path: Path, rows: int) -> list[Race]:
    def lows(number: int) -> tuple[int]:
        return (number * 1000 % max(1, rows - 20_000),)

    def mine(sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        connection = get_connection(path)
        connection.row_factory = None
        return connection.execute(sql, parameters).fetchall()

    return [
        Race(
            "count(*) WHERE b > ?",
            lambda n: mine(COUNT, (n / 100,)),
            lambda n: proxy.execute(COUNT, (n / 100,)),
            48,
            1.0,
        ),
        Race(
            "20,000 rows returned",
            lambda n: mine(ROWS, lows(n)),
            lambda n: proxy.execute(ROWS, lows(n)),
            48,
            1.5,
        ),
        Race(
            "20,000 rows reduced",
            lambda n: reduce_rows(get_connection(path), *lows(n)),
            lambda n: proxy.run(reduce_rows, *lows(n)),
            48,
            2.5,
        ),
    ]


def run(race: Race, threads: ThreadPoolExecutor, rounds: int) -> tuple[str, float, float, float]:
    rival, proxy = [], []
    for _ in range(rounds):
        rival.append(timed(lambda: list(threads.map(race.rival, range(race.times)))) / race.times)
        proxy.append(timed(lambda: list(threads.map(race.proxy, range(race.times)))) / race.times)
    return race.name, statistics.median(rival), statistics.median(proxy), race.promise


def round_trips(proxy: SQLProxy, path: Path, rounds: int) -> tuple[str, float, float, float]:
    """One thread, one small statement after the other."""
    rival, ours = [], []
    context = multiprocessing.get_context("spawn")
    with closing(context.Pool(PROCESSES, open_connection, (str(path),))) as pool:
        pool.apply(select_one, (1,))
        for _ in range(rounds):
            rival.append(timed(lambda: [pool.apply(select_one, (n,)) for n in range(SMALL)]) / SMALL)
            ours.append(timed(lambda: [proxy.execute("SELECT ?", (n,)) for n in range(SMALL)]) / SMALL)
        pool.terminate()
        pool.join()
    return "small statement, against Pool.apply", statistics.median(rival), statistics.median(ours), 2.0


def timed(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def report(figures: list[tuple[str, float, float, float]]) -> int:
    table = Table("", "threads, ms", "proxy, ms", "times as fast", "promised")
    for name, rival_s, proxy_s, promise in figures:
        ratio = rival_s / proxy_s
        table.add_row(name, f"{rival_s * 1e3:.3f}", f"{proxy_s * 1e3:.3f}", f"{ratio:.2f}", f"{promise:.1f}")
    Console().print(table)
    return int(any(rival_s / proxy_s < promise for _, rival_s, proxy_s, promise in figures))


if __name__ == "__main__":
    sys.exit(main())
