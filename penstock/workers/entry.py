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
from multiprocessing import current_process, reduction
from types import SimpleNamespace
from typing import Any, Final

import structlog

from penstock.app.application import App, load_app
from penstock.app.failure import failure_of
from penstock.app.handlers import AnyHandler, refuse_send
from penstock.app.logs import quiet_libraries
from penstock.app.outcomes import DONE, Outcome
from penstock.channels import jobs
from penstock.channels.bus import BusStub
from penstock.channels.db.stub import DatabaseStub
from penstock.channels.evidence import Evidence
from penstock.channels.jobs import BootReport, Report
from penstock.channels.plan import WorkerPlan
from penstock.channels.recorder import Mark, Phase, Recorder
from penstock.channels.stub import Channel
from penstock.errors import ConnectionMisused, PenstockError
from penstock.workers.connection import OwnConnection
from penstock.workers.deadline import SoftDeadline
from penstock.workers.execute import Executor
from penstock.workers.lifeline import die_with_reactor, ignore_stop_signals
from penstock.workers.output import LogToChannel, PrintToChannel, structlog_processor

#: Set where this module was imported; a worker of the fork server finds its parent's pid here.
LOADED_IN_PID: Final = os.getpid()
#: Settings that no worker needs and no handler should find.
_SECRET_VARIABLES: Final = ("PENSTOCK_BUS__URL",)


class InheritedDescriptor:
    """A file descriptor on its way into a child that is being started."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _detach, (reduction.DupFd(self.fd),)


def _detach(duplicate: Any) -> InheritedDescriptor:
    return InheritedDescriptor(duplicate.detach())


class Worker:
    """Everything one worker holds."""

    def __init__(self, channel_fd: int, recorder_fd: int, evidence_fd: int | None = None) -> None:
        """`evidence_fd` is for a process of its own: in somebody else's nothing is armed."""
        self._socket = socket.socket(fileno=channel_fd)
        self.recorder = Recorder(recorder_fd)
        self._evidence = None if evidence_fd is None else Evidence(evidence_fd)
        self.state = SimpleNamespace()
        self.executor: Executor
        self.channel: Channel
        self._app: App
        self._database: OwnConnection
        self._db: DatabaseStub

    def boot(self, plan: WorkerPlan) -> None:
        """Import the application, open the connection, run the start hooks."""
        deadline = SoftDeadline(usable=not plan.in_process)
        self.channel = Channel(self._socket, limit_bytes=plan.limits.frame_bytes, shield=deadline.shield)
        if not plan.in_process:
            _become_worker(plan)
            if self._evidence is not None:
                self._evidence.arm()
            self._take_over_output(plan)
        deadline.install()
        self._app = load_app(plan.app)
        by_queue = {handler.queue.name: handler for handler in self._app.handlers}
        handlers: list[AnyHandler] = [by_queue[queue] for queue in plan.queues]
        self._database = OwnConnection(plan.database, log=structlog.get_logger("penstock.database"))
        db = DatabaseStub(self.channel, guard=self._guard)
        self._db = db
        self._database.before_transaction = self._before_transaction
        self.executor = Executor(
            handlers,
            body_bytes=plan.limits.body_bytes,
            database=self._database,
            bus=BusStub(self.channel),
            db=db,
            state=self.state,
            deadline=deadline,
            recorder=self.recorder,
        )
        self._database.open()
        for hook in self._app.start_hooks:
            hook(self.state)

    def run(self, batch: jobs.Batch) -> Report:
        """Run the batch's deliveries until the reactor takes the rest back."""
        recorder, number = self.recorder, batch.number
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
                self.channel.ended(number, index, outcome)
                recorder.end(index, Mark.TOLD)
            run_ns.append(time.perf_counter_ns() - began_ns)
        self.executor.rest()
        recorder.rest()
        return Report(number, recorder.marks(len(batch.jobs)), run_ns)

    def close(self) -> None:
        """Run the stop hooks and close the connection, so that the server sees an orderly goodbye."""
        for hook in self._app.stop_hooks:
            try:
                hook(self.state)
            except Exception:  # noqa: BLE001 - the author's code; told, and the next hook still runs
                structlog.get_logger("penstock.worker").exception(
                    "a worker's stop hook failed; the worker goes on closing"
                )
        self.abandon()

    def abandon(self) -> None:
        """Close what is open and run no hook: all that is left for a worker in this process that never was ready."""
        database: OwnConnection | None = vars(self).get("_database")
        if database is not None:
            database.close()
        self.channel.close()
        self.recorder.close()

    def _before_transaction(self) -> None:
        if self._db.in_transaction and self._database.sqlite_path is not None:
            msg = (
                f"ctx.connection would write to {self._database.sqlite_path} inside ctx.db.transaction(), which holds the "
                "file's only write lock: each would wait for the other. Use one of the two in a message, or end the "
                "transaction before"
            )
            raise ConnectionMisused(msg)
        self.recorder.enter(Phase.IN_TRANSACTION)

    def _guard(self, writes: bool) -> None:  # noqa: FBT001 - the stub's callback
        self._database.check_channel_use(writes=writes)

    def _take_over_output(self, plan: WorkerPlan) -> None:
        def fields() -> dict[str, Any]:
            own = getattr(self, "executor", None)
            return {"slot": plan.slot, **(own.fields() if own is not None else {})}

        level = logging.getLevelNamesMapping()[plan.log_level.upper()]
        root = logging.getLogger()
        root.handlers[:] = [LogToChannel(self.channel, fields)]
        root.setLevel(level)
        quiet_libraries()
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.format_exc_info,
                structlog_processor(self.channel, fields),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            cache_logger_on_first_use=True,
        )
        sys.stdout = PrintToChannel(self.channel, fields, "info")
        sys.stderr = PrintToChannel(self.channel, fields, "warning")


_worker: Worker | None = None


def begin(
    channel: InheritedDescriptor, recorder: InheritedDescriptor, evidence: InheritedDescriptor | None = None
) -> None:
    """The executor's initializer: it only keeps the descriptors, because an exception here breaks the pool."""
    global _worker  # noqa: PLW0603 - one worker a process; the executor offers no other place
    _worker = Worker(channel.fd, recorder.fd, None if evidence is None else evidence.fd)


def boot(plan: WorkerPlan) -> bytes:
    """Make the worker ready; returns an encoded `BootReport` whose `fault` says what will never work."""
    preloaded = plan.start_method != "forkserver" or plan.in_process or os.getpid() != LOADED_IN_PID
    fault: str | None = None
    try:
        _current().boot(plan)
    except PenstockError as error:
        fault = str(error)
    except BaseException as error:  # noqa: BLE001 - whatever the application's import raised
        failure = failure_of(error)
        fault = f"{failure.type}: {failure.text}\n{failure.traceback}"
    if fault is not None and plan.in_process:
        # A process of its own would end now, and take them along.
        _current().abandon()
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
        msg = "this process was not begun as a worker"
        raise PenstockError(msg)
    return _worker


def _become_worker(plan: WorkerPlan) -> None:
    ignore_stop_signals()
    die_with_reactor(of_fork_server=plan.start_method == "forkserver")
    # A core dump would hold payloads.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    for name in _SECRET_VARIABLES:
        os.environ.pop(name, None)
    refuse_send()
    current_process().name = f"penstock-{plan.slot}"
    signal.set_wakeup_fd(-1)
