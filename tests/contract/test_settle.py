"""Settling: acked is gone, requeued comes again, and what nobody settled is handed out again."""

import asyncio
import os
import sys
import time

from penstock.app.messages import Outgoing
from penstock.buses.contract import Bus, Delivery, Sink, Subscription
from penstock.config.bus import BusSection
from tests.contract.conftest import Declared, NewBus
from tests.contract.received import PATIENCE_S, Received


async def publish(bus: Bus, queue: str, *ids: str) -> None:
    messages = [Outgoing(queue, id_.encode(), message_id=id_) for id_ in ids]
    assert await bus.publish(messages, timeout_s=10) == [None] * len(ids)


async def test_acked_messages_are_gone_for_everybody(bus: Bus, declared: Declared, new_bus: NewBus) -> None:
    queue = await declared()
    received = Received()
    await bus.consume([Subscription(queue, 10)], received)
    await publish(bus, queue.name, "a", "b", "c")
    for delivery in await received.wait_for(3):
        assert delivery.settler.ack(delivery.tag)

    await bus.flush()
    await bus.aclose()

    other = await new_bus()
    again = Received(acks=True)
    await publish(other, queue.name, "last")
    await other.consume([Subscription(queue, 10)], again)
    await again.wait_for(1)
    assert again.ids == ["last"]


class Hears:
    """Told of an ack."""

    def __init__(self) -> None:
        self.acked_s: list[float] = []

    def note_acked(self, at_s: float) -> None:
        self.acked_s.append(at_s)


async def test_whoever_acks_is_told_when_the_ack_has_left(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    received = Received()
    await bus.consume([Subscription(queue, 10)], received)
    await publish(bus, queue.name, "a", "b")
    first, second = await received.wait_for(2)
    hears, nobody = Hears(), Hears()
    began_s = time.monotonic()

    first.settler.ack(first.tag, hears)
    first.settler.ack(first.tag, nobody)
    second.settler.requeue(second.tag)
    waiting = bus.statistics().acks_waiting
    at_once = list(hears.acked_s)
    await bus.flush()

    assert (waiting, at_once) == (2, [])
    assert [began_s <= at_s <= time.monotonic() for at_s in hears.acked_s] == [True]
    assert nobody.acked_s == []
    assert bus.statistics().acks_waiting == 0


async def test_acks_may_come_in_any_order(bus: Bus, declared: Declared, new_bus: NewBus) -> None:
    queue = await declared()
    received = Received()
    await bus.consume([Subscription(queue, 10)], received)
    await publish(bus, queue.name, *(f"m-{n}" for n in range(10)))
    deliveries = await received.wait_for(10)

    for index in (9, 3, 7, 0, 1, 8, 5, 2):  # 4 and 6 stay
        deliveries[index].settler.ack(deliveries[index].tag)
        await bus.flush()
    # The way back is still open.
    await publish(bus, queue.name, "afterwards")
    await received.wait_for(11)
    received.deliveries[10].settler.ack(received.deliveries[10].tag)
    await bus.aclose()

    other = await new_bus()
    left = Received(acks=True)
    await other.consume([Subscription(queue, 10)], left)
    await left.wait_for(2)
    assert sorted(filter(None, left.ids)) == ["m-4", "m-6"]


async def test_a_requeued_message_comes_again_as_itself(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    received = Received()
    await bus.consume([Subscription(queue, 1)], received)
    await publish(bus, queue.name, "a")
    (first,) = await received.wait_for(1)

    assert first.settler.requeue(first.tag)

    _, second = await received.wait_for(2)
    assert second.redelivered
    assert (second.message_id, second.body) == (first.message_id, first.body)
    assert second.settler.ack(second.tag)
    await bus.flush()


async def test_settling_twice_does_nothing_and_breaks_nothing(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    received = Received()
    await bus.consume([Subscription(queue, 5)], received)
    await publish(bus, queue.name, "a", "b")
    first, second = await received.wait_for(2)

    assert first.settler.ack(first.tag)
    await bus.flush()
    first.settler.ack(first.tag)
    first.settler.requeue(first.tag)
    await bus.flush()

    assert second.settler.ack(second.tag)
    await bus.flush()
    await publish(bus, queue.name, "c")
    await received.wait_for(3)
    assert received.ids == ["a", "b", "c"]


async def test_no_more_than_prefetch_is_out_and_each_ack_lets_one_in(bus: Bus, declared: Declared) -> None:
    queue, marker = await declared(), await declared("marker")
    received, marks = Received(), Received(acks=True)
    await publish(bus, queue.name, *(f"m-{n}" for n in range(10)))
    await bus.consume(
        [Subscription(queue, 3), Subscription(marker, 1)],
        lambda delivery: (marks if delivery.queue == marker.name else received)(delivery),
    )
    await received.wait_for(3)

    # Whatever else had been on its way came before the marker.
    await publish(bus, marker.name, "mark")
    await marks.wait_for(1)
    assert received.ids == ["m-0", "m-1", "m-2"]

    received.deliveries[1].settler.ack(received.deliveries[1].tag)
    await received.wait_for(4)
    await publish(bus, marker.name, "mark")
    await marks.wait_for(2)
    assert received.ids == ["m-0", "m-1", "m-2", "m-3"]


async def test_each_queue_has_its_own_prefetch(bus: Bus, declared: Declared) -> None:
    queues = [await declared(f"q-{n}") for n in range(20)]
    received = Received()
    for queue in queues:
        await publish(bus, queue.name, f"{queue.name}/1", f"{queue.name}/2", f"{queue.name}/3")

    await bus.consume([Subscription(queue, 2) for queue in queues], received)

    await received.wait_for(40)
    assert sorted(filter(None, received.ids)) == sorted(
        f"{queue.name}/{n}" for queue in queues for n in (1, 2)
    )


async def test_a_prefetch_that_was_lowered_lets_fewer_out(bus: Bus, declared: Declared) -> None:
    queue = await declared()
    received = Received()
    await bus.consume([Subscription(queue, 10)], received)
    await publish(bus, queue.name, *(f"m{n}" for n in range(40)))
    before = list(await received.wait_for(10))

    await bus.set_prefetch(queue.name, 2)
    for delivery in before:
        delivery.settler.ack(delivery.tag)
    await bus.flush()
    out = (await received.wait_for(12))[10:]

    # Two more for each pair that is acked, and never more than two out: the third comes only after an ack.
    assert len(out) == 2
    for delivery in out:
        delivery.settler.ack(delivery.tag)
    assert len(await received.wait_for(14)) == 14


async def test_closing_hands_back_what_is_unsettled(bus: Bus, declared: Declared, new_bus: NewBus) -> None:
    queue = await declared()
    received = Received()
    await bus.consume([Subscription(queue, 10)], received)
    await publish(bus, queue.name, "a", "b")
    acked, unsettled = await received.wait_for(2)
    acked.settler.ack(acked.tag)

    await bus.aclose()

    assert unsettled.settler.is_gone
    assert not unsettled.settler.ack(unsettled.tag)
    other = await new_bus()
    again = Received(acks=True)
    await other.consume([Subscription(queue, 10)], again)
    (delivery,) = await again.wait_for(1)
    assert delivery.message_id == "b"
    assert delivery.redelivered


async def test_stopping_lets_nothing_new_come_and_what_is_out_be_settled(
    bus: Bus, declared: Declared, new_bus: NewBus
) -> None:
    queue = await declared()
    received = Received()
    await bus.consume([Subscription(queue, 10)], received)
    await publish(bus, queue.name, "a", "b")
    await received.wait_for(2)

    await bus.stop_consuming()
    await publish(bus, queue.name, "late")

    other = await new_bus()
    elsewhere = Received(acks=True)
    await other.consume([Subscription(queue, 10)], elsewhere)
    await elsewhere.wait_for(1)
    assert elsewhere.ids == ["late"]
    for delivery in received.deliveries:
        assert delivery.settler.ack(delivery.tag)
    await bus.flush()
    await bus.aclose()
    await publish(other, queue.name, "last")
    await elsewhere.wait_for(2)
    assert elsewhere.ids == ["late", "last"]
    assert received.ids == ["a", "b"]


async def test_two_consumers_share_a_queue_and_nothing_comes_twice(
    bus: Bus, declared: Declared, new_bus: NewBus
) -> None:
    queue, other = await declared(), await new_bus()
    received = Received(acks=True)
    served_by: set[Bus] = set()

    def sink_of(consumer: Bus) -> Sink:
        def sink(delivery: Delivery) -> None:
            served_by.add(consumer)
            received(delivery)

        return sink

    await bus.consume([Subscription(queue, 5)], sink_of(bus))
    await other.consume([Subscription(queue, 5)], sink_of(other))
    ids = [f"m-{n}" for n in range(300)]

    await publish(bus, queue.name, *ids)

    await received.wait_for(300)
    assert sorted(filter(None, received.ids)) == sorted(ids)
    assert served_by == {bus, other}


async def test_what_a_killed_process_had_out_is_handed_out_again(
    bus: Bus, declared: Declared, section: BusSection
) -> None:
    queue = await declared()
    await publish(bus, queue.name, "a", "b", "c")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.contract.consumer_process",
        queue.name,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"BUS_URL": section.url.get_secret_value()},
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        seen = [(await process.stdout.readline()).decode().strip() for _ in range(3)]
    assert seen == ["a", "b", "c"]

    process.kill()
    await process.wait()

    received = Received(acks=True)
    await bus.consume([Subscription(queue, 10)], received)
    deliveries = await received.wait_for(3)
    assert sorted(filter(None, received.ids)) == ["a", "b", "c"]
    assert all(delivery.redelivered for delivery in deliveries)
    await bus.flush()
