"""A consumer that the broker has forgotten is started again; one that is slow, or whose queue is empty, is left alone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, MutableMapping, Sequence
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from penstock.app.messages import Outgoing
from penstock.app.queues import QueueDeclaration
from penstock.buses.contract import Subscription
from penstock.buses.rabbitmq import RabbitBus
from penstock.buses.rabbitmq.topology import Counts
from penstock.buses.rabbitmq.watchdog import MOST_LOOKS, Flow, Seen, Silence
from penstock.config.bus import BusSection
from tests.broker import Broker
from tests.contract.received import Received, eventually

LOST, OTHER = QueueDeclaration(name="lost", type="classic"), QueueDeclaration(name="other", type="classic")
# Takes the consumer away from the queue and tells nobody: its AMQP channel goes on believing in it.
FORGET = """
{ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"lost">>)),
[{Channel, Tag, _, _, _, _, _, _}] = rabbit_amqqueue:consumers(Queue),
gen_server2:call(amqqueue:get_pid(Queue), {basic_cancel, Channel, Tag, undefined, <<"nobody">>}).
"""


class Held:
    """Holds these tags."""

    def __init__(self, *tags: int) -> None:
        self._tags = tags

    def holds(self, tag: int) -> bool:
        return tag in self._tags


def looks(*, ready: int, consumers: int = 1, tag: int = 0, is_full: bool = False) -> tuple[Counts, Seen]:
    return Counts(ready, consumers), Seen(tag, is_full)


@pytest.mark.parametrize(
    ("counts", "words"), [(None, "gone"), (Counts(0, 0), "no consumer"), (Counts(3, 0), "no consumer")]
)
def test_a_queue_that_the_broker_delivers_to_nobody_is_consumed_again_at_once(
    counts: Counts | None, words: str
) -> None:
    assert words in str(Silence().note(counts, Seen(0, is_full=False)))


@pytest.mark.parametrize(
    "well",
    [looks(ready=0), looks(ready=9, tag=5), looks(ready=9, is_full=True), looks(ready=0, is_full=True)],
)
def test_silence_counts_only_without_a_break(well: tuple[Counts, Seen]) -> None:
    silence = Silence()
    silent = looks(ready=9)

    assert silence.note(*silent) is None
    assert silence.note(*well) is None
    assert silence.note(*silent) is None
    assert silence.note(*silent) == "9 messages wait in it and none has come"


def test_what_comes_breaks_a_silence() -> None:
    silence = Silence()
    notes = [silence.note(*looks(ready=9, tag=tag)) for tag in (0, 5, 5, 6, 6, 6)]

    assert [bool(note) for note in notes] == [False, False, False, False, False, True]


def test_a_consumer_that_stays_silent_is_started_again_less_and_less_often() -> None:
    silence = Silence()
    again = [look for look in range(1, 700) if silence.note(*looks(ready=1))]

    assert again[:5] == [2, 6, 14, 30, 62]
    assert {after - before for before, after in itertools.pairwise(again[5:])} == {MOST_LOOKS}
    assert silence.note(*looks(ready=1, tag=1)) is None
    assert [bool(silence.note(*looks(ready=1, tag=1))) for _ in range(2)] == [False, True]


def test_a_consumer_is_full_while_as_many_as_its_prefetch_are_unsettled() -> None:
    flow = Flow("q", 2)

    assert flow.seen(Held()) == Seen(0, is_full=False)
    flow.recent.append(1)
    assert flow.seen(Held(1)) == Seen(1, is_full=False)
    flow.recent.extend((2, 3))
    assert flow.seen(Held(2, 3)) == Seen(3, is_full=True)
    assert flow.seen(Held(3)) == Seen(3, is_full=False)


@pytest.fixture
async def bus(own_broker: Broker) -> AsyncIterator[RabbitBus]:
    bus = RabbitBus(BusSection(url=SecretStr(own_broker.url), watch_s=0.1))
    await bus.connect()
    await bus.declare([LOST, OTHER])
    yield bus
    await bus.aclose()


async def test_a_consumer_that_the_broker_forgot_comes_back_and_its_neighbours_notice_nothing(
    bus: RabbitBus, own_broker: Broker
) -> None:
    received = Received()
    await bus.consume([Subscription(LOST, 10), Subscription(OTHER, 10)], received)
    await bus.publish(
        [Outgoing(queue.name, b"", message_id=queue.name) for queue in (LOST, OTHER)], timeout_s=10
    )
    await received.wait_for(2)

    with capture_logs() as lines:
        await asyncio.to_thread(own_broker.ctl, "eval", FORGET)
        await eventually(lambda: said(lines, "knows no consumer"))
        await bus.publish([Outgoing(LOST.name, b"", message_id="after")], timeout_s=10)
        await received.wait_for(3)

    # What ran goes on: nothing was handed out twice, and all can still be settled.
    assert sorted(filter(None, received.ids)) == ["after", "lost", "other"]
    assert not any(delivery.redelivered for delivery in received.deliveries)
    assert all(delivery.settler.ack(delivery.tag) for delivery in received.deliveries)
    await bus.flush()
    # More than once where the machine is so busy that a delivery takes longer than two of these hurried looks.
    assert {line["queue"] for line in lines if line["log_level"] == "warning"} == {"lost"}
    # Counted when the broker has answered, which it does after it has begun to deliver.
    await eventually(lambda: restarted(bus))


async def test_a_consumer_whose_prefetch_is_used_up_is_left_alone(bus: RabbitBus) -> None:
    received = Received()
    await bus.publish([Outgoing(LOST.name, b"", message_id=id_) for id_ in "abcd"], timeout_s=10)

    with capture_logs() as lines:
        await bus.consume([Subscription(LOST, 2), Subscription(OTHER, 2)], received)
        await received.wait_for(2)
        # A look at the other queue, and so in between at this one, again and again.
        for _ in range(10):
            came = len(received.deliveries)
            await bus.publish([Outgoing(OTHER.name, b"")], timeout_s=10)
            other = (await received.wait_for(came + 1))[-1]
            other.settler.ack(other.tag)
            await asyncio.sleep(0.1)  # the time of one look at each

    assert [line for line in lines if line["log_level"] == "warning"] == []
    assert received.ids.count("c") == 0


async def restarted(bus: RabbitBus) -> bool:
    return bus.statistics().consumers_restarted >= 1


async def said(lines: Sequence[MutableMapping[str, Any]], words: str) -> bool:
    return any(words in str(line.get("why")) for line in lines)
