"""Who is served next: round-robin over handlers, batches by time. Memory only; it opens and awaits nothing.

```
 orders.created  ▣▣▣▣▣▣▣▣ ┐
 orders.stored   ▣        ├─ one of each in turn, until 10 ms of work ▶ batch ─▶ idle slot
 mails.out       ▣▣▣      ┘
```
What bounds it: prefetch bounds what is out of the bus, and so what waits here.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Final

from penstock.channels.recorder import MAX_BATCH
from penstock.reactor.work import Served, Work

#: Work that travels in one submit; a submit costs a pickle, three thread hops and a wake-up, 0.2 to 0.4 ms together,
#: and the slot then waits for the loop to settle what it did: 1.8 ms a batch when messages keep both cores busy.
BATCH_BUDGET_S: Final = 0.01
#: So much work is worth a submit at once.
WORTH_S: Final = 0.0025
#: So many waiting deliveries are a batch worth sending, however quick they are.
GATHERED: Final = 100
#: A batch that carries large bodies ends early, so that a submit never copies more than this and one body.
BATCH_BYTES: Final = 1024 * 1024


class Dispatcher:
    """The deliveries that wait for a slot, a line for each handler."""

    def __init__(self) -> None:
        self._lines: dict[int, deque[Work]] = {}
        self._turns: deque[Served] = deque()
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Dispatcher [{self._waiting} waiting for {len(self._turns)} handlers]>"

    def __len__(self) -> int:
        return self._waiting

    def add(self, work: Work) -> None:
        """A delivery waits at the end of its handler's line."""
        self._line(work.served).append(work)
        self._waiting += 1

    def put_back(self, works: Iterable[Work]) -> None:
        """Deliveries that were handed out and not begun go to the front, in their order."""
        for work in reversed(list(works)):
            self._line(work.served).appendleft(work)
            self._waiting += 1

    def is_worth_a_slot(self) -> bool:
        """True when what waits should not gather any longer: it is slow, of unknown pace, or a good batch already."""
        if self._waiting >= GATHERED or not self._turns:
            return True
        run_s = self._turns[0].run_s
        return run_s is None or run_s * self._waiting >= WORTH_S

    def take(self, idle_slots: int) -> list[Work]:
        """The next batch: about `BATCH_BUDGET_S` of work, and a fair share of what waits for the idle slots."""
        batch: list[Work] = []
        most = min(MAX_BATCH, math.ceil(self._waiting / max(1, idle_slots)))
        spent_s, size_bytes = 0.0, 0
        turns, lines = self._turns, self._lines
        while turns and len(batch) < most:
            served = turns[0]
            line = lines[served.index]
            work = line[0]
            cost_s = BATCH_BUDGET_S if served.run_s is None else served.run_s
            size_bytes += len(work.delivery.body)
            if batch and (work.alone or spent_s + cost_s > BATCH_BUDGET_S or size_bytes > BATCH_BYTES):
                break
            line.popleft()
            if line:
                turns.rotate(-1)
            else:
                turns.popleft()
            batch.append(work)
            spent_s += cost_s
            if work.alone:
                break
        self._waiting -= len(batch)
        return batch

    def take_beyond(self, served: Served, keep: int) -> list[Work]:
        """What waits for one handler beyond the first `keep`, for handing it back."""
        line = self._lines.get(served.index)
        if line is None or len(line) <= keep:
            return []
        works = [line.pop() for _ in range(len(line) - keep)]
        if not line:
            self._turns.remove(served)
        self._waiting -= len(works)
        return works[::-1]

    def clear(self) -> list[Work]:
        """Everything that waits, for handing it back."""
        works = [work for line in self._lines.values() for work in line]
        for line in self._lines.values():
            line.clear()
        self._turns.clear()
        self._waiting = 0
        return works

    def _line(self, served: Served) -> deque[Work]:
        line = self._lines.get(served.index)
        if line is None:
            line = self._lines[served.index] = deque()
        if not line:
            self._turns.append(served)
        return line
