"""Waiting for a server that may be frozen: only so long, and without waiting for the driver to give up too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
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


async def opened(seconds: float, opening: Coroutine[Any, Any, T], close: Callable[[T], object]) -> T:
    """What it opens. Raises `TimeoutError` when it takes longer.

    Should nobody wait for it any more it is not cut short, for half a connection would be nobody's: it is closed when it
    is there.
    """

    async def in_time() -> T:
        async with asyncio.timeout(seconds):
            return await opening

    task = asyncio.ensure_future(in_time())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        _given_up.add(task)
        task.add_done_callback(_ended)
        task.add_done_callback(partial(_close, close))
        raise


def _close(close: Callable[[T], object], task: asyncio.Task[T]) -> None:
    if not task.cancelled() and task.exception() is None:
        close(task.result())


def _ended(task: asyncio.Task[Any]) -> None:
    _given_up.discard(task)
    if not task.cancelled():
        # Nobody is left to hear of it.
        task.exception()
