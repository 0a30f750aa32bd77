"""Calls on a consuming AMQP channel: one sequence after the other, each to its end.

aiormq closes an AMQP channel when a call on it is cancelled, and every delivery on it comes again. So the calls run in
tasks that nobody cancels: who asked for them and is cancelled leaves them running. The end of their connection ends them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from aiormq.abc import AbstractConnection
from aiormq.exceptions import InvalidFrameError

from penstock.buses.rabbitmq.broken import broken_is_an_error

#: aiormq fails the calls of a connection that ends; one that it forgets is given up after so long.
FORGOTTEN_S: Final = 1.0


class Turns:
    """Takes turns on one AMQP channel; `on_out_of_step` is called when its answers no longer belong to its calls.

    RabbitMQ answers the cancellation of a consumer twice when its queue is deleted at that moment. aiormq takes the
    second one for the answer to the next call, that one's answer for the next but one, and so on for ever.
    """

    def __init__(self, on_out_of_step: Callable[[], None] = lambda: None) -> None:
        self._on_out_of_step = on_out_of_step
        self._one = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def finish(self, doing: Coroutine[Any, Any, None]) -> None:
        """Do it to its end, whatever happens to who waits here. Raises what it raises."""
        task = asyncio.create_task(doing, name="penstock-consumers")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Unlike `await task`, this leaves the task alone when we are cancelled.
        await asyncio.wait((task,))
        if not task.cancelled():
            task.result()

    @asynccontextmanager
    async def turn(self, connection: AbstractConnection) -> AsyncIterator[None]:
        """Hold the turn inside the block, which raises one of `BROKEN` soon after the connection ends, if not before."""
        async with self._one, asyncio.timeout(None) as limit:
            lost = connection.closing
            is_over = False

            def give_up(_: object) -> None:
                # Its call may be under way when the turn ends.
                if not is_over:
                    limit.reschedule(asyncio.get_running_loop().time() + FORGOTTEN_S)

            lost.add_done_callback(give_up)
            try:
                with broken_is_an_error():
                    yield
            except InvalidFrameError:
                self._on_out_of_step()
                raise
            finally:
                is_over = True
                # An observer of our own; left alone it would stay with the connection as long as that lives.
                lost.cancel()

    async def give_up(self) -> None:
        """End what still runs; for the moment in which the AMQP channel is closed anyway."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FORGOTTEN_S)
