"""One contestant in a process of its own: consumes N messages from a queue that is full, prints messages a second. All run on uvloop, as
`penstock run` does where it is installed.

python -m benchmarks.contestants plain|naive|penstock URL QUEUE N
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Final

import aio_pika
import uvloop
from aio_pika.abc import AbstractIncomingMessage
from pydantic import SecretStr

from benchmarks import handlers
from penstock.buses.address import open_bus
from penstock.config import load_settings
from penstock.reactor.service import Reactor, Stop

SLOTS: Final = 2
PREFETCH: Final = 256


class Clock:
    """Times from the first delivery to the last settlement."""

    def __init__(self, count: int) -> None:
        self.left = count
        self._count = count
        self._began_s = 0.0
        self.rate = 0.0
        self.done = asyncio.Event()

    def begin(self) -> None:
        """The first delivery arrived."""
        if not self._began_s:
            self._began_s = time.perf_counter()

    def end(self, settled: int = 1) -> None:
        """So many more are settled."""
        self.left -= settled
        if self.left <= 0 and not self.done.is_set():
            self.rate = self._count / (time.perf_counter() - self._began_s)
            self.done.set()


async def plain(url: str, queue_name: str, clock: Clock) -> None:
    """aio-pika as its manual shows it: a callback that acks, nothing else."""

    async def callback(message: AbstractIncomingMessage) -> None:
        clock.begin()
        await message.ack()
        clock.end()

    await _consume(url, queue_name, callback, clock)


async def naive(url: str, queue_name: str, clock: Clock) -> None:
    """Each message through run_in_executor and one pool of processes, then acked."""
    loop = asyncio.get_running_loop()
    function = handlers.naive_crud if queue_name.endswith("crud") else handlers.naive_empty
    with ProcessPoolExecutor(SLOTS) as pool:

        async def callback(message: AbstractIncomingMessage) -> None:
            clock.begin()
            await loop.run_in_executor(pool, function, message.body)
            await message.ack()
            clock.end()

        # Both processes are up before the first message counts, as Penstock's slots are.
        await asyncio.gather(*(loop.run_in_executor(pool, time.sleep, 0.2) for _ in range(SLOTS)))
        await _consume(url, queue_name, callback, clock)


async def _consume(url: str, queue_name: str, callback, clock: Clock) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.get_queue(queue_name)
        await queue.consume(callback)
        await clock.done.wait()


async def penstock(url: str, queue_name: str, clock: Clock) -> None:
    """The reactor with two slots and its defaults."""
    settings = load_settings({"bus": {"url": url}, "workers": {"processes": SLOTS}, **_database(queue_name)})
    bus = open_bus(settings.bus.model_copy(update={"url": SecretStr(url)}))
    reactor = Reactor(handlers.app, "benchmarks.handlers:app", bus, settings, only=[queue_name])
    stop = Stop()
    running = asyncio.create_task(reactor.run(stop))
    seen = 0
    while not clock.done.is_set() and not running.done():
        await asyncio.sleep(0.01)
        statistics = reactor.statistics()
        if statistics.delivered:
            clock.begin()
        if statistics.acked > seen:
            clock.end(statistics.acked - seen)
            seen = statistics.acked
    stop.request()
    await running


def _database(queue_name: str) -> dict[str, dict[str, str]]:
    import os

    if not queue_name.endswith("crud"):
        return {}
    return {"database": {"url": os.environ["BENCH_DATABASE"], "synchronous": os.environ["BENCH_SYNCHRONOUS"]}}


async def main(name: str, url: str, queue_name: str, count: int) -> float:
    """Run one contestant; returns messages a second."""
    clock = Clock(count)
    await {"plain": plain, "naive": naive, "penstock": penstock}[name](url, queue_name, clock)
    return clock.rate


if __name__ == "__main__":
    contestant, bus_url, queue, messages = sys.argv[1:]
    print(uvloop.run(main(contestant, bus_url, queue, int(messages))))
