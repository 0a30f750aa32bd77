"""What is counted of one handler: plain numbers, bound once to where they are counted.

Written by the loop only. A number costs some 30 ns and an observed duration 150 ns, because every message pays for it;
names, labels and text are made when somebody asks for them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from penstock.app.outcomes import DONE, Outcome

#: Upper bounds of durations, seconds: from a message in memory to a broker's consumer timeout (30 min).
DURATIONS_S: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 1800.0)


class Histogram:
    """How often a value lay where; `bounds` are upper bounds, each included, and there is one more place above them."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = DURATIONS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """Sum of all values."""

    def __repr__(self) -> str:
        return f"<Histogram [{sum(self.counts)} values, {self.total:g} together]>"

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def copy(self) -> Histogram:
        """As it is now."""
        other = Histogram(self.bounds)
        other.counts = self.counts.copy()
        other.total = self.total
        return other


@dataclass(slots=True, eq=False)
class Tally:
    """Counts of one handler since the start; deliveries are those below that are settled, and those still out."""

    delivered: int = 0
    joined: int = 0
    """Redeliveries that joined a run, or were acked again; not among the delivered."""
    acked: int = 0
    retried: int = 0
    dead: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Given up, by the cause's word."""
    undeliverable: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Messages that handlers published and nobody took, by why; not among the delivered."""
    handed_back: int = 0
    counted: int = 0
    """Published again before they ran, because they may have ended a whole service."""
    deadline_kills: int = 0
    returned: int = 0
    """The outcome of nearly all; the others are counted in `others`."""
    others: defaultdict[type, int] = field(default_factory=lambda: defaultdict(int))
    queue_wait: Histogram = field(default_factory=Histogram)
    run_time: Histogram = field(default_factory=Histogram)
    ack_lag: Histogram = field(default_factory=Histogram)

    def note_outcome(self, outcome: Outcome) -> None:
        """A run ended so."""
        if outcome is DONE:
            self.returned += 1
        else:
            self.others[type(outcome)] += 1

    @property
    def unsettled(self) -> int:
        """Deliveries that are out."""
        ended = self.acked + self.retried + sum(self.dead.values()) + self.handed_back + self.counted
        return self.delivered - ended

    def copy(self) -> Tally:
        """As it is now."""
        return Tally(
            self.delivered,
            self.joined,
            self.acked,
            self.retried,
            self.dead.copy(),
            self.undeliverable.copy(),
            self.handed_back,
            self.counted,
            self.deadline_kills,
            self.returned,
            self.others.copy(),
            self.queue_wait.copy(),
            self.run_time.copy(),
            self.ack_lag.copy(),
        )
