"""A loop with the database channel, and worker processes beside it: the parts that a service has, without its broker."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Final, TypeAlias

import uvloop
from pydantic import SecretStr

from penstock.channels.db.service import DatabaseService
from penstock.channels.service import Caller
from penstock.channels.serving import ChannelServer
from penstock.config.database import DatabaseSection
from penstock.config.limits import LimitsSection

FRAME_BYTES: Final = LimitsSection().frame_bytes
_LOOK_S: Final = 0.5
_TURN_S: Final = 0.005

#: What a worker process does with its end of the channel.
Work: TypeAlias = Callable[[int, socket.socket], Any]

# Fork, before there is a loop or a thread: the children need nothing but their function.
processes = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Ended:
    """What the worker processes returned, and how it was for the loop meanwhile."""

    results: list[Any]
    grown_mib: float
    longest_turn_s: float


def section_of(url: str, **options: Any) -> DatabaseSection:
    """Settings as a service has them."""
    return DatabaseSection(url=SecretStr(url), **options)


def run_workers(
    section: DatabaseSection, workers: int, work: Work, look: Callable[[], None] | None = None
) -> Ended:
    """Run `work` in so many processes; `look` is called in a thread now and then."""
    pairs = [socket.socketpair() for _ in range(workers)]
    pipes = [processes.Pipe(duplex=False) for _ in range(workers)]
    go = processes.Event()

    def child(number: int) -> None:
        go.wait()
        pipes[number][1].send(work(number, pairs[number][1]))

    children = [processes.Process(target=child, args=(number,)) for number in range(workers)]
    for process in children:
        process.start()
    for _, theirs in pairs:
        theirs.close()
    for _, theirs_result in pipes:
        theirs_result.close()
    # As `penstock run` does where it is installed.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ended = runner.run(
            _serve(section, [ours for ours, _ in pairs], [pipe for pipe, _ in pipes], go, look)
        )
    for process in children:
        process.join()
    return ended


async def _serve(
    section: DatabaseSection,
    socks: list[socket.socket],
    pipes: list[Pipe],
    go: Any,
    look: Callable[[], None] | None,
) -> Ended:
    service = DatabaseService(section, frame_bytes=FRAME_BYTES)
    await service.start()
    servers = []
    for number, sock in enumerate(socks):
        sock.setblocking(False)
        servers.append(
            await ChannelServer.start(
                sock,
                {"db": service},
                Caller(f"slot {number}"),
                limit_bytes=FRAME_BYTES,
                on_ended=print,
                on_line=print,
            )
        )
    forget_peak()
    before_mib, longest_s, looked_s = peak_mib(), 0.0, 0.0
    go.set()
    results = asyncio.gather(*(_received(pipe) for pipe in pipes))
    while not results.done():
        began_s = time.monotonic()
        await asyncio.sleep(_TURN_S)
        longest_s = max(longest_s, time.monotonic() - began_s - _TURN_S)
        if look is not None and began_s - looked_s > _LOOK_S:
            looked_s = began_s
            await asyncio.to_thread(look)
    grown_mib = peak_mib() - before_mib
    for server in servers:
        server.close()
    await service.aclose()
    return Ended(list(await results), grown_mib, longest_s)


async def _received(pipe: Pipe) -> Any:
    """What a worker sends when it has ended; a thread a worker would wait for it in the loop's process."""
    loop = asyncio.get_running_loop()
    there = asyncio.Event()
    loop.add_reader(pipe.fileno(), there.set)
    try:
        await there.wait()
    finally:
        loop.remove_reader(pipe.fileno())
    return pipe.recv()


def forget_peak() -> None:
    """From here on the peak of memory is counted anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """The most memory that this process had since."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
