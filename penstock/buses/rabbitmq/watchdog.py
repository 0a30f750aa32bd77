"""Is a queue still delivered to us? Decided from what the broker counts and from what has come.

A broker can lose a consumer and say nothing that reaches us: the connection is up, the queue fills, nobody gets it
(faststream#2758, celery#3201).
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple, Protocol

from penstock.buses.rabbitmq.topology import Counts

#: A consumer that got nothing although messages waited, so many looks in a row.
SILENT_LOOKS: Final = 2
#: Started again without success, it is left alone for twice as many looks each time, up to these.
MOST_LOOKS: Final = 64


class Holder(Protocol):
    """Knows what is unsettled."""

    def holds(self, tag: int) -> bool:
        """True while nobody has asked to settle it."""
        ...


class Seen(NamedTuple):
    """What came from a queue so far."""

    last_tag: int
    """Changes with every delivery; 0 before the first."""
    is_full: bool
    """True when its prefetch is used up: it gets nothing because we are slow."""


class Flow:
    """What one consumer delivers, as far as the watchdog has to know."""

    def __init__(self, queue: str, prefetch: int, *, is_counted: bool = True) -> None:
        self.queue = queue
        self.is_counted = is_counted
        """The broker counts how often it hands a message of this queue out."""
        self.recent: deque[int] = deque(maxlen=prefetch)
        """The delivery tags that came last."""

    def seen(self, settler: Holder) -> Seen:
        """A look at it."""
        is_full = len(self.recent) == self.recent.maxlen and all(map(settler.holds, self.recent))
        return Seen(self.recent[-1] if self.recent else 0, is_full)


class Silence:
    """Remembers what earlier looks at one queue showed."""

    def __init__(self) -> None:
        self._last_tag = 0
        self._silent = 0
        self._patience = SILENT_LOOKS

    def note(self, counts: Counts | None, seen: Seen) -> str | None:
        """Take one look; returns why the queue has to be consumed again, None when all is well."""
        # A consumer that was started again begins at 0.
        has_come = seen.last_tag not in {0, self._last_tag}
        self._last_tag = seen.last_tag
        if counts is None:
            return "its queue is gone"
        if counts.consumers == 0:
            return "the broker knows no consumer of it"
        if has_come:
            self._patience = SILENT_LOOKS
        if has_come or counts.ready == 0 or seen.is_full:
            self._silent = 0
            return None
        self._silent += 1
        if self._silent < self._patience:
            return None
        self._silent = 0
        # It may be another's turn (x-single-active-consumer): asked less and less often.
        self._patience = min(MOST_LOOKS, self._patience * 2)
        return f"{counts.ready} messages wait in it and none has come"
