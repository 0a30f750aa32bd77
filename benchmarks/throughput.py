"""Messages a second over RabbitMQ: Penstock with two slots against two consumers that somebody would write first.

    python -m benchmarks.throughput [--messages 20000] [--rounds 3] [--url amqp://…]

Contestants run interleaved, each in a process of its own, from a full quorum queue; medians and ratios are printed.
Without --url it starts a private broker. Exit code 1 when a ratio is below what the project promises.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aio_pika
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, text

from benchmarks import handlers
from benchmarks.broker import broker_url
from penstock import AsyncClient
from penstock.app.queues import QueueDeclaration
from penstock.buses.address import open_bus
from penstock.config import load_settings


@dataclass(frozen=True)
class Race:
    """One kind of message, who runs it, and the ratios that are promised."""

    name: str
    queue: str
    contestants: tuple[str, ...]
    promises: tuple[tuple[str, float], ...]
    share: float
    """Part of --messages that is run."""


RACES: Final = (
    Race(
        "empty handler", "bench.empty", ("penstock", "naive", "plain"), (("naive", 3.0), ("plain", 1.0)), 1.0
    ),
    Race(
        "insert + select, SQLite synchronous=NORMAL",
        "bench.crud",
        ("penstock", "naive"),
        (("naive", 2.0),),
        0.5,
    ),
)


def main() -> int:
    """Run every race; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url")
    parser.add_argument("--synchronous", default="NORMAL", choices=["OFF", "NORMAL", "FULL"])
    options = parser.parse_args()
    console = Console()
    kept = True
    with broker_url(options.url) as url:
        for race in RACES:
            count = int(options.messages * race.share)
            rates: dict[str, list[float]] = {name: [] for name in race.contestants}
            for _ in range(options.rounds):
                for name in race.contestants:
                    rates[name].append(_run(name, url, race.queue, count, options.synchronous))
            kept = _report(console, race, rates) and kept
    return 0 if kept else 1


def _report(console: Console, race: Race, rates: dict[str, list[float]]) -> bool:
    medians = {name: statistics.median(found) for name, found in rates.items()}
    table = Table(title=race.name)
    for heading in ("consumer", "messages/s (median)", "lowest", "highest", "Penstock is", "promised"):
        table.add_column(heading, justify="left" if heading == "consumer" else "right")
    promises = dict(race.promises)
    kept = True
    for name, found in rates.items():
        ratio = medians["penstock"] / medians[name]
        promised = promises.get(name)
        kept = kept and (promised is None or ratio >= promised)
        table.add_row(
            name,
            f"{medians[name]:,.0f}",
            f"{min(found):,.0f}",
            f"{max(found):,.0f}",
            f"{ratio:.2f} times" if name != "penstock" else "",
            f"{promised:g}" if promised else "",
        )
    console.print(table)
    return kept


def _run(name: str, url: str, queue: str, count: int, synchronous: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:///{Path(folder) / 'bench.db'}"
        engine = create_engine(database)
        with engine.begin() as connection:
            connection.execute(text("PRAGMA journal_mode=WAL"))
            handlers.metadata.create_all(connection)
        engine.dispose()
        asyncio.run(_fill(url, queue, count))
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.contestants", name, url, queue, str(count)],
            env={**os.environ, "BENCH_DATABASE": database, "BENCH_SYNCHRONOUS": synchronous},
            stdout=subprocess.PIPE,
            check=True,
            timeout=600,
            text=True,
        )
    return float(done.stdout.split()[-1])


async def _fill(url: str, queue: str, count: int) -> None:
    bus = open_bus(load_settings({"bus": {"url": url}}).bus)
    await bus.connect()
    await bus.declare([QueueDeclaration(name=queue)])
    await bus.aclose()
    # What the contestant before left unacked would come redelivered, which Penstock runs one by one.
    async with await aio_pika.connect(url) as connection:
        await (await (await connection.channel()).get_queue(queue)).purge()
    bodies = ({"id": number, "note": f"message {number}"} for number in range(1, count + 1))
    async with AsyncClient(url) as client:
        async for _ in client.publish_many((queue, body) for body in bodies):
            pass


if __name__ == "__main__":
    sys.exit(main())
