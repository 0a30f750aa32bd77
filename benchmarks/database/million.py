"""(e) A million rows through the channel, row by row, against the driver: rows a second, and memory on both sides."""

from __future__ import annotations

import socket
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import psycopg
import pymysql
from pymysql.cursors import SSCursor
from sqlalchemy import URL, make_url

from benchmarks.database.findings import Effort, Finding, at_most, in_turn, quotient
from benchmarks.database.loop import (
    FRAME_BYTES,
    Ended,
    Work,
    forget_peak,
    peak_mib,
    run_workers,
    section_of,
)
from benchmarks.database.private_servers import SERVERS, private
from penstock.channels.db.stub import DatabaseStub
from penstock.channels.dbapi import sqlite
from penstock.channels.dbapi.link import attach
from penstock.channels.stub import Channel

#: While the result is read the worker and the loop grow by no more than that.
MEMORY_MIB: Final = 64.0
SELECT: Final = "SELECT * FROM t"


def measure(folder: Path, effort: Effort) -> Iterator[Finding]:
    """On SQLite, by `ctx.db.stream` and by the driver over the channel, and on the servers."""
    file = folder / "million.db"
    url = f"sqlite:///{file}"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, amount REAL, note TEXT)")
        made = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        connection.execute(
            f"INSERT INTO t {made} SELECT i, 'name ' || i, i / 3.0, printf('%060d', i) FROM n", (effort.rows,)
        )

    def by_sqlite3(_: socket.socket) -> Iterable[Any]:
        return sqlite3.connect(file).execute(SELECT)

    yield from compare("SQLite", url, effort, partial(streamed, is_server=False), by_sqlite3)
    # The rest takes its time.
    effort = replace(effort, rounds=max(1, effort.rounds // 2))
    yield from compare("SQLite, driver over the channel", url, effort, through_driver, by_sqlite3)
    for name, kind in SERVERS.items():
        with private(kind) as (server, url):
            server.execute(
                "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, amount DOUBLE PRECISION, note TEXT)",
                url=url,
            )
            server.execute(FILL[name].format(effort.rows), url=url)
            own = partial(OWN[name], make_url(url))
            yield from compare(name, url, effort, partial(streamed, is_server=True), own)


def streamed(sock: socket.socket, *, is_server: bool) -> Iterable[Any]:
    """As a handler reads."""
    return DatabaseStub(Channel(sock, limit_bytes=FRAME_BYTES), is_server=is_server).stream(SELECT)


def through_driver(sock: socket.socket) -> Iterable[Any]:
    """As a program written for sqlite3 reads."""
    attach(DatabaseStub(Channel(sock, limit_bytes=FRAME_BYTES)).link)
    return sqlite.connect().execute(SELECT)


def by_pymysql(url: URL, _: socket.socket) -> Iterable[Any]:
    """Rows as they come, not all at once."""
    connection = pymysql.connect(
        host=url.host,
        port=url.port or 0,
        user=url.username,
        password=url.password or "",
        database=url.database,
    )
    cursor = connection.cursor(SSCursor)
    cursor.execute(SELECT)
    return cast("Iterable[Any]", cursor)


def by_psycopg(url: URL, _: socket.socket) -> Iterable[Any]:
    """A cursor on the server, which sends so many rows at a time."""
    connection = psycopg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database
    )
    cursor = connection.cursor(name="rows")
    cursor.itersize = 2000
    return cursor.execute(SELECT)


FILL: Final = {
    "MariaDB": "INSERT INTO t SELECT seq, CONCAT('name ', seq), seq / 3.0, LPAD(seq, 60, '0') FROM seq_1_to_{}",
    "PostgreSQL": "INSERT INTO t SELECT i, 'name ' || i, i / 3.0, lpad(i::text, 60, '0') FROM generate_series(1, {}) i",
}
OWN: Final = {"MariaDB": by_pymysql, "PostgreSQL": by_psycopg}


def compare(
    database: str,
    url: str,
    effort: Effort,
    channel: Callable[[socket.socket], Iterable[Any]],
    own: Callable[[socket.socket], Iterable[Any]],
) -> Iterator[Finding]:
    """Both ways in turn, a new worker process each time."""
    found = in_turn(
        {
            way: partial(run_workers, section_of(url), 1, reading(rows, effort.rows))
            for way, rows in (("channel", channel), ("own", own))
        },
        effort.rounds,
    )
    rates = {way: [a_second(one) for one in runs] for way, runs in found.items()}
    middle = {way: statistics.median(figures) for way, figures in rates.items()}
    runs = found["channel"]
    turn_ms = statistics.median(one.longest_turn_s for one in runs) * 1000
    yield Finding(
        "e",
        f"{database}: {effort.rows:,} rows read, channel against own",
        f"{quotient(rates['channel'], rates['own']):.2f} times ({middle['channel']:,.0f} against "
        f"{middle['own']:,.0f} rows/s; the loop's longest turn {turn_ms:.0f} ms)",
    )
    worker_mib, loop_mib = max(one.results[0][1] for one in runs), max(one.grown_mib for one in runs)
    yield at_most(
        "e",
        f"{database}: memory that it took, MiB",
        max(worker_mib, loop_mib),
        MEMORY_MIB,
        f"worker {worker_mib:.1f}, loop {loop_mib:.1f}, own {found['own'][0].results[0][1]:.1f}",
    )


def a_second(run: Ended) -> float:
    """Rows."""
    rate, _ = run.results[0]
    return float(rate)


def reading(rows: Callable[[socket.socket], Iterable[Any]], count: int) -> Work:
    """Read them all, one by one, in a worker: rows a second, and by how many MiB it grew."""

    def work(_: int, sock: socket.socket) -> tuple[float, float]:
        forget_peak()
        before_mib, began_s, seen = peak_mib(), time.monotonic(), 0
        for _row in rows(sock):
            seen += 1
        took_s = time.monotonic() - began_s
        assert seen == count
        return count / took_s, peak_mib() - before_mib

    return work
