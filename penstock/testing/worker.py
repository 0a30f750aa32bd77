"""One message, the real way, in this process and thread.

```
 payload ─▶ body ─▶ decode ─▶ handler ─▶ commit ─▶ outcome ─▶ decide ─▶ Result
                                 │ ctx.connection, ctx.session: the worker's own connection
                                 └ ctx.db, ctx.bus.publish_now: the channel ══▶ a loop in a thread
```
"""

from __future__ import annotations

import asyncio
import copy
import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from random import Random
from types import SimpleNamespace, TracebackType
from typing import Any, Self, TypeVar

from pydantic import SecretStr

from penstock.app.application import App
from penstock.app.handlers import AnyHandler, Handler
from penstock.app.messages import HeaderValue, History, Outgoing
from penstock.app.outcomes import Outcome, Returned
from penstock.app.payloads import encode_payload
from penstock.buses.contract import Delivery, Told
from penstock.channels import jobs
from penstock.channels.bus import BusService
from penstock.channels.db.exact import is_server
from penstock.channels.db.preparing import Preparer
from penstock.channels.db.service import DatabaseService
from penstock.channels.jobs import Batch
from penstock.channels.plan import WorkerPlan
from penstock.channels.recorder import Recorder
from penstock.channels.service import Caller, Service
from penstock.channels.serving import ChannelServer
from penstock.config.database import DatabaseSection
from penstock.config.limits import LimitsSection
from penstock.config.workers import WorkersSection
from penstock.errors import HandlerError, PayloadError, PublishError
from penstock.reactor.coroutines import Coroutines
from penstock.reactor.decide import Judge
from penstock.reactor.side_tasks import SideTasks
from penstock.reactor.work import Served, Work, job_of
from penstock.testing.modules import importable
from penstock.testing.result import Result, Sent
from penstock.workers import entry

T = TypeVar("T")


def run(
    source: AnyHandler | App,
    payload: Any = ...,
    *,
    queue: str | None = None,
    database: str | None = None,
    state: SimpleNamespace | None = None,
    **message: Any,
) -> Result:
    """Run one message through a handler, or through an application's handler of `queue`.

    `database` and `state` are those of `Worker`, the rest those of `Worker.run`.
    """
    if isinstance(source, App) and queue is None and len(source.handlers) != 1:
        raise HandlerError("run(app, payload, queue=…): say for which of its queues the message is")
    with Worker(source, database=database, state=state) as worker:
        return worker.run(queue or worker.queues[0], payload, **message)


class Worker:
    """A worker in this process, for one handler or all of an application; use it as a context manager.

    `database` is the SQLAlchemy URL for `ctx.connection`, `ctx.session` and `ctx.db`. An application's start and
    stop hooks run, unless `state` is given as what they would have made. A plain handler's `timeout` is not kept.
    """

    def __init__(
        self, source: AnyHandler | App, *, database: str | None = None, state: SimpleNamespace | None = None
    ) -> None:
        self._database = DatabaseSection(url=None if database is None else SecretStr(database))
        self._limits = LimitsSection()
        self._state = SimpleNamespace() if state is None else state
        self._caught: BaseException | None = None
        self._sent_now: list[Outgoing] = []
        self._app = App()
        for handler in source.handlers if isinstance(source, App) else (source,):
            self._app._add(_noting(handler, self._note))  # noqa: SLF001 - as `include` does with a router
        if isinstance(source, App) and state is None:
            for hook in source.start_hooks:
                self._app.on_worker_start(hook)
            for hook in reversed(source.stop_hooks):
                self._app.on_worker_stop(hook)
        self._plain = [handler for handler in self._app.handlers if not handler.is_async]
        self._by_queue = {handler.queue.name: handler for handler in self._app.handlers}
        self._judge = Judge(WorkersSection().crash_attempts, Random(0))
        self._loop: _Loop | None = None
        self._worker: entry.Worker | None = None

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues whose messages it takes."""
        return tuple(self._by_queue)

    def __enter__(self) -> Self:
        self._loop = _Loop()
        try:
            sock = self._loop.run(self._start())
            if self._plain:
                self._boot(sock)
            else:
                sock.close()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def run(
        self,
        handler: AnyHandler | str,
        payload: Any = ...,
        *,
        body: bytes | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        id: str | None = "test-message",  # noqa: A002 - the public word
        headers: Mapping[str, HeaderValue] | None = None,
        attempt: int = 1,
        redelivered: bool = False,
        redelivered_after: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
    ) -> Result:
        """Run one message through a handler, named by itself or by its queue.

        The message is `payload`, written as a client writes it, or `body` as it is. `attempt` is 1 in the first run;
        `redelivered_after="commit unknown"` is what the run after a commit without an answer is told.
        Raises `HandlerError` for a queue that nobody here handles, `PayloadError` for a payload no client could send.
        """
        name = handler.queue.name if isinstance(handler, Handler) else handler
        if name not in self._by_queue:
            raise HandlerError(f"no handler of queue {name!r} here; there are: {', '.join(self._by_queue)}")
        if (payload is ...) is (body is None):
            raise PayloadError("give the message as a payload, or as body=b'…' as it is")
        if body is None:
            body, written_as = encode_payload(payload)
            content_type = content_type or written_as
        found = self._by_queue[name]
        delivery = Delivery(
            queue=name,
            tag=1,
            settler=_Nobody(),
            body=body,
            message_id=id,
            content_type=content_type,
            content_encoding=content_encoding,
            headers=headers or {},
            correlation_id=correlation_id,
            reply_to=reply_to,
            timestamp_s=time.time(),
            redelivered=redelivered,
            history=History(
                attempts=attempt - 1,
                first_failed_at_s=time.time() if attempt > 1 else 0.0,
                commit_unknown=redelivered_after is not None,
            ),
        )
        self._caught = None
        self._sent_now.clear()
        outcome = self._handle(found, delivery)
        return Result(
            outcome=outcome,
            decision=self._judge.decide(outcome, delivery, found, now_s=time.time()),
            published=tuple(map(Sent, outcome.published)) if isinstance(outcome, Returned) else (),
            published_now=tuple(map(Sent, self._sent_now)),
            error=self._caught,
        )

    def _handle(self, handler: AnyHandler, delivery: Delivery) -> Outcome:
        if self._loop is None:
            raise HandlerError("the worker is not running: with penstock.testing.Worker(…) as worker: …")
        if handler.is_async:
            return self._loop.run(self._handle_on_loop(handler, delivery))
        assert self._worker is not None
        work = Work(delivery, Served(self._plain.index(handler), handler, prefetch=1))
        # To bytes and back, as on its way into a process.
        (job,) = jobs.decode_batch(jobs.encode(Batch(1, [job_of(work)]))).jobs
        try:
            return self._worker.executor.run(job)
        finally:
            self._worker.executor.rest()

    async def _handle_on_loop(self, handler: AnyHandler, delivery: Delivery) -> Outcome:
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        served = Served(0, handler, prefetch=1)
        coroutines = Coroutines(
            [served],
            self._services,
            SideTasks(),
            limits=self._limits,
            preparer=self._preparer,
            settle=lambda works: ended.set_result(works[0][1]),
            state=self._state,
        )
        coroutines.start(Work(delivery, served))
        return await ended

    async def _start(self) -> socket.socket:
        self._db = DatabaseService(self._database, frame_bytes=self._limits.frame_bytes)
        self._preparer = Preparer(is_server=is_server(self._database))
        self._services: Mapping[str, Service] = {"bus": BusService(self._publish_now, 1.0), "db": self._db}
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._server = await ChannelServer.start(
            ours,
            self._services,
            Caller("worker under test", is_worker=True),
            limit_bytes=self._limits.frame_bytes,
            on_ended=_ignore,
            on_line=_ignore,
        )
        try:
            await self._db.start()
        except BaseException:
            theirs.close()
            raise
        return theirs

    def _boot(self, sock: socket.socket) -> None:
        with importable(self._app) as address:
            plan = WorkerPlan(
                app=address,
                queues=tuple(handler.queue.name for handler in self._plain),
                slot="test",
                database=self._database,
                limits=self._limits,
                start_method="forkserver",
                log_level="info",
                in_process=True,
            )
            recorder = Recorder.create()
            self._worker = worker = entry.Worker(plan, sock.detach(), os.dup(recorder.fd), state=self._state)
            recorder.close()
            try:
                worker.boot()
            except BaseException:
                self._worker = None
                worker.abandon()
                raise

    def _close(self) -> None:
        worker, self._worker = self._worker, None
        loop, self._loop = self._loop, None
        if worker is not None:
            worker.close()
        if loop is not None:
            loop.run(self._stop())
            loop.close()

    async def _stop(self) -> None:
        self._server.close()
        await self._server.eof
        await self._server.wait_calls_forgotten()
        await self._db.aclose()

    async def _publish_now(
        self,
        messages: Sequence[Outgoing],
        timeout_s: float,  # noqa: ARG002 - confirmed at once
    ) -> list[PublishError | None]:
        self._sent_now += messages
        return [None] * len(messages)

    def _note(self, error: BaseException) -> None:
        self._caught = error


class _Loop:
    """An event loop in a thread, for what a service has on its own."""

    def __init__(self) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="penstock-testing"
        )
        self._thread.start()
        self._loop = started.result()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it there and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        started.set_result(asyncio.get_running_loop())
        await self._stop.wait()


class _Nobody:
    """Settles nothing: there is no bus."""

    is_gone = False

    def ack(self, tag: int, told: Told | None = None) -> bool:  # noqa: ARG002 - the settler's shape
        return True

    def requeue(self, tag: int) -> bool:  # noqa: ARG002
        return True


def _noting(handler: AnyHandler, note: Callable[[BaseException], None]) -> AnyHandler:
    """The same handler, which tells `note` what it raises: a result can show the exception itself."""
    function = handler.function

    @functools.wraps(function)
    def noted(*args: Any) -> Any:
        try:
            return function(*args)
        except BaseException as error:
            note(error)
            raise

    @functools.wraps(function)
    async def noted_on_loop(*args: Any) -> Any:
        try:
            return await function(*args)
        except BaseException as error:
            note(error)
            raise

    noting = copy.copy(handler)
    noting.function = noted_on_loop if handler.is_async else noted
    return noting


def _ignore(_: object) -> None:
    """Nobody listens."""
