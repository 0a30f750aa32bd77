"""SIGKILL at any moment: no confirmed message is lost, none is half there, the file stays whole."""

import asyncio
import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from penstock.buses.contract import Subscription
from penstock.buses.embedded import EmbeddedBus
from tests.contract.received import Received
from tests.embedded.conftest import WORK, publish
from tests.embedded.programs import BATCH, logged, read_line, started

KILLS = 15
MESSAGES = 20_000
#: The life of a program that is to be killed, from its first word.
LONGEST_LIFE_S = 0.08


@pytest.fixture
def chance() -> random.Random:
    return random.Random(20_251_121)


async def test_a_consumer_killed_again_and_again_loses_nothing(
    path: Path, tmp_path: Path, bus: EmbeddedBus, chance: random.Random
) -> None:
    ids = [f"m-{n}" for n in range(MESSAGES)]
    await publish(bus, *ids)
    log = tmp_path / "effects"
    kills = 0

    while kills < KILLS and await bus.depth("work"):
        async with started("work", path, log) as worker:
            assert await read_line(worker) == "ready"
            await asyncio.sleep(chance.uniform(0, LONGEST_LIFE_S))
            worker.kill()
            await worker.wait()
        kills += 1
        assert _integrity(path) == "ok"

    received = Received(acks=True)
    await bus.consume([Subscription(WORK, 256)], received)
    await _drained(path)
    await bus.flush()
    effects = Counter(line.split()[0] for line in logged(log))
    effects.update(filter(None, received.ids))
    assert kills >= 3
    assert set(effects) == set(ids)
    # At most what was out at a kill runs again, and says so.
    again = sum(effects.values()) - len(ids)
    marked = sum(line.split()[1] != "0" for line in logged(log))
    marked += sum(delivery.redelivered for delivery in received.deliveries)
    assert again <= marked
    assert _integrity(path) == "ok"
    assert _left(path) == (0, 0)


async def test_a_publisher_killed_again_and_again_confirmed_nothing_that_is_not_there(
    path: Path, tmp_path: Path, bus: EmbeddedBus, chance: random.Random
) -> None:
    log = tmp_path / "confirmed"

    for _ in range(KILLS):
        async with started("publish", path, log) as publisher:
            assert await read_line(publisher) == "ready"
            await asyncio.sleep(chance.uniform(0, LONGEST_LIFE_S))
            publisher.kill()
            await publisher.wait()
        assert _integrity(path) == "ok"

    there = Counter(_message_ids(path))
    confirmed = logged(log)
    assert confirmed
    assert set(confirmed) <= set(there)
    assert set(there.values()) == {1}
    # A batch that was not confirmed is there whole or not at all.
    sizes = Counter(id_.rpartition("-")[0] for id_ in there)
    assert set(sizes.values()) == {BATCH}
    assert await bus.depth("work") == len(there)


async def _drained(path: Path) -> None:
    async with asyncio.timeout(30):
        while _left(path) != (0, 0):  # noqa: ASYNC110 - another process's leases end without a word to us
            await asyncio.sleep(0.02)


def _integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def _left(path: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(path)) as connection:
        (messages,) = connection.execute("SELECT count(*) FROM messages").fetchone()
        (contents,) = connection.execute("SELECT count(*) FROM contents").fetchone()
    return messages, contents


def _message_ids(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [id_ for (id_,) in connection.execute("SELECT message_id FROM contents")]
