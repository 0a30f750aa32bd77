"""One round of a consuming bus: everything that it wants from the file at a moment, in one transaction.

The loop builds a `Round`, the writer thread plays it, the loop applies the `Played` it gets back. Playing it
again after a failure is harmless: settling names the lease, and what was claimed without our knowing is given
back by `known`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from penstock.buses.embedded import ballast, leases, store
from penstock.buses.embedded.clock import BusClock
from penstock.buses.embedded.leases import Watch
from penstock.buses.embedded.wakeup import WakeupPipe
from penstock.buses.embedded.writer import Transaction

#: A round claims no further once it has so many messages: acks wait for it, and the loop takes them all at once.
CLAIMED_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Claim:
    """So many messages of a queue, at most; with `after` only those behind that place."""

    queue_id: int
    limit: int
    after: store.Place | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What is wanted. Message ids, not tags."""

    lease_id: int | None
    """None: take one first."""
    acks: tuple[int, ...] = ()
    requeues: tuple[int, ...] = ()
    unseen: tuple[int, ...] = ()
    """Claimed, but delivered to nobody."""
    claims: tuple[Claim, ...] = ()
    known: frozenset[int] | None = None
    """Set after a failure: every message that we believe to have claimed; others go back."""
    looks_around: bool = False
    """Look for abandoned leases and for messages that nobody told us of."""
    renews: bool = False
    ends: bool = False
    """The last one: everything goes back and the lease ends."""


@dataclass(slots=True)
class Played:
    """What came of it, in a transaction that is durable."""

    lease_id: int | None
    """None: somebody has ended our lease, and nothing else of the round was done."""
    claimed: list[list[store.Claimed]] = field(default_factory=list)
    """One list for each claim, in order; fewer lists than claims when they brought enough."""
    next_due_ms: int | None = None
    data_version: int = 0
    """Changes whenever another connection has changed the file."""


@dataclass(slots=True)
class Player:
    """Plays rounds, in the writer thread; what it needs beside them."""

    path: Path
    clock: BusClock
    pipe: WakeupPipe
    watch: Watch
    lease_s: float
    free_floor_bytes: int
    """The ballast leaves so much."""

    def play(self, round_: Round, transaction: Transaction) -> Played:
        """Do all that the round wants. Raises `OSError` when descriptors have run out, `sqlite3.Error`."""
        connection, touched = transaction.connection, transaction.touched
        lease_id = round_.lease_id
        if lease_id is None:
            self.pipe.open(self.path.stat().st_mode & 0o777)
            lease_id = leases.take(connection, self.pipe.name, self.lease_s)
            touched |= self._look_around(transaction, lease_id)
        elif not leases.is_held(connection, lease_id):
            return Played(None)
        if round_.renews:
            leases.renew(connection, lease_id)
            self.clock.note(connection)
        store.ack(connection, lease_id, round_.acks)
        touched |= store.requeue(connection, lease_id, round_.requeues, delivered=True)
        touched |= store.requeue(connection, lease_id, round_.unseen, delivered=False)
        if round_.known is not None:
            unknown = store.claimed_by(connection, lease_id) - round_.known
            touched |= store.requeue(connection, lease_id, unknown, delivered=False)
        if round_.looks_around:
            touched |= self._look_around(transaction, lease_id)
            ballast.keep(self.path, self.free_floor_bytes)
        if round_.ends:
            touched |= leases.end(connection, lease_id, counted=False)
            if not leases.others(connection, lease_id):
                ballast.give_up(self.path)
        touched |= store.promote(connection, self.clock.now_ms())
        claimed: list[list[store.Claimed]] = []
        count = 0
        for claim in round_.claims:
            claimed.append(store.claim(connection, lease_id, claim.queue_id, claim.limit, claim.after))
            count += len(claimed[-1])
            if count >= CLAIMED_AT_ONCE:
                break
        (data_version,) = connection.execute("PRAGMA data_version").fetchone()
        return Played(lease_id, claimed, store.next_due_ms(connection), data_version)

    def _look_around(self, transaction: Transaction, lease_id: int) -> set[int]:
        # Before leases are ended: should this transaction come to nothing, a dead process's pipe has to be there still.
        leases.sweep_pipes(transaction.connection, self.pipe.folder)
        return leases.end_abandoned(
            transaction.connection, lease_id, self.pipe.folder, self.watch, time.monotonic()
        )
