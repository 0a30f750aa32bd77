"""Is the service ready? One answer for the probe, the health file and systemd."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from penstock.health.database import DatabaseWatch


class Readiness:
    """Asks everybody who has to be ready; on the loop.

    `why_not_ready` and `warn` are the reactor's, in words; `stopping` is set once a stop was requested.
    """

    def __init__(
        self,
        why_not_ready: Callable[[], list[str]],
        database: DatabaseWatch | None,
        stopping: asyncio.Event,
        warn: Callable[[], list[str]] = list,
    ) -> None:
        self._why_not_ready = why_not_ready
        self._database = database
        self._stopping = stopping
        self._warn = warn

    def __repr__(self) -> str:
        return f"<Readiness [{', '.join(self.why_not()) or 'ready'}]>"

    @property
    def is_stopping(self) -> bool:
        """True once a stop was requested."""
        return self._stopping.is_set()

    async def wait_stopping(self, timeout_s: float) -> None:
        """Returns once a stop is requested, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._stopping.wait()

    def why_not(self) -> tuple[str, ...]:
        """Everything that is missing, in words; empty when the service is ready."""
        if self.is_stopping:
            return ("it is stopping",)
        words = self._why_not_ready()
        if self._database is not None and (why := self._database.why_not()) is not None:
            words.append(why)
        return tuple(words)

    def warnings(self) -> tuple[str, ...]:
        """What should be known and does not make it unready, in words."""
        return tuple(self._warn())
