"""Messages are taken out of the stream wherever the network cuts it; everything else passes byte for byte."""

from __future__ import annotations

import asyncio

import pytest
from aiormq import spec
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from penstock.buses.rabbitmq import stream
from penstock.buses.rabbitmq.stream import HEARTBEAT, Content, SplitReader, Splitter

MINE, OTHERS = 3, 4
PROPERTIES = spec.Basic.Properties(message_id="m", headers={"colour": "red"})


def delivered(tag: int, *parts: bytes, number: int = MINE) -> list[bytes]:
    """The frames of one delivery, its body in so many frames."""
    method = spec.Basic.Deliver("consumer", tag, redelivered=tag % 2 == 0, exchange="", routing_key="q")
    return content(method, *parts, number=number)


def content(method: spec.Basic.Deliver | spec.Basic.GetOk, *parts: bytes, number: int = MINE) -> list[bytes]:
    header = ContentHeader(properties=PROPERTIES, body_size=sum(map(len, parts)))
    frames = [method, header, *map(ContentBody, parts)]
    return [frame.marshal(one, number) for one in frames]


def whole(tag: int, body: bytes) -> Content:
    return Content("consumer", tag, tag % 2 == 0, PROPERTIES.marshal(), body)


#: Two AMQP channels taken and one not, their frames mixed as a broker may mix them.
ACK = frame.marshal(spec.Basic.Ack(5), MINE)
FOREIGN = b"".join(delivered(9, b"not taken", number=OTHERS))
BEAT = frame.marshal(Heartbeat(), 0)
FIRST, SECOND, LAST = delivered(1, b"ab", b"cd"), delivered(2, number=MINE + 2), delivered(3, b"x")
MIXED = [BEAT, FIRST[0], SECOND[0], FIRST[1], FOREIGN, FIRST[2], SECOND[1], FIRST[3], ACK, *LAST, BEAT]
STREAM = b"".join(MIXED)
PASSED = BEAT + FOREIGN + ACK + BEAT
TAKEN = [whole(2, b""), whole(1, b"abcd"), whole(3, b"x")]


def never() -> None:
    """What no broker here does."""
    raise AssertionError


def new(taken: list[Content]) -> Splitter:
    splitter = Splitter()
    splitter.take(MINE, taken.append, never)
    splitter.take(MINE + 2, taken.append, never)
    return splitter


@pytest.mark.parametrize("size_bytes", [*range(1, 40), len(STREAM)])
def test_pieces_of_any_size_give_the_same_messages_and_the_same_rest(size_bytes: int) -> None:
    taken: list[Content] = []
    splitter = new(taken)

    pieces = [STREAM[start : start + size_bytes] for start in range(0, len(STREAM), size_bytes)]
    passed = [splitter.feed(piece) for piece in pieces]

    assert taken == TAKEN
    assert b"".join(passed) == PASSED
    assert splitter.rest() == b""


def test_what_passes_ends_with_a_frame_so_that_a_heartbeat_may_follow() -> None:
    splitter = new([])

    for position in range(len(STREAM)):
        passed = splitter.feed(STREAM[position : position + 1])
        assert not passed or passed in PASSED
        assert len(passed) in {0, len(BEAT), len(ACK), *map(len, delivered(9, b"not taken", number=OTHERS))}


def test_the_answer_to_a_get_becomes_an_empty_one() -> None:
    taken: list[Content] = []
    method = spec.Basic.GetOk(7, redelivered=True, exchange="e", routing_key="k", message_count=3)

    passed = new(taken).feed(b"".join(content(method, b"body")))

    assert taken == [Content("", 7, redelivered=True, properties=PROPERTIES.marshal(), body=b"body")]
    size_bytes, number, answer = frame.unmarshal(passed)
    assert (size_bytes, number, type(answer)) == (len(passed), MINE, spec.Basic.GetEmpty)


@pytest.mark.parametrize(
    "data", [b"AMQP\x00\x00\x09\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n", ACK[:-1] + b"?"]
)
def test_what_is_not_amqp_passes_as_it_is(data: bytes) -> None:
    splitter = new([])

    assert splitter.feed(BEAT + data) == BEAT + data
    assert splitter.feed(b"and more") == b"and more"


def test_an_amqp_channel_that_is_taken_again_forgets_what_had_begun() -> None:
    taken: list[Content] = []
    splitter = new(taken)
    splitter.feed(b"".join(delivered(1, b"ab", b"cd")[:3]))

    splitter.take(MINE, taken.append, never)
    splitter.feed(b"".join(delivered(3, b"x")))

    assert taken == [whole(3, b"x")]


def test_an_amqp_channel_that_the_broker_closes_is_told_before_aiormq_answers() -> None:
    taken: list[Content] = []
    closed: list[str] = []
    splitter = new(taken)
    splitter.take(MINE, taken.append, lambda: closed.append("closed"))
    close = frame.marshal(spec.Channel.Close(406, "unknown delivery tag", 60, 80), MINE)

    assert splitter.feed(close + b"".join(LAST)) == close + b"".join(LAST)

    assert closed == ["closed"]
    assert taken == []


@pytest.mark.parametrize(
    ("reason", "method"),
    [("low on memory", spec.Connection.Blocked("low on memory")), (None, spec.Connection.Unblocked())],
)
def test_an_alarm_is_told_and_passes(reason: str | None, method: spec.Connection.Blocked) -> None:
    told: list[str | None] = []
    data = frame.marshal(method, 0)

    assert Splitter(told.append).feed(BEAT + data + BEAT) == BEAT + data + BEAT

    assert told == [reason]


async def test_a_stream_full_of_messages_looks_alive_to_who_waits_for_heartbeats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = SplitReader(new([]), asyncio.get_running_loop())

    reader.feed_data(b"".join(LAST))
    monkeypatch.setattr(stream, "ALIVE_S", -1)
    reader.feed_data(b"".join(LAST))
    reader.feed_data(b"".join([*LAST, BEAT]))
    reader.feed_data(LAST[0][:5])
    reader.feed_eof()

    assert await reader.read() == HEARTBEAT + BEAT + HEARTBEAT + LAST[0][:5]
