"""Delay and priority: when a message reaches its queue, and in which order it leaves."""

import time

from penstock.app.messages import History, Outgoing
from penstock.buses.contract import Bus, Subscription
from tests.contract.conftest import Declared
from tests.contract.received import Received


async def test_a_delayed_message_is_never_early_and_holds_nobody_up(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    came_after_s: dict[str | None, float] = {}
    received = Received(acks=True)
    started_s = time.monotonic()

    def sink(delivery: object) -> None:
        received(delivery)  # type: ignore[arg-type]
        came_after_s[received.ids[-1]] = time.monotonic() - started_s

    await bus.consume([Subscription(queue, 10)], sink)
    started_s = time.monotonic()
    answers = await bus.publish(
        [
            Outgoing(queue.name, b"", message_id="second", delay_s=1.0),
            Outgoing(queue.name, b"", message_id="half", delay_s=0.5),
            Outgoing(queue.name, b"", message_id="now"),
        ],
        timeout_s=10,
    )

    assert answers == [None] * 3
    await received.wait_for(3)
    assert received.ids == ["now", "half", "second"]
    assert came_after_s["now"] < 0.5
    assert came_after_s["half"] >= 0.5
    assert came_after_s["second"] >= 1.0


async def test_a_delayed_message_keeps_its_properties_and_history(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    received = Received(acks=True)
    sent = Outgoing(
        queue.name,
        b"[1]",
        message_id="m-1",
        content_type="application/json",
        headers={"trace": "t-1"},
        correlation_id="c-1",
        reply_to="answers",
        type="order",
        delay_s=0.2,
        history=History(attempts=3, crashes=0, first_failed_at_s=1_700_000_000.5),
    )
    await bus.consume([Subscription(queue, 10)], received)

    await bus.publish([sent], timeout_s=10)

    (delivery,) = await received.wait_for(1)
    assert delivery.queue == queue.name
    for name in ("body", "message_id", "content_type", "correlation_id", "reply_to", "type", "history"):
        assert getattr(delivery, name) == getattr(sent, name), name
    assert delivery.headers == sent.headers


async def test_a_delayed_message_comes_once(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    received = Received(acks=True)
    await bus.consume([Subscription(queue, 10)], received)

    await bus.publish([Outgoing(queue.name, b"", message_id="delayed", delay_s=0.1)], timeout_s=10)
    await received.wait_for(1)
    await bus.publish([Outgoing(queue.name, b"", message_id="next")], timeout_s=10)

    await received.wait_for(2)
    assert received.ids == ["delayed", "next"]


async def test_higher_priority_leaves_first_and_equals_in_order(bus: Bus, declared: Declared) -> None:
    queue = await declared(type="classic", max_priority=5)
    priorities = [None, 1, 5, 3, 1, 9, 5, 0]  # 9 counts as 5, the queue's highest
    await bus.publish(
        [
            Outgoing(queue.name, b"", message_id=f"{n}", priority=priority)
            for n, priority in enumerate(priorities)
        ],
        timeout_s=10,
    )
    received = Received(acks=True)

    await bus.consume([Subscription(queue, 1)], received)

    await received.wait_for(len(priorities))
    assert received.ids == ["2", "5", "6", "3", "1", "4", "0", "7"]


async def test_a_queue_without_priorities_keeps_the_order(bus: Bus, declared: Declared) -> None:
    queue = await declared(type="classic")
    await bus.publish(
        [Outgoing(queue.name, b"", message_id=f"{n}", priority=n) for n in range(5)], timeout_s=10
    )
    received = Received(acks=True)

    await bus.consume([Subscription(queue, 1)], received)

    await received.wait_for(5)
    assert received.ids == ["0", "1", "2", "3", "4"]
