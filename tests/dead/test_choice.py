"""Which letters a person means."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penstock.app import header_names
from penstock.dead.choice import choose
from penstock.dead.letter import Letter
from penstock.errors import ConfigurationError
from penstock.reactor import deadletter
from tests.reactor.deliveries import delivery

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def letter(payload: Any = None, *, body: bytes | None = None, **options: Any) -> Letter:
    headers = {
        header_names.REASON: "the handler raised shop.errors.SoldOut: no chairs (after 5 attempts)",
        header_names.EXCEPTION: "shop.errors.SoldOut",
        header_names.LAST_AT: "2026-11-21T10:30:00.000+00:00",
    }
    body = json.dumps(payload).encode() if body is None else body
    return Letter(delivery(body=body, headers={**headers, **options.pop("headers", {})}, **options), "orders")


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        ({}, True),
        ({"id": "m1"}, True),
        ({"id": "m"}, False),
        ({"reason": "NO CHAIRS"}, True),
        ({"reason": "no tables"}, False),
        ({"exception": "SoldOut"}, True),
        ({"exception": "shop.errors.SoldOut"}, True),
        ({"exception": "shop.*"}, True),
        ({"exception": "Sold"}, False),
        ({"since": "2h"}, True),
        ({"since": "1h"}, False),
        ({"since": timedelta(minutes=91)}, True),
        ({"until": "90m"}, False),
        ({"until": "1.4h"}, True),
        ({"since": "2026-11-21", "until": "2026-11-21T10:30:01"}, True),
        ({"since": "2026-11-21T11:30+01:00"}, True),
        ({"since": "2026-11-21T10:30:00.001"}, False),
        ({"since": datetime(2026, 11, 21, 10, 30)}, True),  # noqa: DTZ001 - a person's
        ({"reason": "chairs", "exception": "ValueError"}, False),
    ],
)
def test_a_letter_has_to_fit_everything_that_is_said(filters: dict[str, Any], fits: bool) -> None:
    assert choose(now=NOW, **filters).fits(letter()) is fits


ORDER = {
    "total": 9.99,
    "number": 12345678901234567890,
    "name": "9.99",
    "paid": True,
    "note": None,
    "customer": {"id": 7, "address": {"city": "Bonn"}},
    "items": [{"sku": "a"}, {"sku": "b"}],
    "a.b": {"c": 1},
}


@pytest.mark.parametrize(
    ("where", "fits"),
    [
        ({"total": "9.99"}, True),
        ({"total": "9.990"}, True),
        ({"total": 9.99}, True),
        ({"total": "9.98"}, False),
        ({"total": "about ten"}, False),
        ({"number": "12345678901234567891"}, False),
        ({"name": "9.99"}, True),
        ({"name": "9.990"}, False),
        ({"paid": "true"}, True),
        ({"paid": True}, True),
        ({"paid": "1"}, False),
        ({"note": "null"}, True),
        ({"note": None}, True),
        ({"nothing": "null"}, False),
        ({"customer.id": 7}, True),
        ({"customer.address.city": "Bonn"}, True),
        ({"customer.id.more": "7"}, False),
        ({"customer": "7"}, False),
        ({"items.1.sku": "b"}, True),
        ({"items.2.sku": "b"}, False),
        ({"items.-1.sku": "b"}, False),
        ({"a.b.c": 1}, True),
        ({"total": "9.99", "paid": "false"}, False),
    ],
)
def test_fields_of_the_payload_are_found_by_their_path(where: dict[str, Any], fits: bool) -> None:
    assert choose(where=where).fits(letter(ORDER)) is fits


@pytest.mark.parametrize(
    "body",
    [b"\xff", b"", b"not json", b"[" * 200_000, b'{"a": ' + b"9" * 5000 + b"}", b'{"total": NaN}'],
)
def test_a_body_that_cannot_be_read_matches_no_field(body: bytes) -> None:
    assert not choose(where={"total": "9.99"}).fits(letter(body=body))


def test_a_packed_body_is_unpacked_to_look_into_it_and_a_bomb_is_not() -> None:
    packed = letter(body=gzip.compress(json.dumps(ORDER).encode()), content_encoding="gzip")
    bomb = letter(body=gzip.compress(b" " * 1_000_000 + b'{"total": 9.99}'), content_encoding="gzip")

    assert choose(where={"total": "9.99"}).fits(packed)
    assert not choose(where={"total": "9.99"}, body_bytes=1000).fits(bomb)


def test_a_letter_of_somebody_else_has_no_time_and_no_exception() -> None:
    foreign = Letter(delivery(headers={}), "orders")

    assert choose().fits(foreign)
    assert not choose(since="1000w").fits(foreign)
    assert not choose(exception="*").fits(foreign)


@pytest.mark.parametrize("given", ["yesterday", "2", "2 h", "h", "1e9w", "99999999w", "2026-13-01", ""])
def test_a_time_that_says_nothing_is_refused(given: str) -> None:
    with pytest.raises(ConfigurationError, match="is no moment: write 90s"):
        choose(since=given)


def test_history_grows_with_each_replay_and_stays_small() -> None:
    headers: dict[str, Any] = {
        header_names.REASON: "é" * 2000,
        header_names.ATTEMPTS: 5,
        header_names.CRASHES: 1,
    }
    for replays in range(1, 31):
        history = letter({}, headers=headers).replayed(1_700_000_000.0).history
        assert history is not None
        assert (history.attempts, history.crashes, history.replays) == (0, 0, replays)
        assert len(history.past.encode()) <= deadletter.MAX_PAST_BYTES
        headers |= {header_names.REPLAYS: history.replays, header_names.PAST: history.past}
    (*_, last) = letter({}, headers=headers).past()

    assert last["attempts"] == 5
    assert last["replayed_at"] == "2023-11-14T22:13:20.000+00:00"


@pytest.mark.parametrize("past", ["", "no", "{}", "[1]", "[" * 100_000])
def test_a_history_that_somebody_else_wrote_is_none(past: str) -> None:
    assert letter({}, headers={header_names.PAST: past}).past() == []
