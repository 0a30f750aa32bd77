"""Declaring: what is made, what is compared, what is reported, and where an exchange's messages go."""

from typing import Literal, NamedTuple

import pytest

from penstock.app.messages import Outgoing
from penstock.app.queues import Binding, QueueDeclaration
from penstock.buses.contract import Bus, Subscription
from penstock.errors import TopologyMismatch, Unroutable
from tests.contract.conftest import Declared, NewBus
from tests.contract.received import Received, eventually


async def test_declaring_again_as_before_changes_nothing(
    bus: Bus, declared: Declared, new_bus: NewBus
) -> None:
    queue = await declared(type="classic", max_priority=5)
    await bus.publish([Outgoing(queue.name, b"")], timeout_s=10)

    await bus.declare([queue])
    await (await new_bus()).declare([queue])

    assert await bus.depth(queue.name) == 1


async def test_a_queue_has_a_dead_letter_queue_beside_it(bus: Bus, declared: Declared) -> None:
    queue = await declared()

    assert await bus.publish([Outgoing(queue.dead_name, b"", message_id="dead")], timeout_s=10) == [None]

    assert await bus.depth(queue.dead_name) == 1
    assert await bus.depth(queue.name) == 0


async def test_a_dead_letter_queue_can_be_consumed_with_a_declaration_of_its_own(
    bus: Bus, declared: Declared
) -> None:
    queue = await declared()
    received = Received(acks=True)
    await bus.consume([Subscription(QueueDeclaration(name=queue.dead_name, declare=False), 10)], received)

    await bus.publish([Outgoing(queue.dead_name, b"", message_id="dead")], timeout_s=10)

    await received.wait_for(1)
    assert received.ids == ["dead"]


async def test_a_queue_that_was_never_declared_has_no_depth(bus: Bus, queue_prefix: str) -> None:
    assert await bus.depth(f"{queue_prefix}nobody") is None


async def test_every_queue_with_other_arguments_is_reported_at_once(
    bus: Bus, new_bus: NewBus, queue_prefix: str
) -> None:
    def queues(top: int) -> list[QueueDeclaration]:
        return [
            QueueDeclaration(name=queue_prefix + name, type="classic", max_priority=top)
            for name in ("one", "two", "three")
        ]

    fine = QueueDeclaration(name=f"{queue_prefix}fine")
    await bus.declare([*queues(5), fine])

    other = await new_bus()
    with pytest.raises(TopologyMismatch) as mismatch:
        await other.declare([*queues(9)[:2], fine])

    text = "\n".join(mismatch.value.differences)
    assert len(mismatch.value.differences) == 2
    assert f"{queue_prefix}one" in text
    assert f"{queue_prefix}two" in text
    assert "5" in text
    assert "9" in text
    assert f"{queue_prefix}fine" not in text
    # Nothing is broken by having asked.
    await other.declare([*queues(5), fine])


async def test_declare_false_uses_what_is_there(bus: Bus, declared: Declared, new_bus: NewBus) -> None:
    there = await declared(type="classic", max_priority=7)
    other = await new_bus()
    as_it_is = QueueDeclaration(name=there.name, declare=False)
    received = Received(acks=True)

    await other.declare([as_it_is])
    await other.consume([Subscription(as_it_is, 1)], received)
    await bus.publish([Outgoing(there.name, b"", message_id="a")], timeout_s=10)

    await received.wait_for(1)


async def test_declare_false_reports_every_queue_that_is_missing(bus: Bus, queue_prefix: str) -> None:
    names = [f"{queue_prefix}one", f"{queue_prefix}two"]

    with pytest.raises(TopologyMismatch) as mismatch:
        await bus.declare([QueueDeclaration(name=name, declare=False) for name in names])

    text = "\n".join(mismatch.value.differences)
    assert all(repr(name) in text for name in names)
    assert [await bus.depth(name) for name in names] == [None, None]


class Routing(NamedTuple):
    type: Literal["topic", "direct", "fanout"]
    pattern: str
    taken: list[str]
    left: list[str]


ROUTINGS = [
    Routing(
        "topic", "orders.*", taken=["orders.created", "orders.paid"], left=["orders", "orders.a.b", "x.a"]
    ),
    Routing("topic", "orders.#", taken=["orders", "orders.created", "orders.a.b"], left=["x.orders"]),
    Routing("topic", "#.eu", taken=["eu", "orders.eu", "orders.created.eu"], left=["orders.us"]),
    Routing("direct", "orders", taken=["orders"], left=["orders.created", "#"]),
    Routing("fanout", "", taken=["orders", "", "anything.at.all"], left=[]),
]


@pytest.mark.parametrize("routing", ROUTINGS, ids=lambda routing: f"{routing.type}-{routing.pattern}")
async def test_an_exchange_gives_a_queue_what_it_is_bound_for(
    bus: Bus, declared: Declared, queue_prefix: str, routing: Routing
) -> None:
    exchange = f"{queue_prefix}events"
    queue = await declared(bindings=(Binding(exchange, routing.pattern, type=routing.type),))
    received = Received(acks=True)
    await bus.consume([Subscription(queue, 10)], received)

    answers = await bus.publish(
        [Outgoing(key, key.encode(), exchange=exchange) for key in [*routing.taken, *routing.left]],
        timeout_s=10,
    )

    taken = len(routing.taken)
    assert answers[:taken] == [None] * taken
    assert all(isinstance(answer, Unroutable) for answer in answers[taken:])
    await received.wait_for(taken)
    assert [delivery.body.decode() for delivery in received.deliveries] == routing.taken


async def test_every_bound_queue_gets_its_own_copy_once(bus: Bus, queue_prefix: str) -> None:
    exchange = f"{queue_prefix}events"
    twice = QueueDeclaration(
        name=f"{queue_prefix}twice", bindings=(Binding(exchange, "a.*"), Binding(exchange, "#"))
    )
    once = QueueDeclaration(name=f"{queue_prefix}once", bindings=(Binding(exchange, "*.b"),))
    await bus.declare([twice, once])

    assert await bus.publish([Outgoing("a.b", b"", exchange=exchange)], timeout_s=10) == [None]

    async def both_have_one() -> bool:
        return [await bus.depth(twice.name), await bus.depth(once.name)] == [1, 1]

    await eventually(both_have_one)


async def test_a_binding_that_does_not_declare_needs_its_exchange(
    bus: Bus, declared: Declared, queue_prefix: str
) -> None:
    exchange = f"{queue_prefix}events"
    bound = QueueDeclaration(name=f"{queue_prefix}late", bindings=(Binding(exchange, "#", declare=False),))

    with pytest.raises(TopologyMismatch, match="events"):
        await bus.declare([bound])
    await declared(bindings=(Binding(exchange, "#"),))
    await bus.declare([bound])

    assert await bus.publish([Outgoing("x", b"", exchange=exchange)], timeout_s=10) == [None]
    await eventually(lambda: _has_one(bus, bound.name))


async def _has_one(bus: Bus, queue: str) -> bool:
    return await bus.depth(queue) == 1
