"""An event loop in a daemon thread, for programs that have none: any of their threads publishes through it.

```
 submit ─▶ waiting ─▶ all that wait, as one batch ─▶ bus
    ▲                                                 │
    └────── a future's result ◀── publisher confirm ──┘
```
What bounds it: nobody submits more before the answer than it is ready to wait for; see `penstock.client`.

Forks. The thread and its loop do not exist in a child: there a client makes another one, and the parent's stays
untouched. A connection to a SQLite file must not even be open at that moment: a child that opens the same file
believes in locks that only its parent has, and writes into a log that the parent then deletes. It is closed before
the fork and opened again afterwards.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple

from penstock.app.messages import Outgoing
from penstock.buses.publisher import Answers, Publisher
from penstock.config.bus import BusSection
from penstock.errors import BusUnavailable, ClientError, ConfigurationError, PublishTimeout

#: How long an end waits for what is being published, and then so long again for the bus.
CLOSE_S: Final = 5.0


class _Request(NamedTuple):
    messages: Sequence[Outgoing]
    timeout_s: float
    answers: Future[Answers]


class PublisherThread:
    """Started when made, connected at the first message; ends with `close`, `stop` or the program.

    Raises `ClientError` when made while the program is ending, `BusUnavailable` when no thread or descriptor is left.
    """

    def __init__(self, section: BusSection) -> None:
        if _is_ending:
            raise ClientError("the program is ending and publishes no more; nothing was published")
        self._pid = os.getpid()
        self._crosses_forks = not section.is_embedded
        self._publisher = Publisher(section)
        self._waiting: deque[_Request] = deque()
        self._publishing: set[asyncio.Task[None]] = set()
        self._is_stopped = False
        self._stop = asyncio.Event()
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="penstock-client", daemon=True
        )
        try:
            self._thread.start()
            self._loop = started.result()
        except (OSError, RuntimeError) as error:
            raise BusUnavailable(f"no thread for the connection: {error}; nothing was published") from error
        _alive.add(self)

    @property
    def is_usable(self) -> bool:
        """False when it was stopped, and in every process but the one that made it."""
        return not self._is_stopped and self._pid == os.getpid()

    def submit(self, messages: Sequence[Outgoing], timeout_s: float) -> Future[Answers]:
        """Publish them; called by any thread, but never after `stop`.

        The future's result is one answer a message; it raises `BusUnavailable` when nothing was published.
        """
        request = _Request(messages, timeout_s, Future())
        self._waiting.append(request)
        self._loop.call_soon_threadsafe(self._take)
        return request.answers

    def stop(self) -> None:
        """End when what is being published has ended; returns at once, harmless when repeated or in a child."""
        if self.is_usable:
            self._is_stopped = True
            self._loop.call_soon_threadsafe(self._stop.set)

    def close(self) -> None:
        """Stop and wait for the end, which takes no longer than twice `CLOSE_S`."""
        self.stop()
        if self._pid == os.getpid():
            self._thread.join(2 * CLOSE_S + 1)

    # From here on: in the thread.

    def _run(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        try:
            asyncio.run(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)
        finally:
            _alive.discard(self)

    async def _serve(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        started.set_result(asyncio.get_running_loop())
        await self._stop.wait()
        # Submitted before the stop, so already a task.
        if self._publishing:
            await asyncio.wait(self._publishing, timeout=CLOSE_S)
        for task in self._publishing:
            task.cancel()
        if self._publishing:
            await asyncio.wait(self._publishing)
        closing = asyncio.create_task(self._publisher.aclose(), name="penstock-client-close")
        if closing in (await asyncio.wait((closing,), timeout=CLOSE_S))[0]:
            closing.result()

    def _take(self) -> None:
        waiting = list(self._waiting)
        self._waiting.clear()
        for timeout_s, requests in groupby(waiting, attrgetter("timeout_s")):
            task = asyncio.create_task(
                self._publish(list(requests), timeout_s), name="penstock-client-publish"
            )
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)

    async def _publish(self, requests: Sequence[_Request], timeout_s: float) -> None:
        messages = [message for request in requests for message in request.messages]
        try:
            answers = iter(await self._publisher.publish(messages, timeout_s))
        except (BusUnavailable, ConfigurationError) as error:
            for request in requests:
                request.answers.set_exception(type(error)(str(error)))
        except asyncio.CancelledError:
            for request in requests:
                request.answers.set_exception(
                    PublishTimeout(f"the client was closed before the confirm came; {_REPEAT}")
                )
        except Exception as error:  # noqa: BLE001 - whoever waits is told; the thread goes on for the others
            for request in requests:
                unknown = PublishTimeout(f"the bus failed ({type(error).__name__}: {error}); {_REPEAT}")
                unknown.__cause__ = error
                request.answers.set_exception(unknown)
        else:
            for request in requests:
                request.answers.set_result([next(answers) for _ in request.messages])


_REPEAT: Final = "probably delivered, repeat it with the same id"

#: Every thread of this process; changed by single operations that the interpreter does not interrupt.
_alive: set[PublisherThread] = set()
#: What a child has inherited. Kept for ever: an event loop that is collected closes what is still the parent's.
_inherited: list[PublisherThread] = []
_is_ending = False


def close_before_fork() -> None:
    """Close what must not cross a fork; nobody may submit until it is over."""
    for thread in list(_alive):
        if not thread._crosses_forks:  # noqa: SLF001 - its own module
            thread.close()


def disown_after_fork() -> None:
    """In the child: these are the parent's."""
    _inherited.extend(_alive)
    _alive.clear()


def _end() -> None:
    global _is_ending  # noqa: PLW0603 - the interpreter ends once
    _is_ending = True
    threads = list(_alive)
    for thread in threads:
        thread.stop()
    for thread in threads:
        thread.close()


atexit.register(_end)
