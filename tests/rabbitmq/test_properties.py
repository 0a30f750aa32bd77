"""Properties are read as the AMQP library writes them, and also when nobody should have written them so."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from aiormq import spec

from penstock.buses.rabbitmq.properties import UNREADABLE_HEADERS, Properties, read_properties

MOMENT_S = 1_700_000_000
EACH: dict[str, Any] = {
    "content_type": "application/json",
    "content_encoding": "gzip",
    "headers": {"colour": "red", "count": 3, "raw": bytearray(b"\x00\xff"), "nested": {"a": [1, True]}},
    "delivery_mode": 2,
    "priority": 9,
    "correlation_id": "c",
    "reply_to": "r",
    "expiration": "60000",
    "message_id": "café",
    "timestamp": datetime.fromtimestamp(MOMENT_S, UTC),
    "message_type": "order",
    "user_id": "shop",
    "app_id": "web",
}
NAMES = {"timestamp": "timestamp_s", "message_type": "type"}
TIMESTAMP, HEADERS, MESSAGE_ID, USER_ID = 1 << 6, 1 << 13, 1 << 7, 1 << 4


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def table(entries: bytes) -> bytes:
    return struct.pack(">I", len(entries)) + entries


def flags(*bits: int) -> bytes:
    return sum(bits).to_bytes(2, "big")


def expected(written: dict[str, Any]) -> Properties:
    values = {NAMES.get(name, name): value for name, value in written.items()}
    if "timestamp_s" in values:
        values["timestamp_s"] = float(MOMENT_S)
    return Properties(**values)


@pytest.mark.parametrize(
    "names", [[], list(EACH), *([name] for name in EACH), ["headers", "message_id", "app_id"]]
)
def test_properties_come_back_as_they_were_written(names: list[str]) -> None:
    written = {name: EACH[name] for name in names}

    assert read_properties(spec.Basic.Properties(**written).marshal()) == expected(written)


def test_text_that_is_not_utf_8_is_read_as_latin_1() -> None:
    raw = flags(MESSAGE_ID, USER_ID) + short(b"caf\xe9") + short(b"shop")

    assert read_properties(raw) == Properties(message_id="café", user_id="shop")


def test_a_time_beyond_all_times_is_left_out() -> None:
    raw = flags(MESSAGE_ID, TIMESTAMP, USER_ID) + short(b"m") + b"\xff" * 8 + short(b"shop")

    assert read_properties(raw) == Properties(message_id="m", user_id="shop")


@pytest.mark.parametrize(
    "entries",
    [
        short(b"caf\xe9") + b"t\x01",
        short(b"a") + b"?\x01",
        short(b"a") + b"T" + b"\xff" * 8,
        b"\xff",
        b"".join(short(b"a") + b"F" + (9_000 * 6 - n * 6).to_bytes(4, "big") for n in range(1, 9_000)),
    ],
    ids=["a name in Latin-1", "an unknown type", "a time beyond all times", "cut short", "nested too deep"],
)
def test_headers_that_cannot_be_read_leave_a_note_and_the_rest_is_read(entries: bytes) -> None:
    raw = flags(HEADERS, MESSAGE_ID) + table(entries) + short(b"m")

    assert read_properties(raw) == Properties(headers={UNREADABLE_HEADERS: True}, message_id="m")


def test_properties_that_are_cut_short_are_empty_where_they_end() -> None:
    whole = spec.Basic.Properties(**EACH).marshal()

    for length in range(len(whole)):
        assert isinstance(read_properties(whole[:length]), Properties)
