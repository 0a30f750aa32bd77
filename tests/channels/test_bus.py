"""The bus channel: what waits for the commit, what is sent at once, and ids that another run repeats."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from penstock.app.messages import Outgoing
from penstock.app.outcomes import Outcome, Returned
from penstock.channels import wire
from penstock.channels.bus import BusService, BusStub, LocalBus, derived_id
from penstock.channels.service import Caller, Service
from penstock.errors import (
    BusUnavailable,
    ChannelError,
    PayloadError,
    PublishError,
    PublishTimeout,
    Unroutable,
)
from tests.channels.conftest import Workshop


class Published:
    """Where the service publishes to, as the reactor's bus would: answers by queue."""

    def __init__(self) -> None:
        self.messages: list[Outgoing] = []
        self.timeouts_s: list[float] = []

    async def __call__(self, messages: Sequence[Outgoing], timeout_s: float) -> list[PublishError | None]:
        self.messages += messages
        self.timeouts_s.append(timeout_s)
        match messages[0].routing_key:
            case "nobody":
                return [Unroutable("no queue is named 'nobody'; nobody would read it")]
            case "slow":
                return [
                    PublishTimeout("no confirm within 3 s: probably delivered, repeat it with the same id")
                ]
            case "refused":
                return [PublishError("the queue is full")]
            case "away":
                msg = "the broker cannot be reached"
                raise BusUnavailable(msg)
            case _:
                return [None]


async def stub(workshop: Workshop, published: Published, *, limit_bytes: int = 1 << 20) -> BusStub:
    services: dict[str, Service] = {"bus": BusService(published, 30.0)}
    return BusStub(await workshop.channel_to(services, limit_bytes=limit_bytes))


async def test_what_is_published_is_kept_in_order_until_it_is_taken(workshop: Workshop) -> None:
    published = Published()
    bus = await stub(workshop, published)
    bus.begin("parent", "shop.store")
    first = bus.publish(
        "orders.stored", {"id": 1}, delay=2.5, headers={"who": "me", "raw": b"\xff"}, priority=3
    )
    second = bus.publish(
        b"raw", exchange="events", routing_key="a.b", correlation_id="c", reply_to="r", id="mine"
    )
    one, two = bus.take()
    assert (one.routing_key, one.body, one.delay_s, one.priority) == ("orders.stored", b'{"id":1}', 2.5, 3)
    assert one.headers == {"who": "me", "raw": b"\xff"}
    assert one.message_id == first
    assert (two.exchange, two.routing_key, two.body, two.message_id) == ("events", "a.b", b"raw", "mine")
    assert second == "mine"
    assert bus.take() == ()
    assert published.messages == []


async def test_another_run_gives_the_same_ids_and_nobody_else_does(workshop: Workshop) -> None:
    bus = await stub(workshop, Published())

    def run(parent: str | None, handler: str) -> list[str]:
        bus.begin(parent, handler)
        return [
            bus.publish("q", 1),
            bus.publish_now("q", 2),
            bus.publish("q", 3, id="mine"),
            bus.publish("q", 4),
        ]

    first = await asyncio.to_thread(run, "parent", "shop.store")
    assert await asyncio.to_thread(run, "parent", "shop.store") == first
    assert len(set(first)) == 4
    assert first[2] == "mine"
    assert first[3] == derived_id("parent", "shop.store", 3)
    others = [
        ("parent2", "shop.store"),
        ("parent", "shop.store2"),
        ("parent:shop", "store"),
        (None, "shop.store"),
    ]
    found = [set(await asyncio.to_thread(run, *other)) - {"mine"} for other in others]
    assert len(set(first).union(*found)) == 4 + 3 * len(others)
    assert set(await asyncio.to_thread(run, None, "shop.store")).isdisjoint(found[-1]), (
        "without a parent: random"
    )


def test_an_id_is_the_same_in_every_process_and_version() -> None:
    # Messages that were published before an upgrade are recognised after it.
    assert derived_id("parent", "shop.store", 0) == "2644dce575a65089be0d8b190c4aa860"
    assert len(derived_id("ä" * 255, "h", 10**6)) == 32


async def test_what_a_failed_handler_kept_never_leaves(workshop: Workshop) -> None:
    bus = await stub(workshop, Published())
    bus.begin("a", "h")
    bus.publish("q", 1)
    bus.begin("b", "h")
    assert bus.take() == ()


async def test_publish_now_waits_for_the_confirm_and_stays_sent(workshop: Workshop) -> None:
    published = Published()
    bus = await stub(workshop, published)
    bus.begin("parent", "h")
    bus.publish("kept", 1)
    sent = await asyncio.to_thread(bus.publish_now, "q", {"a": 1}, headers={"raw": b"\xff"}, timeout=1.5)
    await asyncio.to_thread(bus.publish_now, "q", 2)
    assert [message.message_id for message in published.messages] == [sent, derived_id("parent", "h", 2)]
    assert published.messages[0].headers == {"raw": b"\xff"}
    assert published.timeouts_s == [1.5, 30.0]
    assert [message.routing_key for message in bus.take()] == ["kept"]


@pytest.mark.parametrize(
    ("queue", "kind", "words"),
    [
        ("nobody", Unroutable, "nobody would read it"),
        ("slow", PublishTimeout, "repeat it with the same id"),
        ("refused", PublishError, "the queue is full"),
        ("away", BusUnavailable, "cannot be reached"),
    ],
)
async def test_a_message_that_is_not_accepted_is_told_in_the_handler(
    workshop: Workshop, queue: str, kind: type[Exception], words: str
) -> None:
    bus = await stub(workshop, Published())
    with pytest.raises(kind, match=words) as caught:
        await asyncio.to_thread(bus.publish_now, queue, 1)
    assert type(caught.value) is kind
    local = LocalBus(BusService(Published(), 30.0), Caller("handler"), limit_bytes=1 << 20)
    with pytest.raises(kind, match=words):
        await local.publish_now(queue, 1)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("q", object()), {}, "cannot be written as JSON"),
        (("", 1), {}, "the first argument is the queue's name"),
        (("q", 1), {"id": "x" * 256}, "has 256 bytes"),
        (("q", 1), {"delay": -1}, "delay=-1"),
    ],
)
async def test_what_no_bus_could_carry_is_refused_at_once(
    workshop: Workshop, arguments: tuple[Any, ...], options: dict[str, Any], words: str
) -> None:
    bus = await stub(workshop, Published())
    for publish in (bus.publish, bus.publish_now):
        with pytest.raises(PayloadError, match=words):
            publish(*arguments, **options)
    assert bus.take() == ()
    for timeout in (0, -1, float("nan")):
        with pytest.raises(PayloadError, match="a positive number of seconds"):
            bus.publish_now("q", 1, timeout=timeout)


async def test_what_is_kept_always_leaves_in_one_frame(workshop: Workshop) -> None:
    told: list[Outcome] = []
    limit = 4096
    bus = await stub(workshop, Published(), limit_bytes=limit)
    for size in (0, 1, 30, 200, 1000, 3700, 3780, 3790, 3800, 3900):
        bus.begin("parent", "h")
        with pytest.raises(PayloadError, match=r"fits into one frame \(limits\.frame_bytes\)"):  # noqa: PT012
            for _ in range(10_000):
                bus.publish("q", b"x" * size, headers={"name": "value"})
        kept = bus.take()
        told.append(Returned(kept))
        frame = wire.encode(wire.Ended(2**40, 2**20, told[-1]))
        assert limit * 0.8 < len(frame) + max(size, 100) * 1.2
        assert len(frame) <= limit
        bus.publish("q", b"")
        assert len(bus.take()) == 1, "taking makes room"
    assert any(isinstance(outcome, Returned) and outcome.published for outcome in told)


async def test_the_channel_knows_no_other_word() -> None:
    service = BusService(Published(), 30.0)
    with pytest.raises(ChannelError, match="knows no 'purge'"):
        await service.call("purge", msgspec.Raw(wire.encode(None)), Caller("x"))
    service.forget(Caller("never seen"))


async def test_an_async_handler_has_the_same_bus() -> None:
    published = Published()
    bus = LocalBus(BusService(published, 30.0), Caller("handler"), limit_bytes=1 << 20)
    bus.begin("parent", "shop.store")
    ids = [
        bus.publish("q", {"a": 1}, priority=1),
        await bus.publish_now("q", 2, timeout=7),
        bus.publish("q", 3),
    ]
    assert ids == [derived_id("parent", "shop.store", number) for number in range(3)]
    assert [message.message_id for message in bus.take()] == [ids[0], ids[2]]
    assert [message.message_id for message in published.messages] == [ids[1]]
    assert published.timeouts_s == [7]
    small = LocalBus(BusService(published, 30.0), Caller("handler"), limit_bytes=1024)
    with pytest.raises(PayloadError, match="fits into one frame"):
        small.publish("q", b"x" * 1024)
