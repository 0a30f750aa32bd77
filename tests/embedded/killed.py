"""Lives on one bus that are ended one after the other; python -m tests.embedded.killed WHAT FOLDER [TIMES SEED].

Each is a fork of this program, which has everything imported and opens the bus in none of its own.

points   each is killed at the next of the changes that it makes to its files, by the faulty libc, until one gets through
times    each is killed at a random moment, so many times
"""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import signal
import sqlite3
import struct
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from penstock.app.messages import Outgoing
from penstock.buses.contract import Delivery, Subscription
from penstock.buses.embedded import EmbeddedBus
from tests.embedded.programs import WORK
from tests.embedded.section import section_of

BATCH: Final = 5
LONGEST_LIFE_S: Final = 0.06
#: Places in struct control of faulty_libc.c.
STEPS, KILL_AT = 2, 3


class Life:
    """Publishes, consumes, notes an effect, acks; over and over, or once and in order."""

    def __init__(self, folder: Path, name: str) -> None:
        self._bus = EmbeddedBus(section_of(folder / "bus.db", lease_s=30.0), free_floor_bytes=0)
        self._name = name
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._confirmed = os.open(folder / "confirmed", flags)
        self._effects = os.open(folder / "effects", flags)
        self._handled = 0

    async def publish(self, batch: int) -> None:
        ids = [f"{self._name}-{batch}-{n}" for n in range(BATCH)]
        answers = await self._bus.publish(
            [Outgoing("work", b"{}", message_id=id_) for id_ in ids], timeout_s=30
        )
        assert answers == [None] * BATCH, answers
        os.write(self._confirmed, "".join(f"{id_}\n" for id_ in ids).encode())

    def handle(self, delivery: Delivery) -> None:
        os.write(self._effects, f"{delivery.message_id} {int(delivery.redelivered)}\n".encode())
        # Every other one is handed back once, so that this way of settling is taken, too.
        self._handled += 1
        if self._handled % 4 == 0:
            delivery.settler.requeue(delivery.tag)
        else:
            delivery.settler.ack(delivery.tag)

    async def once(self) -> None:
        await self._bus.connect()
        await self._bus.declare([WORK])
        await self.publish(0)
        await self._bus.consume([Subscription(WORK, 50)], self.handle)
        while left(self._bus.path):  # noqa: ASYNC110 - the last ack is durable without a word to anybody
            await asyncio.sleep(0.001)
        await self._bus.aclose()

    async def for_ever(self) -> None:
        await self._bus.connect()
        await self._bus.declare([WORK])
        await self._bus.consume([Subscription(WORK, 50)], self.handle)
        batch = 0
        while True:
            await self.publish(batch)
            batch += 1


def left(path: Path) -> int:
    """Messages in the file, whoever has them."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM messages").fetchone()[0])


def born(folder: Path, name: str, *, once: bool) -> int:
    """The pid of a new life; it ends with code 0 only when it got through."""
    pid = os.fork()
    if pid:
        return pid
    try:
        life = Life(folder, name)
        asyncio.run(life.once() if once else life.for_ever())
    except BaseException:  # noqa: BLE001 - the parent's finally clauses are not for this process
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def check(path: Path) -> None:
    """The file is whole, whatever happened."""
    if not path.exists():
        return
    with closing(sqlite3.connect(path)) as connection:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            # A batch is in the file whole or not at all: what is left of it was handled.
            assert (
                connection.execute("SELECT count(*) FROM contents").fetchone()
                == connection.execute("SELECT count(*) FROM messages").fetchone()
            )


def points(folder: Path) -> None:
    with Path(os.environ["FAULTY_LIBC"]).open("r+b") as file:
        control = mmap.mmap(file.fileno(), 0)
    for point in range(1, 10_000):
        struct.pack_into("l", control, 8 * STEPS, 0)
        struct.pack_into("l", control, 8 * KILL_AT, point)
        _, status = os.waitpid(born(folder, f"p{point}", once=True), 0)
        struct.pack_into("l", control, 8 * KILL_AT, 0)
        check(folder / "bus.db")
        if status == 0:
            sys.stdout.write(f"{point}\n")
            return
        assert os.WTERMSIG(status) == signal.SIGKILL, status


def times(folder: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(count):
        pid = born(folder, f"t{number}", once=False)
        time.sleep(chance.uniform(0, LONGEST_LIFE_S))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        check(folder / "bus.db")
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    if what == "points":
        points(Path(where))
    else:
        times(Path(where), *map(int, rest))
