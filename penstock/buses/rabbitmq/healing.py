"""Trying again until a consuming AMQP channel is well, with full jitter between the attempts and one of them at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Final

import structlog

from penstock.app.backoff import Backoff

_WAITS: Final = Backoff(first_s=0.05, cap_s=3.0)

_log = structlog.get_logger("penstock.buses.rabbitmq")


class Healing:
    """The attempts of one AMQP channel, and what was told of them."""

    def __init__(self, attempt: Callable[[], Awaitable[bool]], random: Random) -> None:
        """`attempt` returns False when there has to be another one."""
        self._attempt = attempt
        self._random = random
        self._attempts: asyncio.Task[None] | None = None
        self._refused: list[str] = []

    def begin(self) -> None:
        """After a moment, and again until an attempt says that it was the last; harmless while that goes on."""
        if self._attempts is None or self._attempts.done():
            self._attempts = asyncio.create_task(self._go_on(), name="penstock-heal")

    def stop(self) -> None:
        """Cancels the wait for the next attempt; one that has begun must go on to its end by itself."""
        attempts, self._attempts = self._attempts, None
        if attempts is not None:
            attempts.cancel()

    def say_refused(self, lines: Sequence[str]) -> None:
        """Why queues cannot be consumed, told once a change and not once an attempt."""
        for line in lines:
            if line not in self._refused:
                _log.error(
                    "a queue cannot be consumed any more: tried again every few seconds; its messages wait in it",
                    why=line,
                )
        self._refused = list(lines)

    async def _go_on(self) -> None:
        for failures in itertools.count(1):
            await asyncio.sleep(_WAITS.delay_s(failures, self._random))
            if await self._attempt():
                return
