"""Which of many like it are told: the first at once, then one a minute, which says how many were not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

#: A server that is away for an hour is told of sixty times, however many statements it costs.
EVERY_S: Final = 60.0


@dataclass(slots=True)
class _Told:
    at_s: float
    left_out: int = 0


class Seldom:
    """Counts by what happened; asks `clock` for seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, _Told] = {}

    def left_out(self, what: str) -> int | None:
        """How many like it were left out before this one, which is to be told; None when it is left out, too."""
        now_s = self._clock()
        told = self._told.get(what)
        if told is not None and now_s - told.at_s < EVERY_S:
            told.left_out += 1
            return None
        self._told[what] = _Told(now_s)
        return 0 if told is None else told.left_out
