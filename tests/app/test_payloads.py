"""From a Python value to a message; what no bus could carry is refused where it is made."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, model_serializer

from penstock.app.messages import HeaderValue, Outgoing
from penstock.app.payloads import MAX_HEADERS_BYTES, encode_payload, make_outgoing
from penstock.errors import PayloadError


class Colour(Enum):
    RED = "red"


class Order(BaseModel):
    id: int
    total: Decimal


@dataclass
class Point:
    x: int


class Stubborn(BaseModel):
    @model_serializer
    def _refuse(self) -> Any:
        raise KeyError("no way")


@pytest.mark.parametrize(
    ("payload", "body"),
    [
        (Order(id=1, total=Decimal("9.99")), b'{"id":1,"total":"9.99"}'),
        (Point(1), b'{"x":1}'),
        ({"day": date(2024, 2, 29), "at": datetime(2024, 1, 1, tzinfo=UTC)}, b'{"day":"2024-02-29","at":"2024-01-01T00:00:00Z"}'),
        ([UUID(int=0), Colour.RED, Decimal("1.10")], b'["00000000-0000-0000-0000-000000000000","red","1.10"]'),
        ({"text": "NaN and Infinity", "grün": None}, '{"text":"NaN and Infinity","grün":null}'.encode()),
        (None, b"null"),
        (1, b"1"),
        ((1, {2}), b"[1,[2]]"),
    ],
)  # fmt: skip
def test_whatever_pydantic_can_serialise_becomes_json(payload: Any, body: bytes) -> None:
    assert encode_payload(payload) == (body, "application/json")


@pytest.mark.parametrize("payload", [b"\xff", bytearray(b"\xff"), memoryview(b"\xff")])
def test_bytes_travel_as_they_are(payload: Any) -> None:
    assert encode_payload(payload) == (b"\xff", "application/octet-stream")


def test_text_travels_as_utf_8() -> None:
    assert encode_payload("grün") == ("grün".encode(), "text/plain")


def circle() -> list[Any]:
    round_and_round: list[Any] = []
    round_and_round.append(round_and_round)
    return round_and_round


def well() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    "payload",
    [
        object(),
        {"a": object()},
        circle(),
        well(),
        Stubborn(),
        "\ud800",
        {"a": "\ud800"},
        {"a": b"\xff"},
        float("nan"),
        {"a": [float("-inf")]},
        lambda: None,
        {object(): 1},
    ],
    ids=lambda payload: type(payload).__name__,
)
def test_what_is_no_json_is_refused_by_its_type(payload: Any) -> None:
    with pytest.raises(PayloadError, match="nothing was published") as refused:
        make_outgoing("orders", payload)

    assert type(payload).__qualname__ in refused.value.reason


def test_to_a_queue_it_goes_by_the_default_exchange() -> None:
    message = make_outgoing(
        "orders",
        {},
        id="m-1",
        headers={"a": 1},
        delay=1.5,
        priority=9,
        correlation_id="c",
        reply_to="r",
        type="t",
    )

    assert message == Outgoing(
        routing_key="orders", body=b"{}", message_id="m-1", content_type="application/json", headers={"a": 1},
        delay_s=1.5, priority=9, correlation_id="c", reply_to="r", type="t",
    )  # fmt: skip
    assert message.destination == "queue 'orders'"


def test_to_an_exchange_it_goes_by_its_routing_key() -> None:
    message = make_outgoing({}, exchange="shop", routing_key="orders.eu")
    assert (message.exchange, message.routing_key) == ("shop", "orders.eu")
    assert message.destination == "exchange 'shop' with routing key 'orders.eu'"
    assert make_outgoing({}, exchange="fans").routing_key == ""


def test_a_message_without_an_id_gets_a_random_one() -> None:
    ids = {make_outgoing("orders", {}).message_id for _ in range(100)}
    assert len(ids) == 100
    assert all(len(one) == 32 for one in ids)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (({},), {}, "publish(payload) needs exchange"),
        (("orders", {}), {"exchange": "shop"}, "leave exchange and routing_key out"),
        (("orders", {}), {"routing_key": "x"}, "leave exchange and routing_key out"),
        (("", {}), {}, "the first argument is the queue's name"),
        (({}, {}), {}, "the first argument is the queue's name"),
        (("q" * 256, {}), {}, "routing key has 256 bytes"),
        (("ü" * 128, {}), {}, "routing key has 256 bytes"),
        (("q\ud800", {}), {}, "routing key cannot be written as UTF-8"),
        (({},), {"exchange": "e" * 256}, "exchange has 256 bytes"),
        (("q", {}), {"id": ""}, "id has 0 bytes"),
        (("q", {}), {"id": "i" * 256}, "id has 256 bytes"),
        (("q", {}), {"id": "\udfff"}, "id cannot be written"),
        (("q", {}), {"correlation_id": "c" * 256}, "correlation_id has 256 bytes"),
        (("q", {}), {"reply_to": "r" * 256}, "reply_to has 256 bytes"),
        (("q", {}), {"type": "t" * 256}, "type has 256 bytes"),
        (("q", {}), {"priority": 256}, "priority=256"),
        (("q", {}), {"priority": -1}, "priority=-1"),
        (("q", {}), {"priority": 1.5}, "priority=1.5"),
        (("q", {}), {"delay": -0.1}, "delay=-0.1"),
        (("q", {}), {"delay": float("nan")}, "delay=nan"),
        (("q", {}), {"delay": 2.0**31}, "12 days"),
        (({},), {"exchange": "shop", "delay": 1}, "one queue"),
        (("q", {}), {"headers": {"x-penstock-reason": 1}}, "'x-penstock-reason' is Penstock's"),
        (("q", {}), {"headers": {"X-Death": 1}}, "'X-Death' is Penstock's or the broker's own"),
        (("q", {}), {"headers": {"": 1}}, "header name"),
        (("q", {}), {"headers": {"n" * 256: 1}}, "has 256 bytes"),
        (("q", {}), {"headers": {"n": "\ud800"}}, "header 'n' cannot be written"),
        (("q", {}), {"headers": {"n": [1]}}, "header 'n' is list"),
        (("q", {}), {"headers": {"n": Decimal(1)}}, "header 'n' is Decimal"),
        (("q", {}), {"headers": {"n": 2**63}}, "more than 64 bits"),
        (("q", {}), {"headers": {"n": "v" * MAX_HEADERS_BYTES}}, "put it into the body"),
        (("q", {}), {"headers": {str(n): b"v" * 1024 for n in range(64)}}, "put it into the body"),
    ],
)
def test_what_no_bus_could_carry_says_so(
    arguments: tuple[Any, ...], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(PayloadError) as refused:
        make_outgoing(*arguments, **options)

    assert words in refused.value.reason


def test_a_word_that_is_no_option_is_refused_with_those_that_are() -> None:
    misspelt: dict[str, Any] = {"dealy": 5}
    with pytest.raises(TypeError, match=r"knows no dealy; it takes correlation_id, delay, .* type"):
        make_outgoing("orders", {}, **misspelt)


def test_every_kind_of_header_is_carried() -> None:
    headers: dict[str, HeaderValue] = {
        "s": "x",
        "i": -(2**63) + 1,
        "f": 1.5,
        "b": True,
        "y": b"\xff",
        "n": None,
    }

    message = make_outgoing("q", {}, headers=headers)

    assert message.headers == headers
    headers["s"] = "changed behind its back"
    assert message.headers["s"] == "x"
