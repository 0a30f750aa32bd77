"""The embedded bus as a whole, where it differs from a broker."""

import asyncio
import sqlite3
import time
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from penstock.app.messages import Outgoing
from penstock.app.queues import Binding, QueueDeclaration
from penstock.buses.contract import Delivery, Subscription
from penstock.buses.embedded import EmbeddedBus
from penstock.errors import (
    BusError,
    BusUnavailable,
    PublishError,
    PublishTimeout,
    TopologyMismatch,
    Unroutable,
)
from tests.contract.received import Received
from tests.embedded.conftest import WORK, NewBus, publish
from tests.embedded.programs import logged, read_line, started
from tests.embedded.section import section_of


async def test_several_processes_share_the_work_and_nothing_comes_twice(
    path: Path, tmp_path: Path, bus: EmbeddedBus
) -> None:
    ids = [f"m-{n}" for n in range(3000)]
    logs = [tmp_path / f"effects-{n}" for n in range(3)]
    async with AsyncExitStack() as running:
        for log in logs:
            worker = await running.enter_async_context(started("work", path, log))
            assert await read_line(worker) == "ready"
        for start in range(0, len(ids), 500):
            await publish(bus, *ids[start : start + 500])
        async with asyncio.timeout(30):
            while _count(path):  # noqa: ASYNC110 - the workers tell nobody
                await asyncio.sleep(0.02)

    done = [line for log in logs for line in logged(log)]
    assert sorted(done) == sorted(f"{id_} 0" for id_ in ids)


async def test_all_differences_are_reported_at_once_and_nothing_is_declared(bus: EmbeddedBus) -> None:
    await bus.declare(
        [
            QueueDeclaration(name="ranked", type="classic", max_priority=5),
            QueueDeclaration(name="bound", bindings=(Binding("events", "#", type="topic"),)),
        ]
    )

    with pytest.raises(TopologyMismatch) as mismatch:
        await bus.declare(
            [
                QueueDeclaration(name="new"),
                QueueDeclaration(name="ranked"),
                QueueDeclaration(name="bound", bindings=(Binding("events", "", type="fanout"),)),
                QueueDeclaration(name="headed", bindings=(Binding("table", "", type="headers"),)),
                QueueDeclaration(name="gone", declare=False),
            ]
        )

    ranked, bound, headed, gone, gone_dead = mismatch.value.differences
    assert 'write type="classic", max_priority=5' in ranked
    assert "write Binding('events', '', type=\"topic\")" in bound
    assert "'headers'" in headed
    assert "RabbitMQ" in headed
    assert "'gone'" in gone
    assert "'gone.dead'" in gone_dead
    assert await bus.depth("new") is None


async def test_a_delayed_message_for_nobody_is_refused_at_once(bus: EmbeddedBus) -> None:
    (refused,) = await bus.publish([Outgoing("nobody", b"", delay_s=5)], timeout_s=10)

    assert isinstance(refused, Unroutable)


async def test_a_property_that_cannot_be_written_costs_its_message_only(bus: EmbeddedBus) -> None:
    headers: dict[str, Any] = {"thing": object()}

    fine, odd, cut, huge = await bus.publish(
        [
            Outgoing("work", b"", message_id="fine"),
            Outgoing("work", b"", headers=headers),
            Outgoing("work", b"", correlation_id="\ud800"),
            Outgoing("work", b"", headers={"number": 2**80}),
        ],
        timeout_s=10,
    )

    assert fine is None
    for refused in (odd, cut, huge):
        assert isinstance(refused, PublishError)
        assert "cannot be written" in str(refused)
    assert await bus.depth("work") == 1


async def test_behind_a_lock_a_publish_ends_in_time_and_is_certainly_not_stored(
    path: Path, bus: EmbeddedBus
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        before_s = time.monotonic()

        (refused,) = await bus.publish([Outgoing("work", b"", message_id="m-1")], timeout_s=0.2)

        assert time.monotonic() - before_s < 0.4
        assert isinstance(refused, PublishError)
        assert not isinstance(refused, PublishTimeout)
        assert "in nobody's queue" in str(refused)
        other.execute("COMMIT")
    await publish(bus, "m-2")
    assert await bus.depth("work") == 1


async def test_behind_a_lock_acks_wait_and_none_is_forgotten(path: Path, bus: EmbeddedBus) -> None:
    received = Received()
    await bus.consume([Subscription(WORK, 10)], received)
    await publish(bus, "a", "b")
    await received.wait_for(2)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for delivery in received.deliveries:
            delivery.settler.ack(delivery.tag)
        flushing = asyncio.create_task(bus.flush())
        done, _ = await asyncio.wait([flushing], timeout=0.7)  # longer than one wait for the lock
        assert not done
        other.execute("COMMIT")

    await flushing

    assert _count(path) == 0


async def test_a_fault_in_the_sink_is_loud_and_loses_nothing(
    path: Path, bus: EmbeddedBus, new_bus: NewBus, capsys: pytest.CaptureFixture[str]
) -> None:
    called = asyncio.Event()

    def sink(_: Delivery) -> None:
        called.set()
        raise ZeroDivisionError

    await bus.consume([Subscription(WORK, 10)], sink)
    await publish(bus, "a")
    await called.wait()
    # The task ends before whatever is asked of the loop from now on.
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert not bus.is_connected
    assert "stopped delivering" in capsys.readouterr().out
    await bus.aclose()
    other, received = await new_bus(), Received(acks=True)
    await other.consume([Subscription(WORK, 10)], received)
    (delivery,) = await received.wait_for(1)
    assert delivery.redelivered


async def test_a_queue_is_consumed_once_on_a_bus(bus: EmbeddedBus) -> None:
    await bus.consume([Subscription(WORK, 10)], Received())

    with pytest.raises(BusError, match="already"):
        await bus.consume([Subscription(WORK, 10)], Received())

    await bus.stop_consuming()
    received = Received(acks=True)
    await bus.consume([Subscription(WORK, 10)], received)
    await publish(bus, "a")
    await received.wait_for(1)


async def test_a_queue_that_was_never_declared_is_not_consumed(bus: EmbeddedBus) -> None:
    with pytest.raises(TopologyMismatch, match="nobody"):
        await bus.consume([Subscription(QueueDeclaration(name="nobody"), 1)], Received())


async def test_a_bus_that_is_not_connected_says_so(path: Path) -> None:
    bus = EmbeddedBus(section_of(path))

    with pytest.raises(BusUnavailable, match="connect"):
        await bus.publish([Outgoing("work", b"")], timeout_s=1)
    assert repr(bus) == f"<EmbeddedBus {path} closed>"


async def test_a_large_batch_lets_acks_through_between_its_chunks(bus: EmbeddedBus) -> None:
    received = Received(acks=True)
    await bus.consume([Subscription(WORK, 256)], received)
    messages = [Outgoing("work", b"x" * 100, message_id=f"{n}") for n in range(10_000)]

    publishing = asyncio.create_task(bus.publish(messages, timeout_s=30))
    await received.wait_for_any()

    assert not publishing.done()
    assert await publishing == [None] * 10_000
    await received.wait_for(10_000)
    assert received.ids == [f"{n}" for n in range(10_000)]


async def test_what_is_held_is_marked_and_an_ack_in_it_counts_at_once(path: Path, bus: EmbeddedBus) -> None:
    await publish(bus, *(f"m-{n}" for n in range(250)))

    async with bus.hold("work", limit=250) as held:
        async for delivery in held:
            if delivery.message_id == "m-249":
                delivery.settler.ack(delivery.tag)

    assert _count(path) == 249
    async with bus.hold("work", limit=1) as held:
        (first,) = [delivery async for delivery in held]
    assert (first.message_id, first.redelivered, first.delivery_count) == ("m-0", True, 0)


def _count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM messages").fetchone()[0])
