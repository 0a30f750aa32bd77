"""What must not grow: memory over a million messages, memory and descriptors over worker deaths and reconnects; `scripts/soak`."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from tests.choose_broker import new_broker
from tests.crash.chaos import say
from tests.crash.scene import BACK, READY, Scene, descriptors, play, resident_mib
from tests.service.processes import parent_of

#: Published at once.
BURST: Final = 5_000
#: So many may wait, so that the broker's memory stays out of it.
WAITING: Final = 50_000
#: Growth of a process that is still flat, MiB; caches fill up during the first tenth, which is not looked at.
FLAT_MIB: Final = 8.0
#: A connection that is on its way while we count.
SPARE_DESCRIPTORS: Final = 2
#: Those whose messages leave a row, and the one whose messages do nothing.
EFFECTS: Final = ("c.work", "c.loop")
QUEUES: Final = (*EFFECTS, "c.empty")


class Size(NamedTuple):
    """What a process has."""

    descriptors: int
    mib: float

    @classmethod
    def of(cls, *pids: int) -> Size:
        """The largest of these processes' figures."""
        return cls(max(map(descriptors, pids)), max(map(resident_mib, pids)))

    def __str__(self) -> str:
        return f"{self.descriptors} descriptors, {self.mib:.1f} MiB"


def sizes(scene: Scene) -> Mapping[str, Size]:
    """Of each kind of process."""
    workers = scene.service.worker_pids
    return {
        "reactor": Size.of(scene.service.pid),
        "fork server": Size.of(parent_of(workers[0])),
        "workers": Size.of(*workers),
    }


def is_flat(before: Mapping[str, Size], after: Mapping[str, Size]) -> bool:
    """Say how it was and how it is; True when nothing has grown."""
    flat = True
    for name, now in after.items():
        was = before[name]
        grows = now.descriptors > was.descriptors + SPARE_DESCRIPTORS or now.mib > was.mib + FLAT_MIB
        flat = flat and not grows
        say(f"{name:12s} {was} before; {now} after{'  GROWS' if grows else ''}")
    return flat


async def feed(scene: Scene, messages: int) -> bool:
    """Run so many messages through; True when nothing grows from the first tenth on."""
    step = max(BURST, messages // 10 // BURST * BURST)
    first: Mapping[str, Size] = {}
    began_s = time.monotonic()
    for done in range(0, messages, BURST):
        if done % step == 0:
            now = sizes(scene)
            if done >= step:
                first = first or now
            mib = {name: round(size.mib, 1) for name, size in now.items()}
            say(f"{done:8d} messages, {time.monotonic() - began_s:5.0f} s, MiB: {mib}")
        await scene.publish("c.empty", *[b"{}"] * BURST)
        while await asyncio.to_thread(scene.ready, "c.empty") > WAITING:
            pass
    while await asyncio.to_thread(scene.ready, "c.empty") or await asyncio.to_thread(
        scene.unacked, "c.empty"
    ):
        pass
    say(f"{messages:8d} messages, {time.monotonic() - began_s:5.0f} s")
    return is_flat(first, sizes(scene))


async def die(scene: Scene, deaths: int) -> None:
    """Kill workers one by one, idle ones and busy ones in turn."""
    for number in range(deaths):
        boots = scene.service.boots
        ids: list[str] = []
        victim = scene.service.worker_pids[0]
        if number % 2:
            ids = await scene.publish("c.work", {"s": 0.2})
            await scene.begun(ids[0])
            victim = int(scene.ledger.runs.read_text(encoding="ascii").splitlines()[-1].split()[3])
        scene.kill_worker(victim)
        await scene.service.wait_line(READY, count=boots + 1)
        # One that meets three deaths is a dead letter.
        await scene.done(ids)


async def cut(scene: Scene, reconnects: int, *, earlier: int) -> None:
    """Cut both connections again and again, with messages under way."""
    for number in range(earlier + 1, earlier + reconnects + 1):
        await scene.publish("c.work", {"publishes": True}, {"fails": 1}, {})
        await scene.publish("c.loop", {"publishes": True})
        scene.proxy.reset()
        await scene.service.wait_line(BACK, count=2 * number)


async def wear(scene: Scene, deaths: int, reconnects: int) -> bool:
    """Kill workers and cut connections; True when nothing grows from the first tenth on."""
    warm_deaths, warm_cuts = max(1, deaths // 10), max(1, reconnects // 10)
    await die(scene, warm_deaths)
    await cut(scene, warm_cuts, earlier=0)
    await settled(scene)
    start = sizes(scene)
    await die(scene, deaths - warm_deaths)
    await settled(scene)
    middle = sizes(scene)
    say(f"{deaths} worker deaths:")
    flat = is_flat(start, middle)
    await cut(scene, reconnects - warm_cuts, earlier=warm_cuts)
    await settled(scene)
    say(f"{reconnects} reconnects:")
    return is_flat(middle, sizes(scene)) and flat


async def settled(scene: Scene) -> None:
    """Wait until everything is done that was begun."""
    for queue in EFFECTS:
        await scene.recovered(queue)
    await scene.done({line.message_id for line in scene.ledger.confirmed() if line.queue in EFFECTS})


async def run(messages: int, deaths: int, reconnects: int, folder: Path) -> bool:
    """Both; True when both hold."""
    with new_broker() as broker:
        async with play(broker, folder, *QUEUES, SERVICE__LOG_LEVEL="info") as scene:
            await scene.service.wait_line(READY, count=2)
            is_worn = await wear(scene, deaths, reconnects)
            is_fed = await feed(scene, messages) if messages else True
    return is_worn and is_fed


def main() -> None:
    """Exit code 1 when something grew."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--deaths", type=int, default=100)
    parser.add_argument("--reconnects", type=int, default=50)
    given = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    folder = Path(tempfile.mkdtemp(prefix="penstock-soak-"))
    try:
        holds = asyncio.run(run(given.messages, given.deaths, given.reconnects, folder))
    finally:
        shutil.rmtree(folder)
    say("flat" if holds else "something grew")
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
