"""What was confirmed, what was done, and whether the two agree; it asks the service nothing.

```
 publisher ─ confirmed, fsynced ─▶ ┐
 handlers ─ effects, in their tx ─▶ ├─▶ Ledger.close ─▶ Balance: lost, stuck, duplicates, unexplained
 broker ─ dead letters, rest, out ─▶ ┘
```
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

#: A message that a worker was handling when it was killed has written its effect so long before, at the most.
KILL_SLACK_S: Final = 30.0


class Effect(NamedTuple):
    """A row of the effects table."""

    message_id: str
    queue: str
    attempt: int
    redelivered: bool
    pid: int
    at_s: float


class Confirmed(NamedTuple):
    """A line of the publisher's log; `at_s` is monotonic."""

    message_id: str
    queue: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A time in which a fault was at work."""

    fault: str
    began_s: float
    ended_s: float
    severs: bool
    """True when it can take a publisher confirm away: whatever ends a connection, the broker or the reactor."""


@dataclass(slots=True)
class Rest:
    """What the broker has when everybody has stopped."""

    dead: dict[str, str] = field(default_factory=dict)
    """Reason by message id."""
    dead_count: int = 0
    out: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (id, what it was published for)."""
    queued: list[str] = field(default_factory=list)
    """Ids of what is in neither of the two."""


@dataclass(slots=True)
class Balance:
    """The end of a run."""

    published: int
    confirmed: int
    effects: int
    dead: int
    lost: list[str]
    stuck: list[str]
    duplicates: int
    unexplained: list[str]

    @property
    def is_even(self) -> bool:
        """Nothing lost, stuck or unexplained."""
        return not (self.lost or self.stuck or self.unexplained)

    def line(self, max_recovery_s: float) -> str:
        """The run in one line."""
        return (
            f"published={self.published} confirmed={self.confirmed} effects={self.effects} dead={self.dead} "
            f"lost={len(self.lost)} stuck={len(self.stuck)} duplicates={self.duplicates} "
            f"unexplained={len(self.unexplained)} max_recovery_s={max_recovery_s:.2f}"
        )


class Ledger:
    """One run's books, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "app.db"
        self.runs = folder / "runs.log"
        self._log = folder / "confirmed.log"
        self._fd = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.published: set[str] = set()
        self.disturbances: list[Disturbance] = []
        self._killed: dict[int, float] = {}

    def aclose(self) -> None:
        """Close the log's file."""
        os.close(self._fd)

    # --- writing down

    def confirm(self, queue: str, ids: Sequence[str]) -> None:
        """The broker has confirmed these; on disk when it returns."""
        now_s = time.monotonic()
        lines = "".join(f"{id_} {queue} {now_s:.6f}\n" for id_ in ids)
        os.write(self._fd, lines.encode())
        os.fsync(self._fd)

    def killed(self, pid: int) -> None:
        """A worker was killed from outside, about now."""
        self._killed[pid] = time.monotonic()

    @contextmanager
    def disturbed(self, fault: str, *, severs: bool) -> Iterator[None]:
        """A fault is at work inside the block."""
        began_s = time.monotonic()
        try:
            yield
        finally:
            self.disturbances.append(Disturbance(fault, began_s, time.monotonic(), severs))

    # --- reading

    def confirmed(self) -> list[Confirmed]:
        """Everything that was confirmed, in order."""
        lines = self._log.read_text(encoding="ascii").splitlines()
        return [Confirmed(id_, queue, float(at_s)) for id_, queue, at_s in (line.split() for line in lines)]

    def effects(self, *, since_s: float = 0.0) -> list[Effect]:
        """Everything that was done, in the order of its commits."""
        with closing(sqlite3.connect(self.database, timeout=60)) as connection:
            rows = connection.execute(
                "SELECT message_id, queue, attempt, redelivered, pid, at_s FROM effects WHERE at_s >= ? ORDER BY n",
                (since_s,),
            ).fetchall()
        return [Effect(row[0], row[1], row[2], bool(row[3]), row[4], row[5]) for row in rows]

    def effects_of(self, ids: Iterable[str]) -> list[Effect]:
        """What was done for these messages."""
        wanted = sorted(ids)
        found: list[Effect] = []
        with closing(sqlite3.connect(self.database, timeout=60)) as connection:
            for start in range(0, len(wanted), 500):
                part = wanted[start : start + 500]
                marks = ",".join("?" * len(part))
                rows = connection.execute(
                    "SELECT message_id, queue, attempt, redelivered, pid, at_s FROM effects "
                    f"WHERE message_id IN ({marks}) ORDER BY n",
                    part,
                ).fetchall()
                found += [Effect(row[0], row[1], row[2], bool(row[3]), row[4], row[5]) for row in rows]
        return found

    def run_counts(self) -> Counter[str]:
        """How often handling of each message began."""
        if not self.runs.exists():
            return Counter()
        return Counter(line.split()[0] for line in self.runs.read_text(encoding="ascii").splitlines())

    def workers_of(self, id_: str) -> list[int]:
        """The pids in which the handling of one message began, in order."""
        runs = [line.split() for line in self.runs.read_text(encoding="ascii").splitlines()]
        return [int(run[3]) for run in runs if run[0] == id_]

    def unsettled(self) -> set[str]:
        """Confirmed ids without an effect; the dead letters are among them."""
        return {line.message_id for line in self.confirmed()} - {
            effect.message_id for effect in self.effects()
        }

    # --- the end

    def close(self, rest: Rest) -> Balance:
        """Compare; `rest` is what the broker had when everybody had stopped."""
        confirmed = {line.message_id for line in self.confirmed()}
        by_id: dict[str, list[Effect]] = defaultdict(list)
        for effect in self.effects():
            by_id[effect.message_id].append(effect)
        queued = Counter(rest.queued)
        lost = sorted(confirmed - by_id.keys() - rest.dead.keys() - queued.keys())
        unexplained = [f"{id_}: nobody published it" for id_ in sorted(by_id.keys() - self.published)]
        duplicates = 0
        for id_, done in by_id.items():
            extra = len(done) - 1
            duplicates += extra
            explained = sum(1 for effect in done if self._explains(effect, done))
            if extra > explained:
                unexplained.append(f"{id_}: {done}")
        unexplained += [
            f"{id_}: done {len(by_id[id_])} times and dead: {reason}"
            for id_, reason in rest.dead.items()
            if id_ in by_id and "worker died" not in reason and not any(e.redelivered for e in by_id[id_])
        ]
        sent_for = {of for _, of in rest.out}
        unexplained += [
            f"{of}: published something, and has no effect" for of in sorted(sent_for - by_id.keys())
        ]
        return Balance(
            len(self.published),
            len(confirmed),
            sum(len(done) for done in by_id.values()),
            rest.dead_count,
            lost,
            sorted(queued.elements()),
            duplicates,
            unexplained,
        )

    def _explains(self, effect: Effect, done: Sequence[Effect]) -> bool:
        """Whether this effect may be one too many: the promise names the cases, one line each."""
        if effect.redelivered:
            return True
        if effect.attempt == 1:
            return False
        # It crossed a delay queue. Its confirm may have been lost, or the broker died while it expired:
        first_s = min(other.at_s for other in done)
        if any(
            one.severs and one.began_s <= effect.at_s and one.ended_s >= first_s - KILL_SLACK_S
            for one in self.disturbances
        ):
            return True
        # Or its worker died after its commit, before it could say so.
        return any(
            other is not effect
            and other.pid in self._killed
            and 0 <= self._killed[other.pid] - other.at_s <= KILL_SLACK_S
            for other in done
        )
