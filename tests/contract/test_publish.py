"""Publishing: confirmed, refused in words, and what arrives is what was sent."""

import asyncio
from typing import Any

import pytest

from penstock.app.messages import FRESH, History, Outgoing
from penstock.buses.contract import Bus, Subscription
from penstock.errors import PublishError, Unroutable
from tests.contract.conftest import Declared
from tests.contract.received import Received, eventually


async def test_a_confirmed_message_waits_in_its_queue(bus: Bus, declared: Declared) -> None:
    queue = await declared()

    assert await bus.publish([Outgoing(queue.name, b"{}")], timeout_s=10) == [None]

    assert await bus.depth(queue.name) == 1


async def test_every_property_arrives_as_it_was_sent(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    headers: dict[str, Any] = {
        "text": "grün",
        "whole": 2**40,
        "negative": -5,
        "broken": 1.5,
        "yes": True,
        "no": False,
        "bytes": b"\x00\xff",
        "nothing": None,
    }
    sent = Outgoing(
        queue.name,
        b'{"id": 1}',
        message_id="m-1",
        content_type="application/json",
        content_encoding="identity",
        headers=headers,
        correlation_id="c-1",
        reply_to="answers",
        type="order.created",
        priority=3,
    )
    received = Received()
    await bus.consume([Subscription(queue, 10)], received)

    assert await bus.publish([sent], timeout_s=10) == [None]

    (delivery,) = await received.wait_for(1)
    assert delivery.queue == queue.name
    assert delivery.body == sent.body
    assert isinstance(delivery.body, bytes)
    # aiormq gives a message without an id a random one: it finds a returned message by it.
    for name in (
        "content_type",
        "content_encoding",
        "correlation_id",
        "reply_to",
        "type",
        "priority",
    ):
        assert getattr(delivery, name) == getattr(sent, name), name
    assert {name: delivery.headers[name] for name in headers} == headers
    assert isinstance(delivery.headers["yes"], bool)
    assert not delivery.redelivered
    assert delivery.delivery_count == 0


async def test_what_was_not_set_arrives_as_none(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    received = Received()
    await bus.consume([Subscription(queue, 10)], received)

    await bus.publish([Outgoing(queue.name, b"")], timeout_s=10)

    (delivery,) = await received.wait_for(1)
    assert delivery.body == b""
    # aiormq gives a message without an id a random one: it finds a returned message by it.
    for name in (
        "content_type",
        "content_encoding",
        "correlation_id",
        "reply_to",
        "type",
        "priority",
    ):
        assert getattr(delivery, name) is None, name
    assert delivery.headers == {}
    assert delivery.history == FRESH


@pytest.mark.parametrize(
    "history",
    [
        History(attempts=2, crashes=1, first_failed_at_s=1_700_000_000.25),
        History(commit_unknown=True),
        History(replays=2, past='[{"reason": "é"}]'),
        History(starts=2),
        History(alone=True),
        History(losses=7),
        History(
            3, 2, 1_700_000_000.25, commit_unknown=True, replays=1, past="[]", starts=1, alone=True, losses=11
        ),
    ],
)
async def test_history_that_penstock_wrote_comes_back(bus: Bus, declared: Declared, history: History) -> None:
    queue = await declared()
    received = Received()
    await bus.consume([Subscription(queue, 10)], received)

    both = [Outgoing(queue.name, b"", headers={"a": 1}, history=history), Outgoing(queue.name, b"")]
    await bus.publish(both, timeout_s=10)

    again, fresh = await received.wait_for(2)
    assert again.history == history
    assert again.headers == {"a": 1}
    assert fresh.history == FRESH


@pytest.mark.parametrize("size", [1, 100_000, 3_000_000])
async def test_a_body_of_any_size_arrives_whole(bus: Bus, declared: Declared, size: int) -> None:
    queue = await declared()
    body = bytes(range(256)) * (size // 256 + 1)
    received = Received(acks=True)
    await bus.consume([Subscription(queue, 10)], received)

    assert await bus.publish([Outgoing(queue.name, body[:size])], timeout_s=10) == [None]

    assert (await received.wait_for(1))[0].body == body[:size]


async def test_a_thousand_at_once_arrive_once_each_and_in_order(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    ids = [f"m-{number}" for number in range(1000)]
    received = Received(acks=True)

    answers = await bus.publish(
        [Outgoing(queue.name, b"x" * 200, message_id=id_) for id_ in ids], timeout_s=30
    )

    assert answers == [None] * 1000
    assert await bus.depth(queue.name) == 1000
    await bus.consume([Subscription(queue, 100)], received)
    await received.wait_for(1000)
    assert received.ids == ids


async def test_many_publishers_at_once_are_all_confirmed(bus: Bus, declared: Declared) -> None:
    queue = await declared()

    answers = await asyncio.gather(
        *(bus.publish([Outgoing(queue.name, b"", message_id=f"m-{n}")], timeout_s=20) for n in range(200))
    )

    assert answers == [[None]] * 200
    received = Received(acks=True)
    await bus.consume([Subscription(queue, 50)], received)
    await received.wait_for(200)
    assert set(received.ids) == {f"m-{n}" for n in range(200)}


async def test_a_message_for_nobody_is_unroutable_and_its_neighbours_are_not(
    bus: Bus, declared: Declared, queue_prefix: str
) -> None:
    queue = await declared()
    nobody = f"{queue_prefix}nobody"

    before, refused, after = await bus.publish(
        [Outgoing(queue.name, b"1"), Outgoing(nobody, b"2", message_id="m-2"), Outgoing(queue.name, b"3")],
        timeout_s=10,
    )

    assert before is None
    assert isinstance(refused, Unroutable)
    assert nobody in str(refused)
    assert after is None
    await eventually(lambda: _has_depth(bus, queue.name, 2))


async def test_the_bus_goes_on_after_an_exchange_that_does_not_exist(
    bus: Bus, declared: Declared, queue_prefix: str
) -> None:
    queue = await declared()

    (refused,) = await bus.publish(
        [Outgoing("key", b"", exchange=f"{queue_prefix}nowhere", message_id="m-1")], timeout_s=10
    )

    assert isinstance(refused, PublishError)
    assert f"{queue_prefix}nowhere" in str(refused)
    assert await bus.publish([Outgoing(queue.name, b"")], timeout_s=10) == [None]


async def test_publishing_nothing_is_harmless(bus: Bus) -> None:
    assert await bus.publish([], timeout_s=1) == []


async def _has_depth(bus: Bus, queue: str, depth: int) -> bool:
    return await bus.depth(queue) == depth
