"""Waking: at once from another process, and within a second when the word was lost."""

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.app.messages import Outgoing
from penstock.buses.contract import Delivery, Subscription
from penstock.buses.embedded import EmbeddedBus, store, topology
from penstock.buses.embedded.wakeup import CROWDED_BYTES, Pulse, WakeupPipe, feel, sweep, wake
from tests.contract.received import Received
from tests.embedded.conftest import WORK, NewBus, publish
from tests.embedded.programs import read_line, started, tell

MESSAGES = 100


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[WakeupPipe]:
    made = WakeupPipe(tmp_path / "pipes")
    made.open(0o600)
    yield made
    made.close()


def path_of(pipe: WakeupPipe) -> Path:
    assert pipe.path is not None
    return pipe.path


def test_words_arrive_together(pipe: WakeupPipe) -> None:
    wake(path_of(pipe), {1, 2})
    wake(path_of(pipe), {2, 4_000_000_000})

    assert pipe.read() == {1, 2, 4_000_000_000}
    assert pipe.read() == set()


def test_a_crowded_pipe_says_look_everywhere_and_holds_nobody_up(pipe: WakeupPipe) -> None:
    for _ in range(200):  # more than any kernel's buffer of a pipe
        wake(path_of(pipe), range(1000))

    assert pipe.read() is None
    while pipe.read() != set():
        pass
    wake(path_of(pipe), range(CROWDED_BYTES // 4))
    assert pipe.read() == set(range(CROWDED_BYTES // 4))


def test_a_pulse_tells_the_living_from_the_dead(pipe: WakeupPipe, tmp_path: Path) -> None:
    path = path_of(pipe)
    assert feel(path) is Pulse.ALIVE
    dead = tmp_path / "dead"
    os.mkfifo(dead)

    assert feel(dead) is Pulse.DEAD
    pipe.close()
    assert feel(path) is Pulse.UNKNOWN
    assert feel(None) is Pulse.UNKNOWN
    wake(path, {1})  # nobody there: harmless
    wake(dead, {1})


def test_a_pipe_that_was_swept_away_is_made_again(pipe: WakeupPipe) -> None:
    before = path_of(pipe)
    sweep(pipe.folder, set())
    assert not before.exists()

    pipe.open(0o600)

    assert path_of(pipe).exists()
    wake(path_of(pipe), {7})
    assert pipe.read() == {7}
    assert list(pipe.folder.iterdir()) == [pipe.path]


def test_pipes_are_as_open_as_the_file(pipe: WakeupPipe) -> None:
    assert path_of(pipe).stat().st_mode & 0o777 == 0o600
    assert pipe.folder.stat().st_mode & 0o777 == 0o700


async def test_another_process_wakes_us_within_50_ms(path: Path, bus: EmbeddedBus) -> None:
    latencies_s: list[float] = []
    received = Received(acks=True)

    def sink(delivery: Delivery) -> None:
        latencies_s.append(time.monotonic() - float(delivery.body))
        received(delivery)

    await bus.consume([Subscription(WORK, 10)], sink)
    async with started("echo", path) as publisher:
        assert await read_line(publisher) == "ready"
        for count in range(1, MESSAGES + 1):
            tell(publisher)
            await received.wait_for(count)

    latencies_s.sort()
    assert latencies_s[int(MESSAGES * 0.95)] < 0.05, latencies_s[-10:]


async def test_a_message_whose_publisher_died_before_the_wakeup_is_found(
    path: Path, bus: EmbeddedBus
) -> None:
    received = Received(acks=True)
    await bus.consume([Subscription(WORK, 10)], received)
    await publish(bus, "first")
    await received.wait_for(1)
    before_s = time.monotonic()

    _append_without_a_word(path, "silent")

    await received.wait_for(2)
    assert received.ids == ["first", "silent"]
    assert time.monotonic() - before_s < 2.5


async def test_one_bus_wakes_another_for_a_message_due_sooner(new_bus: NewBus) -> None:
    consumer, publisher = await new_bus(), await new_bus()
    received = Received(acks=True)
    await consumer.consume([Subscription(WORK, 10)], received)
    await publish(consumer, "in an hour", delay_s=3600)
    before_s = time.monotonic()

    await publish(publisher, "soon", delay_s=0.3)

    await received.wait_for(1)
    assert received.ids == ["soon"]
    assert 0.3 <= time.monotonic() - before_s < 0.6


async def test_what_is_given_back_wakes_whoever_else_consumes(new_bus: NewBus) -> None:
    first, second = await new_bus(), await new_bus()
    held, elsewhere = Received(), Received(acks=True)
    await first.consume([Subscription(WORK, 10)], held)
    await publish(first, "a")
    await held.wait_for(1)
    await second.consume([Subscription(WORK, 10)], elsewhere)
    before_s = time.monotonic()

    await first.aclose()

    await elsewhere.wait_for(1)
    assert time.monotonic() - before_s < 0.5


async def test_stray_pipes_of_the_dead_are_swept_and_nothing_else(bus: EmbeddedBus, stray: Path) -> None:
    folder = stray.parent
    received = Received(acks=True)

    await bus.consume([Subscription(WORK, 10)], received)
    await bus.publish([Outgoing("work", b"")], timeout_s=10)
    await received.wait_for(1)

    left = {entry.name.partition("-")[0] for entry in _entries(folder)}
    assert left == {str(os.getpid()), "notes"}


@pytest.fixture
def stray(path: Path) -> Path:
    """A pipe whose maker died before it wrote down its lease, and a file that is nobody's business."""
    folder = path.parent / "bus.db-pipes"
    folder.mkdir()
    (folder / "notes").write_bytes(b"")
    os.mkfifo(folder / "4711-cafe")
    return folder / "4711-cafe"


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def _append_without_a_word(path: Path, message_id: str) -> None:
    connection = sqlite3.connect(path)
    try:
        found = topology.find_queue(connection, "work")
        assert found is not None
        content = store.Content(message_id, None, None, None, None, None, None, None, 0.0, 0, 0, 0.0, b"")
        store.append(connection, [(store.NewMessage(found[0], 0, None), content)])
        connection.commit()
    finally:
        connection.close()
