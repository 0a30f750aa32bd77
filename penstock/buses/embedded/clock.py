"""The bus's own time, which delayed messages are due by: it goes on evenly when the wall clock jumps.

Every process on the file runs on one machine (SQLite's WAL demands it) and so reads one steady clock, which
counts from boot. Bus time is that clock plus an offset that the first process of a boot writes into the file:
the wall clock at that moment, but never less than the bus time last seen. Later jumps of the wall clock, in
either direction, change nothing; after a reboot bus time never goes back, so that a delay is never shortened
by more than the machine was off.

Leases need no common clock at all: see `penstock.buses.embedded.leases`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

# BOOTTIME counts through a suspend; where it is missing (macOS), MONOTONIC does so too.
_STEADY: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_TIME_NAMESPACE: Final = Path("/proc/self/ns/time")


def steady_s() -> float:
    """Seconds since boot; the same in every process of the machine."""
    return time.clock_gettime(_STEADY)


def this_boot(wall_s: float, boot_s: float) -> str:
    """A name for the time since the last boot.

    Without Linux's boot id it is the minute of that boot by the wall clock: a jump then counts as a boot, and
    bus time still never goes back.
    """
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text(encoding="ascii").strip()
    return f"minute {round((wall_s - boot_s) / 60)}"


def this_namespace() -> str:
    """Processes in another time namespace read another steady clock; empty where there are none."""
    with contextlib.suppress(OSError):
        return str(_TIME_NAMESPACE.readlink())
    return ""


class BusClock:
    """Reads bus time; `load` has to run once in every process, in a write transaction."""

    def __init__(
        self, *, wall_s: Callable[[], float] = time.time, steady_s: Callable[[], float] = steady_s
    ) -> None:
        self._wall_s = wall_s
        self._steady_s = steady_s
        self._offset_ms = 0
        self._key = ("", "")

    def load(self, connection: sqlite3.Connection) -> None:
        """Take this boot's offset from the file, or be the one who writes it."""
        wall_s, since_boot_s = self._wall_s(), self._steady_s()
        self._key = boot, namespace = (this_boot(wall_s, since_boot_s), this_namespace())
        known = connection.execute(
            "SELECT offset_ms FROM clocks WHERE boot = ? AND namespace = ?", self._key
        ).fetchone()
        if known is not None:
            self._offset_ms = known[0]
            return
        (seen_ms,) = connection.execute("SELECT coalesce(max(seen_ms), 0) FROM clocks").fetchone()
        now_ms = max(int(wall_s * 1000), seen_ms)
        self._offset_ms = now_ms - int(since_boot_s * 1000)
        connection.execute("DELETE FROM clocks WHERE boot <> ?", (boot,))
        connection.execute(
            "INSERT INTO clocks (boot, namespace, offset_ms, seen_ms) VALUES (?, ?, ?, ?)",
            (boot, namespace, self._offset_ms, now_ms),
        )

    def now_ms(self) -> int:
        """Bus time in milliseconds."""
        return int(self._steady_s() * 1000) + self._offset_ms

    def note(self, connection: sqlite3.Connection) -> None:
        """Write down how far bus time has come, for the first process after the next boot."""
        connection.execute(
            "UPDATE clocks SET seen_ms = ? WHERE boot = ? AND namespace = ?", (self.now_ms(), *self._key)
        )
