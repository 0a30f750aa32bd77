"""`DeadLetters`, on both buses: what is found, what goes back, what is left behind and in which order."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from penstock import BusError, ClientError, ConfigurationError, DeadLetters, Unroutable
from penstock.app import header_names
from penstock.app.messages import Outgoing
from penstock.reactor import deadletter
from tests.cli.services import declare, depths, put, waiting


@pytest.fixture(params=["embedded", "rabbitmq"])
def bus_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "embedded":
        url = f"sqlite:///{tmp_path / 'bus.db'}"
    else:
        url = request.getfixturevalue("amqp_url")
    declare(url, "orders")
    return url


def letter(
    number: int, *, origin: str = "orders", exception: str = "ValueError", at_s: float = 0.0
) -> Outgoing:
    """A dead letter as the settlement writes it."""
    headers = {
        header_names.REASON: f"the handler raised {exception}: no {number}",
        header_names.EXCEPTION: exception,
        header_names.QUEUE: origin,
        header_names.ATTEMPTS: 5,
        header_names.LAST_AT: deadletter.moment(at_s or time.time()),
        "mine": 1,
    }
    body = json.dumps({"id": number, "total": number / 100}).encode()
    return Outgoing("orders.dead", body, message_id=f"m{number}", headers=headers)


def ids(url: str, queue: str) -> list[str]:
    return [str(one.message_id) for one in waiting(url, queue)]


def test_letters_are_found_by_what_is_known_of_them_and_keep_their_places(bus_url: str) -> None:
    now_s = time.time()
    put(
        bus_url,
        [letter(n, exception=("ValueError", "KeyError")[n % 2], at_s=now_s - n * 3600) for n in range(20)],
    )
    dead = DeadLetters(bus_url)

    assert dead.count("orders") == 20
    assert dead.count("orders", exception="KeyError") == 10
    assert [one.id for one in dead.list("orders", since="2.5h")] == ["m0", "m1", "m2"]
    assert [one.id for one in dead.list("orders", where={"total": "0.07"})] == ["m7"]
    assert [one.id for one in dead.list("orders", exception="KeyError", limit=2)] == ["m1", "m3"]
    found = dead.get("orders", "m9")
    assert found is not None
    assert (found.queue, found.exception, found.headers) == ("orders", "KeyError", {"mine": 1})
    assert found.reason == "the handler raised KeyError: no 9"
    assert found.evidence["attempts"] == 5
    assert json.loads(found.body)["id"] == 9
    assert dead.get("orders", "m99") is None
    assert ids(bus_url, "orders.dead") == [f"m{n}" for n in range(20)]


def test_those_that_fit_go_back_with_their_history_and_the_others_keep_their_order(bus_url: str) -> None:
    put(bus_url, [letter(n, exception=("ValueError", "KeyError")[n % 2]) for n in range(100)])
    seen: list[tuple[int, int]] = []

    done = DeadLetters(bus_url).replay(
        "orders", exception="KeyError", on_progress=lambda looked_at, fitted: seen.append((looked_at, fitted))
    )

    assert done == 50
    assert seen[-1] == (100, 50)
    assert ids(bus_url, "orders.dead") == [f"m{n}" for n in range(0, 100, 2)]
    back = waiting(bus_url, "orders")
    assert [one.message_id for one in back] == [f"m{n}" for n in range(1, 100, 2)]
    history = back[0].history
    assert (history.attempts, history.crashes, history.replays) == (0, 0, 1)
    (end,) = json.loads(history.past)
    assert (end["reason"], end["attempts"]) == ("the handler raised KeyError: no 1", 5)
    assert back[0].headers["mine"] == 1


def test_a_message_that_fails_again_has_its_whole_history(bus_url: str) -> None:
    put(bus_url, [letter(1)])
    dead = DeadLetters(bus_url)
    dead.replay("orders")
    (back,) = waiting(bus_url, "orders")
    # As the settlement writes it after the second failure.
    again = letter(1)
    again.headers.update({header_names.REPLAYS: back.history.replays, header_names.PAST: back.history.past})
    put(bus_url, [again])

    dead.replay("orders")

    second = waiting(bus_url, "orders")[1].history
    assert second.replays == 2
    assert len(json.loads(second.past)) == 2


def test_no_more_than_asked_for_and_the_oldest_first(bus_url: str) -> None:
    put(bus_url, [letter(n) for n in range(30)])
    dead = DeadLetters(bus_url)

    assert dead.replay("orders", limit=7) == 7
    assert dead.drop("orders", limit=3, exception="ValueError") == 3

    assert ids(bus_url, "orders") == [f"m{n}" for n in range(7)]
    assert ids(bus_url, "orders.dead") == [f"m{n}" for n in range(10, 30)]


def test_a_rate_is_kept(bus_url: str) -> None:
    put(bus_url, [letter(n) for n in range(31)])
    stamps: list[float] = []

    DeadLetters(bus_url).replay("orders", rate=20, on_progress=lambda _, __: stamps.append(time.monotonic()))

    assert 1.4 < stamps[-1] - stamps[0] < 4
    assert depths(bus_url, "orders", "orders.dead") == [31, 0]


def test_what_is_refused_stays_and_is_told(bus_url: str) -> None:
    put(bus_url, [letter(1), letter(2, origin="gone"), letter(3)])

    with pytest.raises(Unroutable, match="gone"):
        DeadLetters(bus_url).replay("orders")

    assert ids(bus_url, "orders.dead") == ["m2"]
    assert ids(bus_url, "orders") == ["m1", "m3"]


def test_what_says_nothing_is_refused(bus_url: str) -> None:
    dead = DeadLetters(bus_url)
    put(bus_url, [letter(1)])

    with pytest.raises(ConfigurationError, match="everything=True"):
        dead.drop("orders")
    with pytest.raises(ConfigurationError, match="rate=0"):
        dead.replay("orders", rate=0)
    with pytest.raises(ConfigurationError, match="is no moment"):
        dead.count("orders", since="soon")
    with pytest.raises(BusError, match=r"no dead-letter queue 'ordres\.dead'"):
        dead.count("ordres")
    assert depths(bus_url, "orders", "orders.dead") == [0, 1]
    assert dead.drop("orders", everything=True) == 1


async def test_an_event_loop_is_not_blocked(bus_url: str) -> None:
    with pytest.raises(ClientError, match=r"asyncio\.to_thread"):
        DeadLetters(bus_url).count("orders")
    assert await asyncio.to_thread(DeadLetters(bus_url).count, "orders") == 0


def test_a_url_that_is_no_bus_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigurationError, match="url of DeadLetters cannot be used") as caught:
        DeadLetters("http://user:S3CR3T-canary@host")
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(DeadLetters("amqp://user:S3CR3T-canary@host"))
