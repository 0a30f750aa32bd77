"""Topic patterns, by AMQP's rules."""

import time

import pytest

from penstock.buses.embedded.routing import goes_to, matches_topic


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*", "", False),
        ("*.*", "a.", True),
        ("#", "", True),
        ("#", "a.b.c", True),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("a.#", "b", False),
        ("#.c", "c", True),
        ("#.c", "a.b.c", True),
        ("#.c", "a.c.b", False),
        ("a.#.c", "a.c", True),
        ("a.#.c", "a.b.b.c", True),
        ("a.*.#", "a", False),
        ("a.*.#", "a.b", True),
        ("#.*.#", "", False),
        ("#.b.#", "a.b.c", True),
        ("", "", True),
        ("", "a", False),
        ("a.#.*", "a", False),
        ("*.#.*", "a.b", True),
    ],
)
def test_a_topic_pattern_takes_exactly_its_keys(pattern: str, key: str, matches: bool) -> None:
    assert matches_topic(pattern, key) is matches


def test_a_pattern_of_many_hashes_takes_no_time() -> None:
    started_s = time.perf_counter()

    assert not matches_topic("#.a." * 30 + "z", "a." * 60 + "b")

    assert time.perf_counter() - started_s < 0.5


def test_the_exchange_type_decides() -> None:
    assert goes_to("fanout", "anything", "else")
    assert goes_to("direct", "a.*", "a.*")
    assert not goes_to("direct", "a.*", "a.b")
    assert goes_to("topic", "a.*", "a.b")
