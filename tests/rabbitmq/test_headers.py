"""Which headers of a message are believed: those that the broker vouches for."""

from typing import Any

import pytest
from aiormq import spec

from penstock.app.messages import FRESH, History, Outgoing
from penstock.buses.contract import Delivery, Told
from penstock.buses.rabbitmq.headers import to_delivery, to_properties
from penstock.buses.rabbitmq.stream import Content

HISTORY = History(attempts=3, crashes=1, first_failed_at_s=1_700_000_000.5)


class NobodySettles:
    """The settler of a delivery that no test here settles."""

    is_gone = True

    def ack(self, tag: int, told: Told | None = None) -> bool:
        raise AssertionError(tag, told)

    def requeue(self, tag: int) -> bool:
        raise AssertionError(tag)


def delivered(
    properties: spec.Basic.Properties,
    *,
    login: str = "shop",
    keep_ours: bool = False,
    redelivered: bool = True,
) -> Delivery:
    content = Content("tag", 7, redelivered=redelivered, properties=properties.marshal(), body=b"x")
    return to_delivery(content, "q", NobodySettles(), login, keep_ours=keep_ours)


def ours(**headers: Any) -> spec.Basic.Properties:
    """What another process of the login `shop` published again."""
    return to_properties(Outgoing("q", b"x", message_id="m", headers=headers, history=HISTORY), "shop")


def test_our_own_counters_come_back_as_they_went() -> None:
    delivery = delivered(ours(colour="red"))

    assert delivery.history == HISTORY
    assert delivery.headers == {"colour": "red"}
    assert (delivery.tag, delivery.redelivered, delivery.message_id) == (7, True, "m")


@pytest.mark.parametrize("user_id", ["somebody", None])
def test_another_logins_counters_are_dropped(user_id: str | None) -> None:
    properties = ours(colour="red")
    properties.user_id = user_id

    delivery = delivered(properties)

    assert delivery.history == FRESH
    assert delivery.headers == {"colour": "red"}


@pytest.mark.parametrize(("user_id", "kept"), [("shop", {"x-penstock-reason": "closed"}), ("somebody", {})])
def test_looking_at_dead_letters_shows_our_headers_and_nobody_elses(
    user_id: str, kept: dict[str, str]
) -> None:
    properties = spec.Basic.Properties(headers={"x-penstock-reason": "closed"}, user_id=user_id)

    assert delivered(properties, keep_ours=True).headers == kept


@pytest.mark.parametrize("forged", [-1, True, "3", 2.5, None])
def test_a_counter_that_is_no_count_is_none(forged: float | str | None) -> None:
    properties = ours()
    properties.headers = {
        "x-penstock-attempts": forged,
        "x-penstock-crashes": 2,
        "x-delivery-count": forged,
    }

    delivery = delivered(properties)

    assert delivery.history == History(attempts=0, crashes=2, first_failed_at_s=0)
    assert delivery.delivery_count is None


@pytest.mark.parametrize(
    ("redelivered", "headers", "expected"),
    [
        (False, {}, 0),
        (True, {}, None),
        (True, {"x-delivery-count": 1}, 1),
        (True, {"x-delivery-count": "many"}, None),
        (True, {"x-delivery-count": 0}, None),
    ],
)
def test_a_queue_that_does_not_count_says_so(
    redelivered: bool, headers: dict[str, Any], expected: int | None
) -> None:
    delivery = delivered(spec.Basic.Properties(headers=headers), redelivered=redelivered)

    assert delivery.delivery_count == expected


@pytest.mark.parametrize("forged", [0, 1, 2, 99])
def test_a_count_on_a_queue_that_does_not_count_is_its_publishers(forged: int) -> None:
    content = Content(
        "tag",
        7,
        redelivered=True,
        properties=spec.Basic.Properties(headers={"x-delivery-count": forged}).marshal(),
        body=b"",
    )

    delivery = to_delivery(content, "q", NobodySettles(), "shop", is_counted=False)

    assert delivery.delivery_count is None


def test_the_brokers_own_traces_are_no_headers() -> None:
    delivery = delivered(
        spec.Basic.Properties(
            headers={"x-death": [{"count": 9}], "x-delivery-count": 4, "CC": ["a"], "mine": 1}
        )
    )

    assert delivery.headers == {"mine": 1}
    assert delivery.delivery_count == 4
    assert delivery.history == FRESH


def test_a_message_that_carries_our_headers_is_vouched_for_and_any_other_is_anonymous() -> None:
    assert ours().user_id == "shop"
    assert to_properties(Outgoing("q", b"", headers={"colour": "red"}, history=FRESH), "shop").user_id is None
    assert to_properties(Outgoing("q", b"", headers={"x-penstock-reason": "r"}), "shop").user_id == "shop"
