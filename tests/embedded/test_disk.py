"""A disk that is full or fails: refused in words, acks go on, and it heals by itself."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from penstock.app.messages import Outgoing
from penstock.buses.contract import Subscription
from penstock.buses.embedded import EmbeddedBus
from penstock.buses.embedded.ballast import ballast_of
from penstock.errors import PublishError, PublishTimeout
from tests.contract.received import PATIENCE_S, Received, eventually
from tests.embedded.conftest import WORK, NewBus, publish
from tests.embedded.killed import left
from tests.embedded.programs import read_line, started, tell
from tests.embedded.section import section_of
from tests.embedded.test_writer import execute, file_size_limited
from tests.machine import FaultyLibc, fill, small_disk


async def test_below_the_watermark_publishing_is_refused_and_acks_go_on(
    bus: EmbeddedBus, new_bus: NewBus
) -> None:
    await publish(bus, "a")
    crowded = await new_bus(free_floor_bytes=2**60)  # no disk has that much
    received = Received()
    await crowded.consume([Subscription(WORK, 10)], received)

    (refused,) = await crowded.publish([Outgoing("work", b"{}", message_id="b")], timeout_s=10)

    assert isinstance(refused, PublishError)
    assert "was not stored" in str(refused)
    assert "free some space" in str(refused)
    (delivery,) = await received.wait_for(1)
    assert delivery.settler.ack(delivery.tag)
    await crowded.flush()
    assert await bus.depth("work") == 0
    assert crowded.is_connected
    await publish(bus, "c")  # another bus with room


async def test_want_of_space_is_an_alarm_until_there_is_space_again(new_bus: NewBus) -> None:
    crowded = await new_bus(free_floor_bytes=2**60)
    assert crowded.statistics().publishing_waits is None

    for id_ in "ab":
        await crowded.publish([Outgoing("work", b"{}", message_id=id_)], timeout_s=10)
    during = crowded.statistics()
    crowded._publishing._free_floor_bytes = 0

    assert "are free on the disk" in str(during.publishing_waits)
    assert during.alarms == 1
    assert crowded.statistics().publishing_waits is None
    assert await crowded.publish([Outgoing("work", b"{}", message_id="c")], timeout_s=10) == [None]
    assert crowded.statistics().alarms == 1


async def test_a_full_disk_refuses_what_is_published_and_takes_the_acks(bus: EmbeddedBus) -> None:
    received = Received()
    await publish(bus, "a", "b")
    await bus.consume([Subscription(WORK, 10)], received)
    first, second = await received.wait_for(2)
    await _limit_pages(bus, room=8)

    first.settler.ack(first.tag)
    (refused,) = await bus.publish([Outgoing("work", b"x" * 1_000_000)], timeout_s=10)
    second.settler.ack(second.tag)
    await bus.flush()

    assert isinstance(refused, PublishError)
    assert not isinstance(refused, PublishTimeout)
    assert "full" in str(refused)
    assert await bus.depth("work") == 0

    await _limit_pages(bus, room=1_000_000)
    await publish(bus, "c")
    await received.wait_for(3)


async def test_a_write_error_confirms_nothing_keeps_the_acks_and_heals(path: Path, bus: EmbeddedBus) -> None:
    received = Received()
    await publish(bus, "a")
    await bus.consume([Subscription(WORK, 10)], received)
    (delivery,) = await received.wait_for(1)

    with file_size_limited():
        (refused,) = await bus.publish([Outgoing("work", b"x" * 1_000_000, message_id="big")], timeout_s=10)
        assert delivery.settler.ack(delivery.tag)

    assert isinstance(refused, PublishError)
    assert str(path) in str(refused)
    await bus.flush()
    await publish(bus, "b")
    await received.wait_for(2)
    assert received.ids == ["a", "b"]
    assert bus.is_connected


async def test_on_a_disk_that_somebody_else_filled_acks_take_the_ballasts_room(tmp_path: Path) -> None:
    received = Received()
    with small_disk(tmp_path, mib=32) as disk:
        path = disk / "bus.db"
        async with _bus(path) as bus:
            for _ in range(20):
                messages = [Outgoing("work", bytes(1000))] * 100
                assert await bus.publish(messages, timeout_s=10) == [None] * 100
        async with _bus(path) as bus:  # its write-ahead log is new and small
            await bus.consume([Subscription(WORK, 2000)], received)
            deliveries = await received.wait_for(2000)
            await eventually(partial(_exists, ballast_of(path)))
            somebody_elses = fill(disk)

            for delivery in deliveries:
                assert delivery.settler.ack(delivery.tag)
            async with asyncio.timeout(PATIENCE_S):
                await bus.flush()

            assert not await _exists(ballast_of(path))
            assert await bus.depth("work") == 0
            somebody_elses.unlink()
            await publish(bus, "afterwards")
            await received.wait_for(2001)
            await eventually(partial(_exists, ballast_of(path)))


async def test_without_a_byte_of_room_nothing_is_forgotten_and_it_goes_on_by_itself(tmp_path: Path) -> None:
    received = Received()
    with small_disk(tmp_path, mib=8) as disk:  # too small for a ballast
        async with _bus(disk / "bus.db") as bus:
            for _ in range(10):
                messages = [Outgoing("work", bytes(1000))] * 100
                assert await bus.publish(messages, timeout_s=10) == [None] * 100
        async with _bus(disk / "bus.db") as bus:
            await bus.consume([Subscription(WORK, 1000)], received)
            deliveries = await received.wait_for(1000)
            somebody_elses = fill(disk)
            (refused,) = await bus.publish([Outgoing("work", bytes(100_000))], timeout_s=10)
            assert isinstance(refused, PublishError)
            assert "free some space" in str(refused)
            for delivery in deliveries:
                assert delivery.settler.ack(delivery.tag)
            flushing = asyncio.create_task(bus.flush())
            done, _ = await asyncio.wait([flushing], timeout=0.3)
            assert not done, "there was room: this test shows nothing"

            somebody_elses.unlink()

            async with asyncio.timeout(PATIENCE_S):
                await flushing
            assert await bus.depth("work") == 0
            await publish(bus, "afterwards")
            await received.wait_for(1001)


async def test_the_ballast_is_there_while_somebody_consumes(path: Path, new_bus: NewBus) -> None:
    first, second = await new_bus(lease_s=0.3), await new_bus(lease_s=0.3)
    for bus in (first, second):
        await bus.consume([Subscription(WORK, 1)], Received())
    await eventually(partial(_exists, ballast_of(path)))
    assert _mode(ballast_of(path)) == _mode(path)

    await first.aclose()
    assert await _exists(ballast_of(path))
    await second.aclose()

    assert not await _exists(ballast_of(path))


async def test_a_disk_that_cannot_write_confirms_nothing_and_loses_nothing(
    path: Path, tmp_path: Path, bus: EmbeddedBus
) -> None:
    disk = FaultyLibc(tmp_path)
    async with started("name", path, environment=disk.environment) as publisher:
        assert await read_line(publisher) == "ready"
        for id_ in ("a", "b", "c"):
            disk.set("failing_syncs", 1)
            tell(publisher, id_)
            said = await read_line(publisher)
            # It may be on the disk all the same, so it is published again under its id.
            assert said.startswith("PublishTimeout"), said
            assert f"same id ({id_})" in said
            tell(publisher, id_)
            assert await read_line(publisher) == "confirmed"
    received = Received(acks=True)
    await bus.consume([Subscription(WORK, 10)], received)

    async def drained() -> bool:
        return left(path) == 0

    await eventually(drained)

    assert set(received.ids) == {"a", "b", "c"}


async def test_acks_that_the_disk_could_not_write_are_written_again(
    path: Path, tmp_path: Path, bus: EmbeddedBus
) -> None:
    disk = FaultyLibc(tmp_path)
    await publish(bus, "a")
    async with started("consume", path, 60.0, environment=disk.environment) as consumer:
        assert await read_line(consumer) == "got a"
        disk.set("failing_syncs", 3)
        tell(consumer)
        assert "disk I/O error" in await read_line(consumer)
        assert await read_line(consumer) == "acked, and the lease is ours"
    assert disk.get("failing_syncs") == 0
    received = Received()
    await bus.consume([Subscription(WORK, 10)], received)
    await publish(bus, "b")

    await received.wait_for(1)

    assert received.ids == ["b"]


@asynccontextmanager
async def _bus(path: Path) -> AsyncIterator[EmbeddedBus]:
    bus = EmbeddedBus(section_of(path, lease_s=0.3), free_floor_bytes=100_000)
    try:
        await bus.connect()
        await bus.declare([WORK])
        yield bus
    finally:
        await bus.aclose()


async def _exists(path: Path) -> bool:
    return os.access(path, os.F_OK)


def _mode(path: Path) -> int:
    return path.stat().st_mode


async def _limit_pages(bus: EmbeddedBus, room: int) -> None:
    """SQLite itself then says that the database or disk is full."""
    assert bus._writer is not None
    ((pages,),) = await execute(bus._writer, "PRAGMA page_count")
    await execute(bus._writer, f"PRAGMA max_page_count = {pages + room}")
