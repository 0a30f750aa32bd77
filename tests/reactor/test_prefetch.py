"""Prefetch: shared between handlers, lower for slow ones."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from penstock.app.application import App
from penstock.buses.address import open_bus
from penstock.config import load_settings
from penstock.errors import ConfigurationError
from penstock.reactor.dispatch import Dispatcher
from penstock.reactor.prefetch import refuse_endless, safe_prefetch, share_prefetch
from penstock.reactor.service import Reactor
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


def test_deadlines_beyond_the_brokers_patience_are_refused_all_at_once() -> None:
    handlers = [
        handler("quick", timeout=30),
        handler("none"),
        handler("long", timeout=56),
        handler("just", timeout=55),
        handler("well", timeout=54.9),
    ]

    with pytest.raises(ConfigurationError) as refused:
        refuse_endless(handlers, kill_after_s=5, consumer_timeout_s=60)

    words = str(refused.value)
    assert "'long' (timeout=56)" in words
    assert "'just' (timeout=55)" in words
    assert not [name for name in ("quick", "none", "well") if repr(name) in words]


@pytest.mark.parametrize(("url", "is_refused"), [("amqp://nowhere", True), ("sqlite:///bus.db", False)])
def test_the_embedded_bus_waits_for_any_deadline(url: str, is_refused: bool) -> None:
    app = App()

    @app.handler("long", timeout=3600)
    def work_for_an_hour(payload: dict[str, object]) -> None: ...

    settings = load_settings({"bus": {"url": url}})

    with pytest.raises(ConfigurationError, match="long") if is_refused else nullcontext():
        Reactor(app, "shop:app", open_bus(settings.bus), settings)
