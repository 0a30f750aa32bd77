"""Publish from any program: `Client` blocks, `AsyncClient` is awaited. Both confirm and reconnect, neither loads handlers.

```
 Client.publish ─▶ PublisherThread (a loop of its own) ─┐
                                                        ├─▶ Publisher ─▶ bus
 AsyncClient.publish (the program's loop) ──────────────┘
```

What bounds it: a thread waits for its own message, and `publish_many` has one window of messages under way.
A message is confirmed before `publish` returns, so a program that ends loses nothing that it was told of.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Self, Unpack
from weakref import WeakSet, finalize

from pydantic import SecretStr, ValidationError

from penstock.app.messages import Outgoing
from penstock.app.options import Options
from penstock.app.parcels import (
    Item,
    Packer,
    Parcel,
    Published,
    Publishing,
    messages_of,
    results_of,
)
from penstock.app.payloads import make_outgoing
from penstock.buses import publisher_thread
from penstock.buses.publisher import Answers, Publisher, place_of
from penstock.buses.publisher_thread import PublisherThread
from penstock.config import Settings, load_settings
from penstock.config.bus import BusSection
from penstock.errors import ClientError, ConfigurationError, PayloadError, PublishTimeout

#: The bus keeps the timeout itself; a caller's thread waits so much longer before it stops believing that.
GRACE_S: Final = 5.0


class Client:
    """Publishes from a program's threads; connects at the first message, and again after a cut.

    `url` is `amqp://…`, `amqps://…` or `sqlite:///…`; without it the bus of the settings is meant. `timeout` is
    the default limit of one publish in seconds. Any number of threads may share a client, and so may a forked
    child: it gets a connection of its own. It closes with `close`, `with`, when nobody holds it any more, and at
    the end of the program. Raises `ConfigurationError` for a URL that is no bus.
    """

    def __init__(
        self, url: str | None = None, *, timeout: float | None = None, settings: Settings | None = None
    ) -> None:
        self._section = _section(url, settings)
        self._timeout_s = _positive(timeout, self._section.confirm_timeout_s)
        # Reentrant: a signal handler that forks may have interrupted the thread that holds it.
        self._lock = threading.RLock()
        self._line: PublisherThread | None = None
        self._is_closed = False
        with _clients_lock:
            _clients.add(self)

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "idle" if self._line is None else "open"
        return f"<Client {place_of(self._section)} [{state}]>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def publish(
        self,
        queue_or_payload: Any,
        payload: Any = ...,
        *,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> str:
        """Publish one message and wait for the publisher confirm; returns its id.

        `publish(queue, payload)` goes to a queue, `publish(payload, exchange=…, routing_key=…)` to an exchange.
        `timeout` in seconds covers everything, connecting too. Raises `PayloadError` for what cannot be written,
        `Unroutable` when no queue is there, `PublishTimeout` when it was probably delivered (repeat it with the
        same id), another `PublishError` or `BusUnavailable` when it was not; `ClientError` in an event loop's thread.
        """
        message = make_outgoing(queue_or_payload, payload, **options)
        timeout_s = _positive(timeout, self._timeout_s)
        error = _result(self._submit([message], timeout_s), timeout_s)[0]
        if error is not None:
            raise error
        return message.message_id

    def publish_many(
        self, messages: Iterable[Item], *, window: int = 1000, timeout: float | None = None
    ) -> Publishing:
        """Publish a stream of `(queue, payload)` with pipelined confirms; iterate over the results, or `.wait()`.

        At most `window` messages are under way at once; they leave by the quarter of it. A message's failure is
        its result's `error`. Raises `BusUnavailable` while it is iterated, when the bus cannot be reached.
        """
        return Publishing(self._results(messages, Packer(window), _positive(timeout, self._timeout_s)))

    def close(self) -> None:
        """Let what other threads are publishing end, and close the connection; harmless when repeated."""
        with self._lock:
            self._is_closed = True
            line, self._line = self._line, None
        if line is not None:
            line.close()

    def _results(self, messages: Iterable[Item], packer: Packer, timeout_s: float) -> Iterator[Published]:
        under_way: deque[tuple[Parcel, Future[Answers]]] = deque()
        for item in messages:
            full = packer.add(item)
            if full is None:
                continue
            if len(under_way) == packer.in_window:
                parcel, answers = under_way.popleft()
                yield from results_of(parcel, _result(answers, timeout_s))
            under_way.append((full, self._submit(messages_of(full), timeout_s)))
        rest = packer.take()
        under_way.append((rest, self._submit(messages_of(rest), timeout_s)))
        for parcel, answers in under_way:
            yield from results_of(parcel, _result(answers, timeout_s))

    def _submit(self, messages: Sequence[Outgoing], timeout_s: float) -> Future[Answers]:
        _refuse_in_loop()
        with self._lock:
            if self._is_closed:
                raise ClientError(f"{self!r} was closed; make another one. Nothing was published")
            if self._line is None or not self._line.is_usable:
                self._line = PublisherThread(self._section)
                # It returns at once, because it may run in any thread, inside anything.
                finalize(self, self._line.stop).atexit = False
            return self._line.submit(messages, timeout_s)


class AsyncClient:
    """Publishes from coroutines of one event loop; connects at the first message, and again after a cut.

    The arguments are those of `Client`. Close it with `async with`, or `aclose`.
    """

    def __init__(
        self, url: str | None = None, *, timeout: float | None = None, settings: Settings | None = None
    ) -> None:
        self._section = _section(url, settings)
        self._timeout_s = _positive(timeout, self._section.confirm_timeout_s)
        self._publisher = Publisher(self._section)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "idle" if self._loop is None else "open"
        return f"<AsyncClient {place_of(self._section)} [{state}]>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def publish(
        self,
        queue_or_payload: Any,
        payload: Any = ...,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it says what has become of the message
        **options: Unpack[Options],
    ) -> str:
        """As `Client.publish`, awaited; when it is cancelled, the message is probably delivered."""
        message = make_outgoing(queue_or_payload, payload, **options)
        error = (await self._send([message], _positive(timeout, self._timeout_s)))[0]
        if error is not None:
            raise error
        return message.message_id

    async def publish_many(
        self,
        messages: Iterable[Item] | AsyncIterable[Item],
        *,
        window: int = 1000,
        timeout: float | None = None,  # noqa: ASYNC109 - of each message, not of the iteration
    ) -> AsyncIterator[Published]:
        """As `Client.publish_many`: `async for result in client.publish_many(…)`."""
        packer = Packer(window)
        timeout_s = _positive(timeout, self._timeout_s)
        under_way: deque[tuple[Parcel, asyncio.Task[Answers]]] = deque()

        def send(parcel: Parcel) -> None:
            under_way.append((parcel, asyncio.create_task(self._send(messages_of(parcel), timeout_s))))

        async def results() -> Iterator[Published]:
            parcel, answers = under_way[0]
            found = results_of(parcel, await answers)
            under_way.popleft()
            return found

        try:
            async for item in _iterated(messages):
                full = packer.add(item)
                if full is None:
                    continue
                if len(under_way) == packer.in_window:
                    for result in await results():
                        yield result
                send(full)
            send(packer.take())
            while under_way:
                for result in await results():
                    yield result
        finally:
            left = [task for _, task in under_way]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def aclose(self) -> None:
        """Close the connection; harmless when repeated."""
        self._is_closed = True
        await self._publisher.aclose()

    async def _send(self, messages: Sequence[Outgoing], timeout_s: float) -> Answers:
        if self._is_closed:
            raise ClientError(f"{self!r} was closed; make another one. Nothing was published")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ClientError(
                f"{self!r} belongs to another event loop; make one in each asyncio.run(…), or use Client, which any "
                "thread may share. Nothing was published"
            )
        return await self._publisher.publish(messages, timeout_s)


_default: Client | None = None
_default_lock = threading.RLock()


def default_client() -> Client:
    """The process's own client, made from the settings when it is first asked for; `Handler.send` publishes with it.

    Raises `ConfigurationError` when the settings cannot be used.
    """
    global _default  # noqa: PLW0603 - one a process, as the name says
    with _default_lock:
        if _default is None or _default._is_closed:  # noqa: SLF001 - its own module
            _default = Client()
        return _default


def _result(answers: Future[Answers], timeout_s: float) -> Answers:
    try:
        return answers.result(timeout_s + GRACE_S)
    except TimeoutError as error:
        text = (
            f"no answer from the bus within {timeout_s:g} s; probably delivered: repeat it with the same id"
        )
        raise PublishTimeout(text) from error


def _refuse_in_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ClientError(
        "Client waits, and this thread runs an event loop, which would stand still: use AsyncClient here, or "
        "await asyncio.to_thread(client.publish, …); in a handler ctx.bus.publish. Nothing was published"
    )


def _section(url: str | None, settings: Settings | None) -> BusSection:
    if url is None:
        return (settings or load_settings()).bus
    given = settings.bus.model_dump() if settings is not None else {}
    try:
        return BusSection.model_validate({**given, "url": SecretStr(url)})
    except ValidationError as error:
        # Without the value met: it may hold a password.
        raise ConfigurationError(f"the client's url cannot be used: {error.errors()[0]['msg']}") from None


def _positive(timeout: float | None, default_s: float) -> float:
    if timeout is None:
        return default_s
    if not timeout > 0:
        raise PayloadError(f"timeout={timeout!r}: a positive number of seconds; nothing was published")
    return timeout


async def _iterated(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


# --- Forks: no thread of this process may be in the middle of anything here, and a child starts with fresh locks.

_clients: WeakSet[Client] = WeakSet()
_clients_lock = threading.RLock()
_forking: list[Client] = []


def _before_fork() -> None:
    _default_lock.acquire()
    _clients_lock.acquire()
    _forking[:] = _clients
    for client in _forking:
        client._lock.acquire()  # noqa: SLF001 - its own module
    publisher_thread.close_before_fork()


def _after_fork_in_parent() -> None:
    for client in _forking:
        client._lock.release()  # noqa: SLF001
    _forking.clear()
    _clients_lock.release()
    _default_lock.release()


def _after_fork_in_child() -> None:
    global _clients_lock, _default_lock
    _clients_lock, _default_lock = threading.RLock(), threading.RLock()
    for client in _forking:
        client._lock = threading.RLock()  # noqa: SLF001
    _forking.clear()
    publisher_thread.disown_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
