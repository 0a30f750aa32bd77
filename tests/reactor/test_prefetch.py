"""Prefetch: shared between handlers, lower for slow ones."""

from __future__ import annotations

import pytest

from penstock.reactor.dispatch import Dispatcher
from penstock.reactor.prefetch import safe_prefetch, share_prefetch
from tests.reactor.deliveries import handler, served, work


@pytest.mark.parametrize(("handlers", "each"), [(1, 256), (10, 200), (200, 10), (1000, 2), (5000, 2)])
def test_two_thousand_are_shared_between_two_and_256_each(handlers: int, each: int) -> None:
    assert share_prefetch([handler(f"q{n}") for n in range(handlers)], 2000) == [each] * handlers


def test_a_handlers_own_number_is_kept_and_leaves_less_for_the_others() -> None:
    assert share_prefetch([handler("a", prefetch=1900), handler("b"), handler("c")], 2000) == [1900, 50, 50]


@pytest.mark.parametrize(
    ("run_s", "slots", "safe"),
    [(0.0, 2, 65535), (0.001, 2, 65535), (10.0, 2, 180), (60.0, 2, 30), (4000.0, 2, 1)],
)
def test_what_waits_is_settled_within_half_the_consumer_timeout(run_s: float, slots: int, safe: int) -> None:
    assert safe_prefetch(run_s, at_once=slots, consumer_timeout_s=1800) == safe


def test_what_waits_beyond_the_new_number_is_taken_from_the_end() -> None:
    dispatcher, slow = Dispatcher(), served(run_s=60)
    for tag in range(5):
        dispatcher.add(work(slow, tag))

    assert [one.delivery.tag for one in dispatcher.take_beyond(slow, 3)] == [3, 4]
    assert dispatcher.take_beyond(slow, 3) == []
    assert [one.delivery.tag for one in dispatcher.take_beyond(slow, 0)] == [0, 1, 2]
    assert (len(dispatcher), dispatcher.take(1)) == (0, [])
