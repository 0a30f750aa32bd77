"""A disk that is full or fails: refused in words, acks go on, and it heals by itself."""

from pathlib import Path

from penstock.app.messages import Outgoing
from penstock.buses.contract import Subscription
from penstock.buses.embedded import EmbeddedBus
from penstock.errors import PublishError, PublishTimeout
from tests.contract.received import Received
from tests.embedded.conftest import WORK, NewBus, publish
from tests.embedded.test_writer import execute, file_size_limited


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


async def _limit_pages(bus: EmbeddedBus, room: int) -> None:
    """SQLite itself then says that the database or disk is full."""
    assert bus._writer is not None
    ((pages,),) = await execute(bus._writer, "PRAGMA page_count")
    await execute(bus._writer, f"PRAGMA max_page_count = {pages + room}")
