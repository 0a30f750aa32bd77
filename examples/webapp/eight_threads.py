"""Eight threads count, as in a question of 2011: with a connection each, and through two processes.

python eight_threads.py
"""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from penstock import SQLProxy, get_connection

COUNT = "SELECT count(*) FROM data WHERE b > ?"
ROWS = "SELECT a, b FROM data WHERE b > ?"
THREADS = 8


def fill(path: Path, rows: int) -> None:
    with get_connection(path) as connection:
        connection.execute("DROP TABLE IF EXISTS data")
        connection.execute("CREATE TABLE data (a INTEGER PRIMARY KEY, b REAL)")
        connection.executemany("INSERT INTO data (b) VALUES (?)", ((random.random(),) for _ in range(rows)))


def by_thread(path: Path, sql: str, b: float) -> list[Any]:
    connection = get_connection(path)
    connection.row_factory = None  # tuples, as the proxy gives them
    return connection.execute(sql, (b,)).fetchall()


def by_process(proxy: SQLProxy, sql: str, b: float) -> list[Any]:
    return proxy.execute(sql, (b,))


def timed_ms(work: Callable[[float], list[Any]]) -> float:
    began_s = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as threads:
        # How many rows, so that no thread keeps them.
        list(threads.map(lambda b: len(work(b)), [number / 64 for number in range(64)]))
    return (time.perf_counter() - began_s) * 1000


def main(path: Path = Path("data.db"), rows: int = 100_000) -> None:
    fill(path, rows)
    with SQLProxy(path, processes=2) as proxy:
        proxy.execute(COUNT, (0.5,))
        for name, sql in (("count(*)", COUNT), ("all rows", ROWS)):
            threads_ms = timed_ms(partial(by_thread, path, sql))
            processes_ms = timed_ms(partial(by_process, proxy, sql))
            print(f"{name}: {THREADS} threads {threads_ms:.0f} ms, two processes {processes_ms:.0f} ms")


if __name__ == "__main__":
    main()
