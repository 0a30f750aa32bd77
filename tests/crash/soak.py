"""What must not grow: memory over a million messages, descriptors over worker deaths and reconnects; `scripts/soak`."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import structlog

from tests.choose_broker import new_broker
from tests.crash.chaos import say
from tests.crash.scene import BACK, READY, Scene, descriptors, play, resident_mib

#: Published at once.
BURST: Final = 5_000
#: So many may wait, so that the broker's memory stays out of it.
WAITING: Final = 50_000
#: Growth of a process that is still flat, MiB; caches fill up during the first tenth, which is not looked at.
FLAT_MIB: Final = 8.0
DEATHS: Final = 100
RECONNECTS: Final = 50


async def feed(scene: Scene, messages: int) -> bool:
    """Run so many messages through; True when memory is flat from the first tenth on."""
    pids = [scene.service.pid, *scene.service.worker_pids]
    first: list[float] = []
    began_s = time.monotonic()
    for done in range(0, messages, BURST):
        await scene.publish("c.empty", *[b"{}"] * BURST)
        while await asyncio.to_thread(scene.ready, "c.empty") > WAITING:
            pass
        if done % (messages // 10 // BURST * BURST or BURST) == 0:
            now = [resident_mib(pid) for pid in pids]
            if done >= messages // 10:
                first = first or now
            say(
                f"{done:8d} messages, {time.monotonic() - began_s:5.0f} s, MiB: {[round(mib, 1) for mib in now]}"
            )
    while await asyncio.to_thread(scene.ready, "c.empty") or await asyncio.to_thread(
        scene.unacked, "c.empty"
    ):
        pass
    last = [resident_mib(pid) for pid in pids]
    growth = [round(after - before, 1) for before, after in zip(first, last, strict=True)]
    say(f"{messages:8d} messages, {time.monotonic() - began_s:5.0f} s, growth in MiB: {growth}")
    return max(growth) <= FLAT_MIB


async def wear(scene: Scene, deaths: int, reconnects: int) -> bool:
    """Kill workers and cut connections; True when the reactor and its fork server have no more descriptors than before."""
    await scene.recovered()
    before = descriptors(scene.service.pid)
    for _ in range(deaths):
        boots = scene.service.boots
        scene.kill_worker(scene.service.worker_pids[0])
        await scene.service.wait_line(READY, count=boots + 1)
    for number in range(reconnects):
        scene.proxy.reset()
        await scene.service.wait_line(BACK, count=2 * number + 2)
    await scene.recovered()
    after = descriptors(scene.service.pid)
    say(f"{deaths} worker deaths, {reconnects} reconnects: {before} descriptors before, {after} after")
    return after <= before + 2


async def run(messages: int, folder: Path) -> bool:
    """Both; True when both hold."""
    with new_broker() as broker:
        async with play(broker, folder, "c.empty", "c.work", SERVICE__LOG_LEVEL="debug") as scene:
            await scene.service.wait_line(READY, count=2)
            is_worn = await wear(scene, DEATHS, RECONNECTS)
            is_flat = await feed(scene, messages)
    return is_worn and is_flat


def main() -> None:
    """Exit code 1 when something grew."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    given = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    folder = Path(tempfile.mkdtemp(prefix="penstock-soak-"))
    holds = asyncio.run(run(given.messages, folder))
    shutil.rmtree(folder)
    say("flat" if holds else "something grew")
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
