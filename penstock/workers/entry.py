"""What the reactor submits to a slot's executor: boot, batch after batch, and the end.

The module is preloaded into the fork server, so that a worker boots in milliseconds; it imports no bus.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import current_process, reduction
from types import SimpleNamespace
from typing import Any, Final

import structlog

from penstock.app.application import App, load_app
from penstock.app.failure import failure_of
from penstock.app.handlers import refuse_send
from penstock.app.logs import quiet_libraries
from penstock.app.outcomes import DONE, Outcome
from penstock.channels import jobs
from penstock.channels.bus import BusStub
from penstock.channels.db.exact import is_server
from penstock.channels.db.stub import DatabaseStub
from penstock.channels.dbapi.link import attach, detach
from penstock.channels.evidence import Evidence
from penstock.channels.jobs import BootReport, Report
from penstock.channels.plan import WorkerPlan
from penstock.channels.recorder import Mark, Phase, Recorder
from penstock.channels.stub import Channel
from penstock.errors import ConnectionMisused, HandlerError, PenstockError
from penstock.workers.adopted import AdoptedDatabase
from penstock.workers.connection import OwnConnection
from penstock.workers.database.kinds import channel_kind
from penstock.workers.deadline import SoftDeadline
from penstock.workers.execute import Executor
from penstock.workers.lifeline import die_with_reactor, ignore_stop_signals
from penstock.workers.output import LogToChannel, PrintToChannel, structlog_processor
from penstock.workers.ways import DatabaseWays

#: Set where this module was imported; a worker of the fork server finds its parent's pid here.
LOADED_IN_PID: Final = os.getpid()
#: Settings that no worker needs and no handler should find.
_SECRET_VARIABLES: Final = ("PENSTOCK_BUS__URL", "PENSTOCK_HTTP__TOKEN")


class InheritedDescriptor:
    """A file descriptor on its way into a child that is being started."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _detach, (reduction.DupFd(self.fd),)


def _detach(duplicate: Any) -> InheritedDescriptor:
    return InheritedDescriptor(duplicate.detach())


class Worker:
    """Everything one worker holds; made at boot, with no application and no open connection yet."""

    def __init__(
        self,
        plan: WorkerPlan,
        channel_fd: int,
        recorder_fd: int,
        evidence_fd: int | None = None,
        *,
        state: SimpleNamespace | None = None,
    ) -> None:
        """`evidence_fd` is for a process of its own: in somebody else's nothing is armed."""
        self._plan = plan
        self._state = SimpleNamespace() if state is None else state
        self._app = App()
        self._recorder = Recorder(recorder_fd)
        self._evidence = None if evidence_fd is None else Evidence(evidence_fd)
        self._deadline = SoftDeadline(usable=not plan.in_process)
        self._channel = Channel(
            socket.socket(fileno=channel_fd),
            limit_bytes=plan.limits.frame_bytes,
            shield=self._deadline.shield,
        )
        is_adopted = plan.database.session is not None or plan.database.engine is not None
        self._database = (AdoptedDatabase if is_adopted else OwnConnection)(
            plan.database, log=structlog.get_logger("penstock.database")
        )
        self._database.before_transaction = self._before_transaction
        self._database.while_waiting = self._while_waiting
        over_channel = OwnConnection(
            plan.database, log=structlog.get_logger("penstock.database"), find_kind=channel_kind
        )
        over_channel.before_transaction = partial(self._recorder.enter, Phase.IN_TRANSACTION)
        self._ways = DatabaseWays(self._database, over_channel)
        self._db = DatabaseStub(self._channel, guard=self._guard, is_server=is_server(plan.database))
        self.executor = Executor(
            slot=plan.slot,
            body_bytes=plan.limits.body_bytes,
            database=self._ways,
            bus=BusStub(self._channel),
            db=self._db,
            state=self._state,
            deadline=self._deadline,
            recorder=self._recorder,
        )

    def boot(self) -> None:
        """Import the application, open the connection, run the start hooks."""
        if not self._plan.in_process:
            _become_worker(self._plan)
            if self._evidence is not None:
                self._evidence.arm()
            self._take_over_output()
        self._deadline.install()
        self._app = load_app(self._plan.app)
        by_queue = {handler.queue.name: handler for handler in self._app.handlers}
        gone = [queue for queue in self._plan.queues if queue not in by_queue]
        if gone:
            msg = (
                f"application {self._plan.app!r} has no handler any more for {', '.join(map(repr, gone))}, which the "
                "service consumes: start the service again to change its queues"
            )
            raise HandlerError(msg)
        handlers = [by_queue[queue] for queue in self._plan.queues]
        self.executor.serve(handlers)
        attach(self._db.link)
        self._ways.open(handlers, workers=self._plan.workers)
        for hook in self._app.start_hooks:
            hook(self._state)

    def run(self, batch: jobs.Batch) -> Report:
        """Run the batch's deliveries until the reactor takes the rest back."""
        recorder, number = self._recorder, batch.number
        recorder.begin_batch(number, len(batch.jobs))
        run_ns: list[int] = []
        for index, job in enumerate(batch.jobs):
            if not recorder.begin(number, index):
                break
            began_ns = time.perf_counter_ns()
            outcome: Outcome = self.executor.run(job)
            if outcome is DONE:
                recorder.end(index, Mark.ACKED)
            else:
                self._channel.ended(number, index, outcome)
                recorder.end(index, Mark.TOLD)
            run_ns.append(time.perf_counter_ns() - began_ns)
        self.executor.rest()
        recorder.rest()
        return Report(recorder.marks(len(batch.jobs)), run_ns)

    def close(self) -> None:
        """Run the stop hooks and close the connection, so that the server sees an orderly goodbye."""
        for hook in self._app.stop_hooks:
            try:
                hook(self._state)
            except Exception:  # noqa: BLE001 - the author's code; told, and the next hook still runs
                structlog.get_logger("penstock.worker").exception(
                    "a worker's stop hook failed; the worker goes on closing"
                )
        self.abandon()

    def abandon(self) -> None:
        """Close what is open and run no hook: all that is left for a worker in this process that never was ready."""
        self._ways.close()
        detach(self._db.link)
        self._channel.close()
        self._recorder.close()

    def _before_transaction(self) -> None:
        if self._db.in_transaction and self._database.sqlite_path is not None:
            msg = (
                f"ctx.connection would write to {self._database.sqlite_path} inside ctx.db.transaction(), which holds the "
                "file's only write lock: each would wait for the other. Use one of the two in a message, or end the "
                "transaction before"
            )
            raise ConnectionMisused(msg)
        self._recorder.enter(Phase.IN_TRANSACTION)

    @contextmanager
    def _while_waiting(self) -> Iterator[None]:
        began_s = time.monotonic()
        with self._recorder.paused(), self._deadline.paused():
            yield
        self.executor.note_wait(time.monotonic() - began_s)

    def _guard(self, writes: bool) -> None:  # noqa: FBT001 - the stub's callback
        self._database.check_channel_use(writes=writes)

    def _take_over_output(self) -> None:
        fields = self.executor.fields
        level = logging.getLevelNamesMapping()[self._plan.log_level.upper()]
        root = logging.getLogger()
        root.handlers[:] = [LogToChannel(self._channel, fields)]
        root.setLevel(level)
        quiet_libraries()
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.format_exc_info,
                structlog_processor(self._channel, fields),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            cache_logger_on_first_use=True,
        )
        sys.stdout = PrintToChannel(self._channel, fields, "info")
        sys.stderr = PrintToChannel(self._channel, fields, "warning")


_inherited: tuple[int, int, int | None] | None = None
_worker: Worker | None = None


def begin_process(
    channel: InheritedDescriptor,
    recorder: InheritedDescriptor,
    evidence: InheritedDescriptor,
    start_method: str,
) -> None:
    """The initializer of an executor with processes: whatever becomes of the reactor, this one dies with it.

    Not later: a reactor that is killed before it has sent the plan would leave a worker that waits for it for ever.
    """
    ignore_stop_signals()
    die_with_reactor(of_fork_server=start_method == "forkserver")
    begin(channel, recorder, evidence)


def begin(
    channel: InheritedDescriptor, recorder: InheritedDescriptor, evidence: InheritedDescriptor | None = None
) -> None:
    """Keep the descriptors until `boot`: an exception here would break the pool without a word."""
    global _inherited  # noqa: PLW0603 - one worker a process; the executor offers no other place
    _inherited = (channel.fd, recorder.fd, None if evidence is None else evidence.fd)


def boot(plan: WorkerPlan) -> bytes:
    """Make the worker ready; returns an encoded `BootReport` whose `fault` says what will never work."""
    global _inherited, _worker
    if _inherited is None:
        raise _not_begun()
    preloaded = plan.start_method != "forkserver" or plan.in_process or os.getpid() != LOADED_IN_PID
    fault: str | None = None
    _worker, _inherited = Worker(plan, *_inherited), None
    try:
        _worker.boot()
    except PenstockError as error:
        fault = str(error)
    except BaseException as error:  # noqa: BLE001 - whatever the application's import raised
        failure = failure_of(error)
        fault = f"{failure.type}: {failure.text}\n{failure.traceback}"
    if fault is not None and plan.in_process:
        # A process of its own would end now, and take them along.
        _worker.abandon()
    return jobs.encode(BootReport(os.getpid(), os.getppid(), preloaded, fault))


def run_batch(encoded: bytes) -> bytes:
    """Run an encoded `Batch`; returns an encoded `Report`."""
    return jobs.encode(_current().run(jobs.decode_batch(encoded)))


def close() -> None:
    """End the worker in order; the process ends when its executor is shut down."""
    global _worker
    worker, _worker = _worker, None
    if worker is not None:
        worker.close()


def _current() -> Worker:
    if _worker is None:
        raise _not_begun()
    return _worker


def _not_begun() -> PenstockError:
    return PenstockError("this process was not begun as a worker")


def _become_worker(plan: WorkerPlan) -> None:
    # A core dump would hold payloads.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    for name in _SECRET_VARIABLES:
        os.environ.pop(name, None)
    refuse_send()
    current_process().name = f"penstock-{plan.slot}"
    signal.set_wakeup_fd(-1)
