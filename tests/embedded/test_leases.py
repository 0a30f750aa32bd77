"""Leases: who is dead, who is frozen, and that a late finisher settles nothing of somebody else's."""

import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from penstock.buses.contract import Subscription
from penstock.buses.embedded import leases
from penstock.buses.embedded.clock import BusClock
from penstock.buses.embedded.leases import OtherLease, Watch
from penstock.buses.embedded.rounds import Player, Round
from penstock.buses.embedded.wakeup import Pulse, WakeupPipe, feel, folder_of
from penstock.buses.embedded.writer import Transaction
from tests.contract.received import Received, eventually
from tests.embedded.conftest import WORK, NewBus, publish
from tests.embedded.programs import read_line, started, tell


def lease(renewals: int, *, id_: int = 1, length_s: float = 60.0) -> OtherLease:
    return OtherLease(id_, None, length_s, renewals)


def test_a_lease_expires_when_it_was_not_renewed_for_its_length() -> None:
    watch = Watch(interval_s=1.0)

    looks = [watch.look([lease(5, length_s=10.0)], float(second)) for second in range(11)]

    assert looks[:10] == [set()] * 10
    assert looks[10] == {1}


def test_each_renewal_begins_it_anew() -> None:
    watch = Watch(interval_s=1.0)

    looks = [watch.look([lease(second // 9, length_s=10.0)], float(second)) for second in range(100)]

    assert looks == [set()] * 100


def test_time_in_which_the_watcher_stood_still_does_not_count() -> None:
    watch = Watch(interval_s=1.0)
    watch.look([lease(5)], 0.0)

    assert watch.look([lease(5)], 3600.0) == set()
    assert watch.look([lease(6)], 3601.0) == set()


def test_leases_are_watched_apart_and_forgotten_when_gone() -> None:
    watch = Watch(interval_s=1.0)
    for second in range(5):
        watch.look([lease(0, length_s=5.0), lease(second, id_=2, length_s=5.0)], float(second))

    assert watch.look([lease(0, length_s=5.0), lease(9, id_=2, length_s=5.0)], 5.0) == {1}
    watch.look([], 6.0)
    assert watch.look([lease(0, length_s=5.0)], 7.0) == set()


async def test_a_frozen_process_loses_its_lease_and_its_late_ack_settles_nothing(
    path: Path, new_bus: NewBus
) -> None:
    bus = await new_bus(lease_s=0.6)
    await publish(bus, "a")
    received = Received()
    async with started("consume", path, 0.6) as frozen:
        assert await read_line(frozen) == "got a"

        frozen.send_signal(signal.SIGSTOP)
        await bus.consume([Subscription(WORK, 10)], received)
        (delivery,) = await received.wait_for(1)
        assert (delivery.message_id, delivery.redelivered, delivery.delivery_count) == ("a", True, 1)

        tell(frozen, "ack it now")
        frozen.send_signal(signal.SIGCONT)
        assert await read_line(frozen) == "acked, and the lease is gone"

    # The message is still there, and still ours.
    assert _claimed(path) == 1
    assert delivery.settler.ack(delivery.tag)
    await bus.flush()
    assert _claimed(path) == 0


async def test_what_a_killed_process_had_is_given_back_long_before_its_lease_ends(
    path: Path, new_bus: NewBus
) -> None:
    bus = await new_bus(lease_s=600.0)
    received = Received(acks=True)
    await publish(bus, "a")
    async with started("consume", path, 600.0) as process:
        assert await read_line(process) == "got a"
        await bus.consume([Subscription(WORK, 10)], received)
        process.kill()
        await process.wait()
        killed_s = time.monotonic()

        (delivery,) = await received.wait_for(1)

    assert time.monotonic() - killed_s < 3.0
    assert (delivery.redelivered, delivery.delivery_count) == (True, 1)
    await bus.flush()

    async def swept() -> bool:
        return not list((path.parent / "bus.db-pipes").glob(f"{process.pid}-*"))

    await eventually(swept)


def test_a_takeover_that_comes_to_nothing_leaves_the_dead_to_be_found(
    path: Path, connection: sqlite3.Connection
) -> None:
    folder = folder_of(path)
    folder.mkdir()
    os.mkfifo(folder / "1-dead")
    leases.take(connection, "1-dead", 600.0)
    clock, pipe = BusClock(), WakeupPipe(folder)
    clock.load(connection)
    player = Player(path, clock, pipe, Watch(1.0), 600.0, 0)

    connection.execute("BEGIN IMMEDIATE")
    player.play(Round(lease_id=None), Transaction(connection))
    assert leases.pipes(connection) == {pipe.name}
    connection.execute("ROLLBACK")
    pipe.close()

    assert leases.pipes(connection) == {"1-dead"}
    assert feel(folder / "1-dead") is Pulse.DEAD


async def test_a_process_that_starts_takes_over_from_a_dead_one_at_once(path: Path, new_bus: NewBus) -> None:
    bus = await new_bus(lease_s=600.0)
    await publish(bus, "a")
    async with started("consume", path, 600.0) as process:
        assert await read_line(process) == "got a"
        process.kill()
        await process.wait()
    started_s = time.monotonic()
    received = Received(acks=True)

    await bus.consume([Subscription(WORK, 10)], received)

    await received.wait_for(1)
    assert time.monotonic() - started_s < 0.5


async def test_a_live_process_keeps_its_lease_however_long_it_works(path: Path, new_bus: NewBus) -> None:
    slow, other = await new_bus(lease_s=0.3), await new_bus(lease_s=0.3)
    received, elsewhere = Received(), Received(acks=True)
    await publish(slow, "a")
    await slow.consume([Subscription(WORK, 10)], received)
    (delivery,) = await received.wait_for(1)
    await other.consume([Subscription(WORK, 10)], elsewhere)

    async def renewed_often() -> bool:
        return _least_renewals(path) >= 9  # three lengths of the lease

    await eventually(renewed_often)

    assert delivery.settler.ack(delivery.tag)
    await slow.flush()
    assert not delivery.settler.is_gone
    assert elsewhere.deliveries == []
    assert _one(path, "SELECT count(*) FROM messages") == 0


async def test_a_bus_that_lost_its_lease_takes_another_and_goes_on(path: Path, new_bus: NewBus) -> None:
    bus = await new_bus(lease_s=0.3)
    received = Received()
    await bus.consume([Subscription(WORK, 10)], received)
    await publish(bus, "a")
    (lost,) = await received.wait_for(1)

    _end_the_lease(path)

    _, again = await received.wait_for(2)
    assert lost.settler.is_gone
    assert not lost.settler.ack(lost.tag)
    assert (again.message_id, again.redelivered, again.delivery_count) == ("a", True, 1)
    assert again.settler.ack(again.tag)
    await bus.flush()
    assert _claimed(path) == 0


async def test_an_ack_that_meets_a_lost_lease_is_void_and_flush_returns(path: Path, new_bus: NewBus) -> None:
    bus = await new_bus(lease_s=600.0)
    received = Received()
    await bus.consume([Subscription(WORK, 10)], received)
    await publish(bus, "a")
    (lost,) = await received.wait_for(1)
    _end_the_lease(path)

    assert lost.settler.ack(lost.tag)  # nobody has told us yet
    await bus.flush()

    assert lost.settler.is_gone
    _, again = await received.wait_for(2)
    assert again.redelivered


@pytest.mark.parametrize("folder_is", ["a file", "unwritable"])
async def test_without_pipes_the_lease_alone_decides(path: Path, new_bus: NewBus, folder_is: str) -> None:
    pipes = path.parent / "bus.db-pipes"
    pipes.write_bytes(b"") if folder_is == "a file" else pipes.symlink_to("/proc/self")
    bus = await new_bus(lease_s=0.6)
    await publish(bus, "a")
    received = Received(acks=True)
    async with started("consume", path, 0.6) as process:
        assert await read_line(process) == "got a"
        process.kill()
        await process.wait()

    await bus.consume([Subscription(WORK, 10)], received)

    (delivery,) = await received.wait_for(1)
    assert delivery.delivery_count == 1


def _claimed(path: Path) -> int:
    return _one(path, "SELECT count(*) FROM messages WHERE lease_id IS NOT NULL")


def _least_renewals(path: Path) -> int:
    return _one(path, "SELECT min(renewals) FROM leases")


def _one(path: Path, query: str) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


def _end_the_lease(path: Path) -> None:
    with sqlite3.connect(path) as somebody:
        (lease_id,) = somebody.execute("SELECT id FROM leases").fetchone()
        leases.end(somebody, lease_id, counted=True)
    somebody.close()
