"""Side tasks that may not die quietly: each is owned and watched, and the fault of one ends the service in order.

A settlement that failed would leave its messages unsettled for ever, a slot's would cost the slot; a stop hands them
back, and a service manager starts the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NoReturn

import structlog

_log = structlog.get_logger("penstock.reactor")


class SideTasks:
    """Starts tasks and remembers the first fault of any."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._fault: BaseException | None = None
        self._failed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<SideTasks [{len(self._tasks)} running, fault {self._fault!r}]>"

    def start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run it as a task with this name."""
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def wait_fault(self) -> NoReturn:
        """Raises the first fault of a side task; until then it waits."""
        await self._failed.wait()
        if self._fault is None:
            msg = "a side task failed without an exception"
            raise RuntimeError(msg)
        raise self._fault

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        _log.critical(
            "a fault of Penstock's own: the service stops, what it holds is handed back",
            task=task.get_name(),
            exc_info=error,
        )
        if self._fault is None:
            self._fault = error
            self._failed.set()
