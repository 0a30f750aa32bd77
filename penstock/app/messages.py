"""What travels: a message on its way out, and what its own history says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from msgspec import Struct, field

#: Longest delay of a message, 12 days; RabbitMQ refuses a TTL beyond 2**32 ms.
MAX_DELAY_S: Final = 2**30 / 1000

HeaderValue: TypeAlias = str | int | float | bool | bytes | None
Headers: TypeAlias = Mapping[str, HeaderValue]


class History(Struct, frozen=True, array_like=True):
    """What a message went through before; it rides on the message that Penstock publishes again.

    A bus hands it out only when it vouches that Penstock wrote it; from anybody else it is the default.
    """

    attempts: int = 0
    """Runs that ended in a failure, charged to the message."""
    crashes: int = 0
    """Runs that killed their worker process."""
    first_failed_at_s: float = 0.0
    """Unix time of the first failure; 0 when there was none."""
    commit_unknown: bool = False
    """The commit of an earlier run may have succeeded or not; stays until a run is acked."""
    replays: int = 0
    """How often it was a dead letter that somebody sent back."""
    past: str = ""
    """JSON: how it ended before each of the last of these, oldest first."""
    starts: int = 0
    """How often it came back from a service that may have ended with it; counted by us where the bus does not count."""
    alone: bool = False
    """Its next run is the only one of a suspect, and is counted beforehand: redelivered, that run ended its service."""
    losses: int = 0
    """Runs in a row that lost their connection to the database amid their work; the first ones are not charged."""

    @property
    def may_have_run(self) -> bool:
        """True when an earlier run may have had effects that nobody heard of."""
        return self.alone or self.starts > 0


FRESH = History()


class Outgoing(Struct, frozen=True, array_like=True):
    """One message to publish; crosses the process border and is what every bus accepts."""

    routing_key: str
    """The queue's name on the default exchange, else the routing key."""
    body: bytes
    exchange: str = ""
    message_id: str = ""
    content_type: str | None = None
    content_encoding: str | None = None
    # Any, because msgspec takes no union of str and bytes; the values are HeaderValue.
    headers: dict[str, Any] = field(default_factory=dict)
    correlation_id: str | None = None
    reply_to: str | None = None
    type: str | None = None
    priority: int | None = None
    delay_s: float = 0.0
    """At the earliest so much later it reaches its queue; only on the default exchange."""
    history: History | None = None
    """Set on a message that goes back to its own queue."""

    @property
    def destination(self) -> str:
        """Where it goes, in words."""
        if self.exchange:
            return f"exchange {self.exchange!r} with routing key {self.routing_key!r}"
        return f"queue {self.routing_key!r}"
