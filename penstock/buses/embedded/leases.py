"""Leases in the file: who has claimed deliveries, whether that process still lives, and ending its lease if not.

A lease is taken by a bus that consumes, and its id is the fencing token of every delivery claimed under it:
settling names the lease, so a process whose lease was ended settles nothing. Two things end somebody else's:

- its wake-up pipe has no reader: the process is dead, its deliveries are given back at once;
- it was not renewed for its whole length (the process is frozen, or has no pipe): each bus that consumes watches
  the others' renewal *counter* against its own steady clock, so no clock is ever compared between processes and
  a jump of the wall clock ends nothing. Time in which the watcher itself stood still does not count.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from penstock.buses.embedded import store
from penstock.buses.embedded.wakeup import Pulse, feel, sweep

#: A lease is renewed so many times within its length.
RENEWALS: Final = 3


class OtherLease(NamedTuple):
    """Somebody else's lease, as the file has it."""

    id: int
    pipe: str | None
    length_s: float
    renewals: int


@dataclass(slots=True)
class _Sight:
    renewals: int
    unchanged_s: float = 0.0


@dataclass(slots=True)
class Watch:
    """How long, by this process's own steady clock, each other lease has not been renewed."""

    interval_s: float
    """Looks are so far apart; a longer gap means that we ourselves stood still, and counts as two."""
    _seen: dict[int, _Sight] = field(default_factory=dict)
    _looked_at_s: float | None = None

    def look(self, others: Iterable[OtherLease], now_s: float) -> set[int]:
        """Note what is there; returns the leases that were not renewed for their whole length."""
        passed_s = 0.0 if self._looked_at_s is None else now_s - self._looked_at_s
        passed_s = min(passed_s, 2 * self.interval_s)
        self._looked_at_s = now_s
        seen: dict[int, _Sight] = {}
        expired: set[int] = set()
        for lease in others:
            sight = self._seen.get(lease.id)
            if sight is None or sight.renewals != lease.renewals:
                sight = _Sight(lease.renewals)
            else:
                sight.unchanged_s += passed_s
            seen[lease.id] = sight
            if sight.unchanged_s >= lease.length_s:
                expired.add(lease.id)
        self._seen = seen
        return expired


def take(connection: sqlite3.Connection, pipe: str | None, length_s: float) -> int:
    """A new lease for this process; returns its id."""
    cursor = connection.execute(
        "INSERT INTO leases (pid, pipe, length_s) VALUES (?, ?, ?)", (os.getpid(), pipe, length_s)
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def renew(connection: sqlite3.Connection, lease_id: int) -> None:
    """Say that its process is alive."""
    connection.execute("UPDATE leases SET renewals = renewals + 1 WHERE id = ?", (lease_id,))


def is_held(connection: sqlite3.Connection, lease_id: int) -> bool:
    """False once somebody has ended it: its deliveries are out of our hands."""
    return connection.execute("SELECT 1 FROM leases WHERE id = ?", (lease_id,)).fetchone() is not None


def end(connection: sqlite3.Connection, lease_id: int, *, counted: bool) -> set[int]:
    """Give back everything claimed under it, `counted` as a delivery; returns the queues concerned."""
    queues = store.release(connection, lease_id, counted=counted)
    connection.execute("DELETE FROM leases WHERE id = ?", (lease_id,))
    return queues


def others(connection: sqlite3.Connection, lease_id: int | None) -> list[OtherLease]:
    """Every lease but ours."""
    rows = connection.execute(
        "SELECT id, pipe, length_s, renewals FROM leases WHERE id IS NOT ?", (lease_id,)
    )
    return [OtherLease._make(row) for row in rows]


def end_abandoned(
    connection: sqlite3.Connection, lease_id: int, folder: Path, watch: Watch, now_s: float
) -> set[int]:
    """End the leases of processes that are dead or no longer renew; returns the queues that got messages back."""
    there = others(connection, lease_id)
    expired = watch.look(there, now_s)
    queues: set[int] = set()
    for lease in there:
        pulse = feel(None if lease.pipe is None else folder / lease.pipe)
        if pulse is Pulse.DEAD or lease.id in expired:
            queues |= end(connection, lease.id, counted=True)
    return queues


def pipes(connection: sqlite3.Connection) -> set[str]:
    """Names of the pipes of every lease."""
    return {pipe for (pipe,) in connection.execute("SELECT pipe FROM leases WHERE pipe IS NOT NULL")}


def sweep_pipes(connection: sqlite3.Connection, folder: Path) -> None:
    """Remove pipes that no lease names.

    Under the write lock, because a pipe is made and its lease written under it too.
    """
    sweep(folder, pipes(connection))
