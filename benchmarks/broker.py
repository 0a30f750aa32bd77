"""The broker that a benchmark runs on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.broker import PrivateBroker


@contextlib.contextmanager
def broker_url(url: str | None) -> Iterator[str]:
    """The given one's, or that of a private broker for as long as the block lasts."""
    if url:
        yield url
        return
    with PrivateBroker() as broker:
        yield broker.url
