"""When a failed message comes again: a pure function of attempt, policy and a random source."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from penstock.app.messages import MAX_DELAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", 2015).

    `attempts` is how often a message runs in all, the first run included; `first_s` the longest wait after
    the first failure, multiplied by `factor` after each further one, up to `cap_s`.
    Raises `ValueError` when made with numbers that cannot work.
    """

    attempts: int = 5
    first_s: float = 1.0
    factor: float = 2.0
    cap_s: float = 600.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            msg = f"Backoff(attempts={self.attempts}): at least 1, the first run counts"
            raise ValueError(msg)
        # Said this way round, because no comparison holds for NaN.
        if not (self.first_s >= 0 and 0 <= self.cap_s <= MAX_DELAY_S and self.factor >= 1):
            msg = f"{self!r}: first_s is 0 or more, factor 1 or more, cap_s from 0 to {MAX_DELAY_S:.0f} (12 days)"
            raise ValueError(msg)

    def ceiling_s(self, attempts: int) -> float:
        """Longest wait in seconds after so many failed attempts (1 or more)."""
        # The exponent is bounded because 2.0 ** 1025 raises OverflowError.
        return min(self.cap_s, self.first_s * self.factor ** min(attempts - 1, 200))

    def delay_s(self, attempts: int, random: Random) -> float:
        """Seconds to wait after so many failed attempts (1 or more), drawn from 0 to the ceiling."""
        return random.uniform(0.0, self.ceiling_s(attempts))


NO_RETRY = Backoff(attempts=1)
