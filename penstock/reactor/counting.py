"""Starts that we count ourselves: a copy with the count is published, the original acked, and only then the copy runs.

```
 original ─▶ publish the copy, confirmed ─▶ ack ─▶ the bus has taken it ─┐
                        └─▶ the copy arrives ───────────── waits ────────┴─▶ runs
```
Were a copy to end the service while its original's ack is still under way, both would come back, and there would be one
more of them with each death. (A quorum queue that has more than 32 acks under way may forget the last ones with the
service all the same: then both come back, marked as redelivered.) What bounds it: originals and copies are unsettled, so prefetch does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine

from penstock.reactor.side_tasks import SideTasks
from penstock.reactor.work import Work


class Counting:
    """Holds copies back while acks of originals are under way."""

    def __init__(
        self,
        side_tasks: SideTasks,
        *,
        count_start: Callable[[Work], None],
        acks_taken: Callable[[Collection[str]], Coroutine[None, None, None]],
    ) -> None:
        """`count_start` publishes a copy and acks; `acks_taken` returns when the bus has the acks of these queues."""
        self._side_tasks = side_tasks
        self._count_start = count_start
        self._acks_taken = acks_taken
        self._originals: set[Work] = set()
        self._queues: set[str] = set()
        self._is_asking = False
        self._held: list[tuple[Work, Callable[[Work], None]]] = []

    def __repr__(self) -> str:
        return f"<Counting [{len(self._originals)} originals, {len(self._held)} copies held]>"

    def count(self, original: Work) -> None:
        """Nobody counts how often it comes back: its copy does."""
        self.note_marked(original)
        self._count_start(original)

    def note_marked(self, original: Work) -> None:
        """Its copy is on the way; from now until its ack is with the bus no copy runs."""
        original.is_watched = True
        self._originals.add(original)

    def admit(self, copy: Work, run: Callable[[Work], None]) -> None:
        """Run it, as soon as it may."""
        if self._originals or self._is_asking:
            self._held.append((copy, run))
        else:
            run(copy)

    def note_settled(self, work: Work) -> None:
        """Its ack, or what hands it back, has been asked for."""
        if work in self._originals:
            self._originals.discard(work)
            self._queues.add(work.delivery.queue)
            self._ask()

    def clear(self) -> list[Work]:
        """Copies that wait, for handing them back."""
        held, self._held = self._held, []
        return [copy for copy, _ in held]

    def _ask(self) -> None:
        if not self._originals and not self._is_asking:
            self._is_asking = True
            self._side_tasks.start(self._let_run(), "penstock-counting")

    async def _let_run(self) -> None:
        queues, self._queues = self._queues, set()
        try:
            await self._acks_taken(queues)
        finally:
            self._is_asking = False
        if self._queues:
            self._ask()
            return
        held, self._held = self._held, []
        for copy, run in held:
            self.admit(copy, run)
