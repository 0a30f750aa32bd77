"""200 handlers on 200 queues, 50 messages a second over all of them: what the consuming costs, and does memory grow.

    python -m benchmarks.many_queues [--queues 200] [--rate 50] [--minutes 10] [--url amqp://…]

Twice: for a minute with handlers that run on the loop, so that nothing is measured but taking messages, decoding and
settling them; then with two worker processes, for as long as asked. Prints the reactor process's share of a core in
both and its resident memory. Exit code 1 when the consuming itself reaches 5 % of a core, memory grows by more than 2 %
after the first fifth, or a message is not settled.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.broker import broker_url
from penstock import App, AsyncClient
from penstock.buses.address import open_bus
from penstock.config import load_settings
from penstock.reactor.service import Reactor, Stop

QUEUES = int(os.environ.get("BENCH_QUEUES", "200"))
app, on_loop = App(), App()


def _declare(number: int) -> None:
    @app.handler(f"many.{number}")
    def handle(payload: dict[str, Any]) -> None:
        """Does nothing, in a worker."""

    @on_loop.handler(f"loop.{number}")
    async def handle_here(payload: dict[str, Any]) -> None:
        """Does nothing, at once."""


for _number in range(QUEUES):
    _declare(_number)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


async def _publish(url: str, prefix: str, rate: float, count: int) -> None:
    dice = random.Random(1)
    async with AsyncClient(url) as client:
        began_s = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, began_s + number / rate - time.monotonic()))
            await client.publish(f"{prefix}.{dice.randrange(QUEUES)}", {"n": number})


@dataclass(frozen=True)
class Measured:
    """One run of the reactor."""

    started_s: float
    share: float
    """CPU time of the reactor's process by wall time."""
    memory: list[int]
    """Resident bytes, at equal distances."""


async def measure(url: str, prefix: str, *, rate: float, minutes: float) -> Measured:
    """Run the reactor here and the publisher in a process of its own."""
    count = int(rate * minutes * 60)
    application, name, processes = (on_loop, "on_loop", 0) if prefix == "loop" else (app, "app", 2)
    settings = load_settings({"bus": {"url": url}, "workers": {"processes": processes}})
    reactor = Reactor(application, f"benchmarks.many_queues:{name}", open_bus(settings.bus), settings)
    stop = Stop()
    began_s = time.monotonic()
    running = asyncio.create_task(reactor.run(stop))
    ready = asyncio.ensure_future(reactor.ready.wait())
    await asyncio.wait((ready, running), return_when=asyncio.FIRST_COMPLETED)
    started_s = time.monotonic() - began_s
    publisher = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.many_queues", "--publish", str(count), "--prefix", prefix,
        "--rate", str(rate), "--url", url, env={**os.environ, "BENCH_QUEUES": str(QUEUES)},
    )  # fmt: skip
    cpu_s, wall_s = time.process_time(), time.monotonic()
    memory: list[int] = []
    while publisher.returncode is None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(publisher.wait()), minutes * 60 / 20)
        memory.append(_resident_bytes())
    share = (time.process_time() - cpu_s) / (time.monotonic() - wall_s)
    await asyncio.wait_for(reactor.wait_until(lambda s: s.acked >= count), 30)
    stop.request()
    await running
    return Measured(started_s, share, memory)


async def run(url: str, rate: float, minutes: float) -> bool:
    """Measure both ways and print; returns whether every promise held."""
    alone = await measure(url, "loop", rate=rate, minutes=min(1.0, minutes))
    whole = await measure(url, "many", rate=rate, minutes=minutes)
    settled = whole.memory[len(whole.memory) // 5 :]
    growth = max(settled) / settled[0] - 1
    table = Table(title=f"{QUEUES} queues, {rate:g} messages a second, {minutes:g} minutes")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("promised", justify="right")
    table.add_row("start until consuming", f"{whole.started_s:.1f} s", "")
    table.add_row("consuming itself, of a core", f"{alone.share:.1%}", "below 5 %")
    table.add_row("with two workers to serve, of a core", f"{whole.share:.1%}", "")
    table.add_row("resident memory, first and last", f"{settled[0] >> 20} and {settled[-1] >> 20} MiB", "")
    table.add_row("growth after the first fifth", f"{growth:.1%}", "below 2 %")
    Console().print(table)
    return alone.share < 0.05 and growth < 0.02


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--url")
    parser.add_argument("--publish", type=int)
    parser.add_argument("--prefix", default="many")
    options = parser.parse_args()
    if options.publish:
        uvloop.run(_publish(options.url, options.prefix, options.rate, options.publish))
        return 0
    with broker_url(options.url) as url:
        return 0 if uvloop.run(run(url, options.rate, options.minutes)) else 1


if __name__ == "__main__":
    sys.exit(main())
