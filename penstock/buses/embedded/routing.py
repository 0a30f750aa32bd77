"""Which queues an exchange's message goes to: AMQP's topic, direct and fanout, as a pure function."""

from __future__ import annotations

from typing import Final

KNOWN_TYPES: Final = ("topic", "direct", "fanout")


def goes_to(exchange_type: str, pattern: str, routing_key: str) -> bool:
    """Whether a binding with `pattern` takes a message with `routing_key`."""
    if exchange_type == "fanout":
        return True
    if exchange_type == "direct":
        return pattern == routing_key
    return matches_topic(pattern, routing_key)


def matches_topic(pattern: str, routing_key: str) -> bool:
    """AMQP's topic match: words are separated by dots, `*` is one word, `#` is any number of words, none too."""
    words = routing_key.split(".") if routing_key else []
    # reached[i]: the pattern so far has taken the first i words. One row of a table, so that `#.#.#…` stays linear
    # in pattern times key.
    reached = [True] + [False] * len(words)
    for part in pattern.split(".") if pattern else []:
        if part == "#":
            first = reached.index(True) if True in reached else len(reached)
            reached = [i >= first for i in range(len(reached))]
        else:
            reached = [False] + [
                before and part in ("*", word) for before, word in zip(reached, words, strict=False)
            ]
    return reached[-1]
