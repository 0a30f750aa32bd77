"""What is known of one worker's end: gathered while it lives, because a dead process cannot be asked."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Final

from penstock.channels.evidence import Evidence
from penstock.reactor.batch_end import Death
from penstock.reactor.processes import count_memory_kills, how_it_ended, peak_bytes

#: How long a worker that is about to be killed has for writing its stack, and how often is looked whether it has.
STACK_WAIT_S: Final = 0.25
STACK_STEP_S: Final = 0.01


class Postmortem:
    """One for each worker process; made before it starts, closed when its death has been told."""

    def __init__(self) -> None:
        self.evidence = Evidence.create()
        self._peak_bytes = 0
        self._memory_kills = count_memory_kills()

    def note_memory(self, pid: int | None) -> None:
        """Look how much memory the process has had at most so far."""
        self._peak_bytes = max(self._peak_bytes, peak_bytes(pid))

    async def wait_stack(self) -> None:
        """Until what the worker writes of its stack no longer grows; a frozen process writes nothing."""
        before = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(STACK_WAIT_S):
                while (size := self.evidence.size_bytes) != before or not size:
                    before = size
                    await asyncio.sleep(STACK_STEP_S)

    def death(
        self, process: BaseProcess | None, because: str | None, noted_bytes: int, *, blameless: bool
    ) -> Death:
        """The whole of it; `because` is why we killed it, `noted_bytes` the memory that the worker noted itself."""
        how = because or how_it_ended(process, memory_ran_out=count_memory_kills() > self._memory_kills)
        return Death(how, max(self._peak_bytes, noted_bytes), self.evidence.read(), blameless)
