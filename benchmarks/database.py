"""The CRUD handler (insert + select, one transaction) a message: the worker's own connection against a new one each time.

    python -m benchmarks.database [--messages 500] [--rounds 3] [--durable]

On SQLite, MariaDB and PostgreSQL in one run, on private servers. Contestants run interleaved, in one process, each message
from its body to its outcome as in a worker; medians and ratios are printed. Without --durable the servers do not wait for
the disk at a commit, so that the ratio shows the connection and not the disk. Exit code 1 when the own connection is slower.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Final

from rich.console import Console
from rich.table import Table as Printed
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, insert, select
from sqlalchemy.pool import NullPool

from penstock import App, Context
from penstock.testing import Worker
from tests.servers import MariaDBServer, PostgreSQLServer, Server, Template

OWN: Final = "own connection"
EACH: Final = "a connection a message"
DURABLE: Final = {
    "mariadb": {"innodb-flush-log-at-trx-commit": "1", "innodb-doublewrite": "1"},
    "postgresql": {"fsync": "on", "full_page_writes": "on"},
}
metadata = MetaData()
rows = Table(
    "bench_rows",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(40)),
)
app = App()


@app.handler("own")
def own(payload: dict[str, str], ctx: Context) -> None:
    """On the connection that is there."""
    done = ctx.connection.execute(insert(rows).values(name=payload["name"]))
    assert done.inserted_primary_key is not None
    ctx.connection.execute(select(rows.c.name).where(rows.c.id == done.inserted_primary_key[0])).one()


@app.handler("each")
def each(payload: dict[str, str], ctx: Context) -> None:
    """On one that is opened for it, and closed."""
    engine: Engine = ctx.state.engine
    with engine.begin() as connection:
        done = connection.execute(insert(rows).values(name=payload["name"]))
        assert done.inserted_primary_key is not None
        connection.execute(select(rows.c.name).where(rows.c.id == done.inserted_primary_key[0])).one()


CONTESTANTS: Final = {OWN: "own", EACH: "each"}


@dataclass
class Race:
    """What one database's contestants came to, messages a second, a figure a round."""

    database: str
    rates: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in CONTESTANTS})

    def median(self, name: str) -> float:
        return statistics.median(self.rates[name])


def main() -> int:
    """Run every database; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--durable", action="store_true")
    options = parser.parse_args()
    races = []
    for name, url in (
        ("SQLite", sqlite_url),
        ("MariaDB", partial(server_url, MariaDBServer)),
        ("PostgreSQL", partial(server_url, PostgreSQLServer)),
    ):
        with url(durable=options.durable) as where:
            races.append(race(name, where, options.messages, options.rounds))
    report(Console(), races)
    return 0 if all(one.median(OWN) >= one.median(EACH) for one in races) else 1


def race(name: str, url: str, messages: int, rounds: int) -> Race:
    """Both contestants on one database, in turn."""
    found = Race(name)
    engine = create_engine(url, poolclass=NullPool)
    metadata.create_all(engine)
    state = SimpleNamespace(engine=engine)
    with Worker(app, database=url, state=state) as worker:
        for _ in range(rounds):
            for contestant, queue in CONTESTANTS.items():
                found.rates[contestant].append(rate(partial(worker.run, queue, {"name": "x"}), messages))
    engine.dispose()
    return found


def rate(message: Callable[[], object], count: int) -> float:
    """Messages a second."""
    began_s = time.perf_counter()
    for _ in range(count):
        message()
    return count / (time.perf_counter() - began_s)


@contextmanager
def sqlite_url(*, durable: bool) -> Iterator[str]:
    """A file of its own; SQLite waits for the disk in any case."""
    del durable
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        yield f"sqlite:///{Path(folder) / 'app.db'}"


@contextmanager
def server_url(kind: type[Server], *, durable: bool) -> Iterator[str]:
    """A database on a private server."""
    with ExitStack() as held:
        template = Template(kind)
        held.callback(template.close)
        yield held.enter_context(
            kind(template, options=DURABLE[kind.kind] if durable else None)
        ).new_database()


def report(console: Console, races: list[Race]) -> None:
    """One line a database."""
    table = Printed(title="insert + select in one transaction, a message (messages a second)")
    for heading in ("database", OWN, EACH, "ratio"):
        table.add_column(heading, justify="left" if heading == "database" else "right")
    for one in races:
        ours, theirs = one.median(OWN), one.median(EACH)
        table.add_row(one.database, f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.1f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
