"""The way back: published, confirmed, and only then forgotten; so many a second, and not twice what can be told apart."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from penstock.buses.contract import Bus
from penstock.dead.letter import Letter
from penstock.dead.passes import ROUND, Task
from penstock.errors import PublishError
from penstock.reactor import deadletter

#: Letters sent back lately whose ack the broker may have lost with a connection.
REMEMBERED: Final = 10_000
#: With a rate, a round is what leaves in so many seconds.
SLOW_ROUND_S: Final = 0.1


class Replaying:
    """Sends rounds of letters back; `rate` is letters a second, None as fast as they go."""

    def __init__(self, bus: Bus, *, timeout_s: float, rate: float | None) -> None:
        self._bus = bus
        self._timeout_s = timeout_s
        self._rate = rate
        self._began_s: float | None = None
        self._since = deadletter.moment(time.time())
        self._lately: dict[bytes, None] = {}
        """Identities of letters, the latest last."""
        self.sent: Counter[str] = Counter()
        """Confirmed letters by where they went, in words."""

    def drive(self, task: Task) -> None:
        """Give the task its rate, and leave those alone that fail again meanwhile."""
        task.is_known, task.wait_turn, task.round_size = self.is_known, self.wait_turn, self._round_size

    async def send(self, letters: Sequence[Letter]) -> PublishError | None:
        """Send a round back; returns the first refusal. Letters that were refused stay."""
        new = [letter for letter in letters if not self._was_sent(letter)]
        now_s = time.time()
        messages = [letter.replayed(now_s) for letter in new]
        errors = await self._bus.publish(messages, timeout_s=self._timeout_s)
        for letter, message, error in zip(new, messages, errors, strict=True):
            # Confirmed first: where loss and duplication compete, duplication wins.
            if error is None:
                letter.forget()
                self._remember(letter.identity)
                self.sent[message.destination] += 1
        await self._bus.flush()
        return next((error for error in errors if error is not None), None)

    def is_known(self, letter: Letter) -> bool:
        """True for a letter that was sent back in this run and has failed again."""
        past = letter.past()
        return bool(past) and str(past[-1].get("replayed_at")) >= self._since

    def _was_sent(self, letter: Letter) -> bool:
        """A letter that came again because its ack was lost: forgotten now, not sent again."""
        if not letter.delivery.redelivered or letter.identity not in self._lately:
            return False
        letter.forget()
        return True

    def _remember(self, identity: bytes | None) -> None:
        if identity is None:
            return
        self._lately[identity] = None
        if len(self._lately) > REMEMBERED:
            del self._lately[next(iter(self._lately))]

    @property
    def _round_size(self) -> int:
        """How many letters to send at a time, so that the rate is even."""
        return ROUND if self._rate is None else max(1, min(ROUND, int(self._rate * SLOW_ROUND_S)))

    async def wait_turn(self) -> None:
        """Until so many may have been sent as were; what a burst leaves over is not made up for."""
        if self._rate is None:
            return
        now_s = time.monotonic()
        if self._began_s is None:
            self._began_s = now_s
        due_s = self._began_s + sum(self.sent.values()) / self._rate
        if due_s > now_s:
            await asyncio.sleep(due_s - now_s)
