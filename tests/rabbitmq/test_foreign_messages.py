"""Messages that no specification allows cost themselves: neither the connection nor the other queues."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from pamqp import commands, encode
from pamqp.header import ContentHeader

from penstock.app.messages import Outgoing
from penstock.app.payloads import make_outgoing
from penstock.buses.address import open_bus
from penstock.errors import PayloadError
from tests.service.running import running


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


async def test_a_latin_1_publisher_takes_no_connection_down(
    amqp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(amqp_url, tmp_path, only=("t.only",)) as service:
        bus = open_bus(service.settings.bus)
        await bus.connect()

        def latin_1(value: str) -> bytes:
            return short(value.encode("latin-1"))

        with monkeypatch.context() as patched:
            patched.setitem(encode.METHODS, "shortstr", latin_1)
            written = ContentHeader(properties=commands.Basic.Properties(message_id="café")).marshal()
            assert b"caf\xe9" in written
            await bus.publish([Outgoing("t.only", b'{"id": 1}', message_id="café")], timeout_s=10)
        await bus.publish([make_outgoing("t.only", {"id": 2}, id="good")], timeout_s=10)
        await bus.aclose()

        statistics = await service.settled(2)

    assert (statistics.acked, statistics.retried) == (2, 0)
    assert sorted(service.effects("only")) == [("café", 1), ("good", 1)]
    assert not [line for line in service.lines if "connection" in line["event"] and "lost" in line["event"]]


async def test_headers_beyond_a_frame_do_not_hold_their_dead_letter_up(amqp_url: str, tmp_path: Path) -> None:
    async with running(amqp_url, tmp_path, only=("t.fails",)) as service:
        bus = open_bus(service.settings.bus)
        await bus.connect()
        headers = {"emoji": "\N{GRINNING FACE}" * 25_000}
        message = Outgoing("t.fails", b'{"kind": "reject"}', message_id="m0", headers=headers)
        assert await bus.publish([message], timeout_s=10) == [None]
        await bus.aclose()

        statistics = await service.settled(1)
        (letter,) = await service.dead("t.fails")

    assert statistics.dead == 1
    assert letter["x-penstock-headers-dropped"] == "100021 bytes of the message's own headers were left out"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_header_that_closes_the_brokers_connection_is_refused(value: float) -> None:
    with pytest.raises(PayloadError, match="no broker carries"):
        make_outgoing("q", {}, headers={"a": value})


async def test_what_amqp_cannot_carry_becomes_a_dead_letter_instead_of_going_round(
    amqp_url: str, tmp_path: Path
) -> None:
    async with running(amqp_url, tmp_path, only=("t.nested",)) as service:
        await service.publish("t.nested", {})

        statistics = await service.settled(1)
        (letter,) = await service.dead("t.nested")

    assert (statistics.acked, statistics.retried) == (1, 0)
    assert str(letter["x-penstock-reason"]).startswith("not carried")
