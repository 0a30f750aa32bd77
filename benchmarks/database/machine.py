"""How much of the machine others used meanwhile: a ratio of two that want both cores says little when they had one."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final

import psutil

#: The benchmark's first process; one that it forks asks for the whole family, too.
_FIRST: Final = os.getpid()


class Machine:
    """From here on until it is asked."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._busy_s = _busy_s()
        self._ours_s = _ours_s()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._began_s

    @property
    def others(self) -> float:
        """How many processors others kept busy, on average; what ended inside without its parent's knowing counts as theirs."""
        return max(0.0, (_busy_s() - self._busy_s - _ours_s() + self._ours_s) / self.seconds)

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s; others used {self.others:.1f} of {os.cpu_count()} processors"


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _ours_s() -> float:
    first = psutil.Process(_FIRST)
    found = 0.0
    for process in (first, *first.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            found += times.user + times.system + times.children_user + times.children_system
    return found
