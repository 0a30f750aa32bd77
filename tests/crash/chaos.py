"""Random faults from a seed, for as long as one likes; behind `scripts/chaos`.

Every choice comes from the seed and the fault's number, so that a seed replays the same faults in the same order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final

import structlog

from tests.choose_broker import new_broker
from tests.crash.faults import FAULTS, HEARTBEAT_S, Fault
from tests.crash.ledger import Balance
from tests.crash.publisher import Publisher
from tests.crash.scene import Scene, play

#: The load: so many messages at once, and the pause between.
BURST: Final = 8
PAUSE_S: Final = 0.08
#: A fault that leaves a queue without service for so long has stuck it.
STUCK_S: Final = 90.0
#: Seconds for everything to be done when the faults are over.
DRAIN_S: Final = 180.0
#: The broker counts quorum queues every 5 s: empty for so long is empty.
COUNTED_S: Final = 6.0


def quiet() -> None:
    """Nothing but our own lines: the publisher's library tells every fault with a traceback."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    logging.getLogger().addHandler(logging.NullHandler())


def say(text: str) -> None:
    """One line, now."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def some_task(dice: Random) -> dict[str, Any] | bytes:
    """A message of the mixture."""
    kinds: list[tuple[float, dict[str, Any] | bytes]] = [
        (0.5, {"fails": 1, "how": dice.choice(["kill", "exit", "segfault"])}),
        (0.3, {"fails": 99, "how": "exit"}),
        (1, {"rejects": True}),
        (1, b"{not json"),
        (7, {"fails": 1}),
        (10, {"s": dice.uniform(0, 0.1), "publishes": True}),
        (40, {"publishes": True, "pad": "x" * int(dice.paretovariate(1.0) * 20 % 20_000)}),
        (40, {}),
    ]
    return dice.choices([task for _, task in kinds], [weight for weight, _ in kinds])[0]


async def load(publisher: Publisher, dice: Random, stop: asyncio.Event) -> None:
    """Publish the mixture until stopped; crashes only where there are worker processes to crash."""
    while not stop.is_set():
        queue = dice.choice(["c.work", "c.work", "c.classic", "c.loop"])
        tasks = [some_task(dice) for _ in range(dice.randint(1, BURST))]
        if queue == "c.loop":
            tasks = [t if isinstance(t, bytes) or "how" not in t else {} for t in tasks]
        await publisher.publish(queue, tasks, prefix="load")
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), PAUSE_S)


async def inflict(scene: Scene, fault: Fault, dice: Random) -> float:
    """One fault, then the time until each queue is served again. Raises when one is not within 90 s."""
    began_s = time.monotonic()
    with scene.ledger.disturbed(fault.name, severs=fault.severs):
        await fault.act(scene, dice)
        ended_s = time.monotonic()
        # A link that has gone deaf is part of the fault until its ends have noticed.
        await scene.until(lambda: not scene.proxy.deaf_links, STUCK_S)
    noticed_s = time.monotonic() - ended_s
    seconds = [await scene.recovered(queue, STUCK_S) for queue in ("c.work", "c.classic", "c.loop")]
    recovery_s = noticed_s + max(seconds)
    slow = "" if recovery_s <= fault.limit_s else f"  SLOW, the limit is {fault.limit_s:g} s"
    say(f"{fault.name:28s} took {ended_s - began_s:5.1f} s, recovered in {recovery_s:5.2f} s{slow}")
    return recovery_s


def draw(seed: int, number: int, only: Sequence[str]) -> tuple[Fault, Random]:
    """The fault with this number, and its dice."""
    dice = Random(f"{seed}:{number}")
    faults = [FAULTS[name] for name in only] if only else list(FAULTS.values())
    return dice.choices(faults, [fault.weight for fault in faults])[0], dice


async def run(minutes: float, seed: int, only: Sequence[str], folder: Path) -> bool:
    """The whole run; True when the books agree."""
    recovery_s: dict[str, list[float]] = {}
    fault_free, name = True, "none"
    with new_broker() as broker:
        async with play(broker, folder, BUS__HEARTBEAT_S=str(HEARTBEAT_S)) as scene:
            publisher = Publisher(broker.url, scene.ledger)
            stop = asyncio.Event()
            loading = asyncio.create_task(load(publisher, Random(f"{seed}:load"), stop))
            ends_s = time.monotonic() + minutes * 60
            number = 0
            try:
                while time.monotonic() < ends_s:
                    fault, dice = draw(seed, number, only)
                    number, name = number + 1, fault.name
                    await asyncio.sleep(dice.uniform(0.2, 3))
                    recovery_s.setdefault(fault.name, []).append(await inflict(scene, fault, dice))
                    if loading.done():
                        loading.result()
            except Exception:  # noqa: BLE001 - whatever it was, the books are drawn all the same
                fault_free = False
                say(f"fault {number} of seed {seed} ({name}):\n{traceback.format_exc()}")
            stop.set()
            await loading
            await publisher.aclose()
            balance = await settle(scene)
            is_even = fault_free and balance.is_even
            tell(scene, balance, recovery_s, folder, is_even=is_even)
    return is_even


async def settle(scene: Scene) -> Balance:
    """Wait until nothing is left to do, or too long; stop the service; draw the balance."""
    ends_s = time.monotonic() + DRAIN_S
    empty_s = time.monotonic()
    while time.monotonic() < min(ends_s, empty_s + COUNTED_S):
        if await queued(scene):
            empty_s = time.monotonic()
    for service in list(scene.services):
        try:
            await scene.stop_service(service)
        except (AssertionError, TimeoutError) as error:
            say(f"the service did not stop in order: {error!r}"[:500])
    return await scene.balance()


async def queued(scene: Scene) -> int:
    """Messages in queues that somebody should empty, those that are out included."""
    listed = await scene.ctl("list_queues", "name", "messages", "--no-table-headers")
    rows = [line.split("\t") for line in listed.splitlines() if "\t" in line]
    return sum(int(count or 0) for name, count in rows if not name.endswith(".dead") and name != "c.out")


def tell(
    scene: Scene, balance: Balance, recovery_s: dict[str, list[float]], folder: Path, *, is_even: bool
) -> None:
    """The figures; and where to look when they do not agree."""
    for name, seconds in sorted(recovery_s.items()):
        say(f"{name:28s} {len(seconds):3d} times, slowest recovery {max(seconds):5.2f} s")
    said = Counter(line["event"] for service in [*scene.ended, *scene.services] for line in service.lines)
    for event, count in said.most_common():
        say(f"said {count:6d} times: {event[:150]}")
    if not is_even:
        for title, ids in (
            ("lost", balance.lost),
            ("stuck", balance.stuck),
            ("unexplained", balance.unexplained),
        ):
            for id_ in ids[:20]:
                say(f"{title}: {id_}")
        with (folder / "service.log").open("w") as file:
            for service in [*scene.ended, *scene.services]:
                file.writelines(f"{service.pid} {json.dumps(line)}\n" for line in service.lines)
        (folder / "broker.log").write_text(scene.broker_log)
        disturbances = [f"{one}\n" for one in scene.ledger.disturbances]
        (folder / "disturbances.log").write_text("".join(disturbances))
    slowest_s = max((one for many in recovery_s.values() for one in many), default=0.0)
    say(balance.line(slowest_s))


def main() -> None:
    """Exit code 1 when anything is lost, stuck or unexplained."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="replays the faults of an earlier run")
    parser.add_argument("--only", action="append", default=[], choices=sorted(FAULTS), metavar="FAULT")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    quiet()
    folder = Path(tempfile.mkdtemp(prefix="penstock-chaos-"))
    say(f"seed {seed}; replay with: scripts/chaos --minutes {given.minutes:g} --seed {seed}")
    is_even = asyncio.run(run(given.minutes, seed, given.only, folder))
    if is_even:
        shutil.rmtree(folder)
    else:
        say(f"logs and books are kept in {folder}")
    sys.exit(0 if is_even else 1)


if __name__ == "__main__":
    main()
