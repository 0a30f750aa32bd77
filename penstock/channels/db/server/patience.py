"""Waiting for a server that may be frozen: only so long, and without waiting for the driver to give up too."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# What was given up, until it has ended: a task that nobody holds may vanish.
_given_up: set[asyncio.Task[Any]] = set()


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What it returns. Raises `TimeoutError` when it takes longer; it is cancelled then, and left to itself.

    A driver that is cancelled may ask the server to cancel as well, and wait for the answer.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if done:
        return task.result()
    _given_up.add(task)
    task.add_done_callback(_ended)
    task.cancel()
    msg = f"the database server did not answer for {seconds:g} s"
    raise TimeoutError(msg)


def _ended(task: asyncio.Task[Any]) -> None:
    _given_up.discard(task)
    if not task.cancelled():
        # Nobody is left to hear of it.
        task.exception()
