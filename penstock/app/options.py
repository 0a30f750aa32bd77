"""The words that every `publish` takes beside the queue and the payload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from penstock.app.messages import HeaderValue


class Options(TypedDict, total=False):
    """How a message is published; a word that is left out, or None, says nothing."""

    exchange: str | None
    """Publish to this exchange, not to a queue."""
    routing_key: str | None
    id: str | None
    """Makes a repeat recognisable; without it each message gets an id of its own."""
    headers: Mapping[str, HeaderValue] | None
    delay: float | None
    """Seconds, at the least, until the message reaches its queue."""
    priority: int | None
    """0 to 255, for queues declared with `max_priority`."""
    correlation_id: str | None
    reply_to: str | None
    type: str | None
    """What kind of message it is, in the program's own words."""
