"""Messages that may have killed a whole service run one at a time, so that a death names the one to blame.

```
 suspect ─▶ waits for the turn ─▶ published again, marked, acked ─▶ the copy arrives ─▶ runs ─▶ settled: next one
```
The turn begins before the mark is published: of all that bear the mark, one is out. A copy that arrives late (its queue
is long, or another service had it) waits for the next turn. Everything that is no suspect goes on beside it.
What bounds it: what waits here is unsettled, so prefetch does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from penstock.reactor.counting import Counting
from penstock.reactor.work import Work

#: How long the turn is kept for a copy that does not arrive: it stands behind others in its queue.
ARRIVAL_WAIT_S: Final = 2.0


class Apart:
    """The suspects' turn; `take_on` and `note_settled` are all that it hears of."""

    def __init__(
        self, counting: Counting, *, set_apart: Callable[[Work], bool], run: Callable[[Work], None]
    ) -> None:
        """`set_apart` publishes the marked copy and returns False when none will come; `run` starts a copy."""
        self._counting = counting
        self._set_apart = set_apart
        self._run = run
        self._suspects: deque[Work] = deque()
        self._copies: deque[Work] = deque()
        self._running: Work | None = None
        self._arrival: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Apart [{len(self)} waiting, running {self._running!r}]>"

    def __len__(self) -> int:
        return len(self._suspects) + len(self._copies)

    def take_on(self, work: Work) -> None:
        """A suspect, or the marked copy of one."""
        if work.delivery.history.alone and not work.delivery.redelivered:
            self._copies.append(work)
            self._no_longer_expected()
        else:
            self._suspects.append(work)
        self._next()

    def note_settled(self, work: Work) -> None:
        """The turn is over when it was this one's."""
        if work is self._running:
            self._running = None
            self._next()

    def clear(self) -> list[Work]:
        """Everything that waits, for handing it back; nothing more is begun."""
        works = [*self._copies, *self._suspects]
        self._copies.clear()
        self._suspects.clear()
        self._no_longer_expected()
        return works

    def _next(self) -> None:
        while self._running is None and self._arrival is None:
            if self._copies:
                copy = self._running = self._copies.popleft()
                copy.is_watched = True
                self._counting.admit(copy, self._run)
            elif self._suspects:
                suspect = self._suspects.popleft()
                if self._set_apart(suspect):
                    self._counting.note_marked(suspect)
                    self._arrival = asyncio.get_running_loop().call_later(ARRIVAL_WAIT_S, self._gone_astray)
            else:
                return

    def _no_longer_expected(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _gone_astray(self) -> None:
        self._arrival = None
        self._next()
