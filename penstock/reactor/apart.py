"""Messages that may have killed a whole service run one at a time, so that a death names the one to blame.

```
 suspect ─▶ waits for the turn ─▶ published again, marked, acked ─▶ the copy arrives ─▶ runs ─▶ settled: next one
```
The turn begins before the mark is published. A marked copy that cannot run at once loses its mark again, because its queue
was long or another service had it, and the one that can waits until the bus has the acks of those: of all that bear the
mark, this service holds one. Everything that is no suspect goes on beside it. What bounds it: what waits here is
unsettled, so prefetch does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from penstock.reactor.counting import Counting
from penstock.reactor.work import Work

#: How long the turn is kept for a copy that does not arrive: it stands behind others in its queue, or another has it.
ARRIVAL_WAIT_S: Final = 0.2
#: Copies that stood behind others arrive together: so long the first one waits for those that must lose their mark.
TOGETHER_S: Final = 0.1


class Apart:
    """The suspects' turn; `take_on` and `note_settled` are all that it hears of."""

    def __init__(
        self,
        counting: Counting,
        *,
        set_apart: Callable[[Work], bool],
        set_free: Callable[[Work], None],
        run: Callable[[Work], None],
    ) -> None:
        """`set_apart` publishes the marked copy, False when none will come; `set_free` takes a mark off; `run` starts a copy."""
        self._counting = counting
        self._set_apart = set_apart
        self._set_free = set_free
        self._run = run
        self._suspects: deque[Work] = deque()
        self._marked: Work | None = None
        """The original whose copy is being published."""
        self._arrival: asyncio.TimerHandle | None = None
        """Its copy is confirmed, and has not arrived."""
        self._running: Work | None = None
        self._beginning: asyncio.TimerHandle | None = None
        """The copy that has the turn waits for those that arrive with it."""
        self._has_strays = False
        """Marked copies are somewhere, and may arrive with the next one."""

    def __repr__(self) -> str:
        return f"<Apart [{len(self._suspects)} waiting, running {self._running!r}]>"

    def take_on(self, work: Work) -> None:
        """A suspect, or the marked copy of one."""
        if not work.delivery.history.alone or work.delivery.redelivered:
            self._suspects.append(work)
            self._next()
        elif self._running is None:
            self._no_longer_expected()
            self._running = work
            work.is_watched = True
            if self._has_strays:
                self._has_strays = False
                loop = asyncio.get_running_loop()
                self._beginning = loop.call_later(TOGETHER_S, self._begin, work)
            else:
                self._counting.admit(work, self._run)
        else:
            self._has_strays = True
            self._counting.note_marked(work)
            self._set_free(work)

    def note_settled(self, work: Work) -> None:
        """The turn is over when it was this one's."""
        if work is self._marked:
            self._marked = None
            if self._running is None:
                self._arrival = asyncio.get_running_loop().call_later(ARRIVAL_WAIT_S, self._gone_astray)
        elif work is self._running:
            self._running = None
            self._next()

    def clear(self) -> list[Work]:
        """Everything that waits, for handing it back; nothing more is begun."""
        works = list(self._suspects)
        if self._beginning is not None and self._running is not None:
            self._beginning.cancel()
            self._beginning = None
            works.append(self._running)
        self._suspects.clear()
        self._no_longer_expected()
        return works

    def _begin(self, copy: Work) -> None:
        self._beginning = None
        self._counting.admit(copy, self._run)

    def _next(self) -> None:
        while self._suspects and self._marked is None and self._arrival is None and self._running is None:
            suspect = self._suspects.popleft()
            if self._set_apart(suspect):
                self._marked = suspect
                self._counting.note_marked(suspect)

    def _no_longer_expected(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _gone_astray(self) -> None:
        self._arrival = None
        self._has_strays = True
        self._next()
