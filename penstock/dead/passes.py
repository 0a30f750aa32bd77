"""Going through the letters of a queue: pass after pass, until each that was there has been looked at.

```
 hold ─▶ letter ─▶ does not fit: back to its place
                 └▶ fits ─▶ round ─▶ treat (replay: publish, confirmed; then forget)
```
What bounds it: a round, in letters and bytes; of the others nothing is kept. A pass ends early when the connection
breaks, or when letters have been held for half of the broker's consumer timeout; the next one begins at the head.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from penstock.buses.contract import Bus
from penstock.dead.choice import Choice
from penstock.dead.letter import Letter
from penstock.errors import BusError, BusUnavailable, PublishError

#: Letters that are treated together.
ROUND: Final = 500
ROUND_BYTES: Final = 8 * 1024 * 1024
#: How long the bus may be away before a pass is given up.
PATIENCE_S: Final = 60.0
LOOK_AGAIN_S: Final = 0.1
#: A broker that is back says for a moment that a queue is empty: what its last connections held has not returned.
SETTLE_S: Final = 5.0
SUFFIX: Final = ".dead"

T = TypeVar("T")

#: Called with how many letters have been looked at, and how many of them fitted.
Progress: TypeAlias = Callable[[int, int], None]
Turn: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
#: Treats a round; returns the first refusal, which ends it all.
Treat: TypeAlias = Callable[[Sequence[Letter]], Coroutine[Any, Any, PublishError | None]]


async def _at_once() -> None:
    """A round is treated as soon as it is full."""


def _nobody_watches(_looked_at: int, _fitted: int) -> None:
    """No progress is shown."""


@dataclass(slots=True)
class Task:
    """What is to be done with which letters."""

    bus: Bus
    origin: str
    count: int
    """Letters at the start: what fails again meanwhile comes in at the end, and would go round for ever."""
    choice: Choice
    treat: Treat
    limit: int | None = None
    """Not more than so many that fit."""
    round_size: int = ROUND
    pass_s: float = 900.0
    """Letters are held no longer than this."""
    wait_turn: Turn = _at_once
    is_known: Callable[[Letter], bool] | None = None
    """Tells letters that were treated in this run and have failed again, to leave them alone."""
    on_progress: Progress = _nobody_watches
    looked_at: int = 0
    fitted: int = 0
    _gone: int = field(default=0, init=False)
    """Letters that the queue has lost to us."""

    async def run(self) -> PublishError | None:
        """Go through all of them; returns the first refusal.

        Raises `BusUnavailable` when the bus is away for longer than `PATIENCE_S`; letters that were not treated stay.
        """
        left, failing_since_s, settles_at_s = self.count, None, 0.0
        while left > 0 and not self._is_enough:
            before = self._gone
            try:
                one = await self._pass(left)
            except BusUnavailable:
                now_s = time.monotonic()
                if self._gone > before or failing_since_s is None:
                    failing_since_s = now_s
                if now_s - failing_since_s > PATIENCE_S or not await self._is_back():
                    raise
                settles_at_s = time.monotonic() + SETTLE_S
                if self.is_known is None:
                    # What was dropped may come again; something new is not dropped in its place.
                    left -= self._gone - before
                continue
            if one.error is not None:
                return one.error
            failing_since_s = None
            has_ended = one.has_ended and one.looked_at < left
            # Those that did not fit are at the head again, unless every one fits and all were treated.
            left -= one.looked_at if self.choice.is_everything else self._gone - before
            if has_ended and time.monotonic() < settles_at_s:
                await asyncio.sleep(LOOK_AGAIN_S)
            elif has_ended or one.is_whole:
                return None
        return None

    @property
    def _is_enough(self) -> bool:
        return self.limit is not None and self.fitted >= self.limit

    async def _pass(self, left: int) -> _Pass:
        """One holding. Letters that all fit are held a round at a time, so that a slow replay hides no others."""
        held = min(left, ROUND) if self.choice.is_everything else left
        one, ends_at_s = _Pass(), time.monotonic() + self.pass_s
        waiting: list[Letter] = []
        waiting_bytes = 0
        async with holding(self.bus, self.origin, held) as letters:
            async for letter in letters:
                one.looked_at += 1
                if not self.choice.fits(letter) or (self.is_known is not None and self.is_known(letter)):
                    letter.release()
                    self._show(one)
                    continue
                waiting.append(letter)
                waiting_bytes += len(letter.delivery.body)
                self.fitted += 1
                if len(waiting) >= self.round_size or waiting_bytes > ROUND_BYTES or self._is_enough:
                    one.error = await self._treat(waiting)
                    waiting, waiting_bytes = [], 0
                    self._show(one)
                    if one.error is not None or self._is_enough:
                        return one
                    if time.monotonic() > ends_at_s:
                        self.looked_at += one.looked_at
                        return one
            if waiting:
                one.error = await self._treat(waiting)
            one.is_whole = one.looked_at >= left
            one.has_ended = one.looked_at < held
        self.looked_at += one.looked_at
        self._show(_Pass())
        return one

    async def _treat(self, letters: Sequence[Letter]) -> PublishError | None:
        """To its end, also when we are cancelled meanwhile: what is confirmed has to be forgotten."""
        await self.wait_turn()
        treating = asyncio.ensure_future(self.treat(letters))
        try:
            error = await asyncio.shield(treating)
        except asyncio.CancelledError:
            await asyncio.wait((treating,))
            raise
        self._gone += len(letters) if error is None else 0
        return error

    def _show(self, one: _Pass) -> None:
        self.on_progress(min(self.count, self.looked_at + one.looked_at), self.fitted)

    async def _is_back(self) -> bool:
        """Wait for the bus, which heals itself."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            await asyncio.sleep(LOOK_AGAIN_S)
            if self.bus.is_connected:
                return True
        return False


@dataclass(slots=True)
class _Pass:
    looked_at: int = 0
    is_whole: bool = False
    """All that was there at the start has been looked at."""
    has_ended: bool = False
    """There was less than was to be held: somebody else took the rest, or the bus has not found it again yet."""
    error: PublishError | None = None


@asynccontextmanager
async def holding(bus: Bus, origin: str, limit: int) -> AsyncIterator[AsyncIterator[Letter]]:
    """Up to `limit` letters of a queue while the block runs; those that were not forgotten return to it."""
    async with bus.hold(origin + SUFFIX, limit=limit) as deliveries:
        yield (Letter(delivery, origin) async for delivery in deliveries)


async def find(bus: Bus, queue: str) -> tuple[str, int]:
    """The queue that letters came from, and how many there are; the dead-letter queue's own name is understood, too.

    Raises `BusError` when there is no such queue.
    """
    for origin in (queue, queue.removesuffix(SUFFIX)):
        count = await bus.depth(origin + SUFFIX)
        if count is not None:
            return origin, count
    raise BusError(
        f"there is no dead-letter queue {queue + SUFFIX!r} on this bus; a handler's start declares it. "
        "Look for a typing error in the name, or for another bus in the settings"
    )


async def look(
    bus: Bus, origin: str, count: int, choice: Choice, *, limit: int, keep: Callable[[Letter], T]
) -> list[T]:
    """Of the first `limit` letters that fit what `keep` makes of them; all letters stay where they are.

    `count` is how many there are. Raises `BusUnavailable`.
    """
    kept: list[T] = []
    async with holding(bus, origin, min(count, limit) if choice.is_everything else count) as letters:
        async for letter in letters:
            if choice.fits(letter):
                kept.append(keep(letter))
            letter.release()
            if len(kept) == limit:
                break
    return kept
