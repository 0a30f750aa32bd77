"""Starting worker processes: the fork server, and an executor of one worker with its descriptors.

The only file of the reactor that knows `penstock.workers`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Final

from penstock.channels.plan import WorkerPlan
from penstock.config import Settings
from penstock.workers import entry

#: Preloaded, a slot boots in 13 to 24 ms and costs 13 MB; without it 230 to 460 ms and 36 MB.
PRELOAD: Final = ["penstock.workers.entry"]
#: 107 bytes less "/pymp-xxxxxxxx/listener-xxxxxxxx", and some to spare.
LONGEST_TEMPDIR_BYTES: Final = 70
#: POSIX names it.
SHORT_TEMPDIR: Final = "/tmp"  # noqa: S108 - multiprocessing makes a folder of its own in it, for this user alone
_STOP_SIGNALS: Final = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def make_plan(
    app: str, queues: tuple[str, ...], slot: str, settings: Settings, *, in_process: bool
) -> WorkerPlan:
    """What one worker is told at boot."""
    return WorkerPlan(
        app=app,
        queues=queues,
        slot=slot,
        database=settings.database,
        limits=settings.limits,
        start_method=settings.workers.start_method,
        log_level=settings.service.log_level,
        workers=max(1, settings.workers.processes),
        in_process=in_process,
    )


def start_fork_server() -> None:
    """Start the fork server with our runtime preloaded; blocks for about 0.3 s, returns at once when it runs.

    It starts with the stop signals blocked, because a service manager sends SIGTERM to the whole group: it broke every
    slot at once while the workers lived on and committed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    # The tracker first: starting it unblocks these signals in this thread.
    resource_tracker.ensure_running()
    _keep_socket_path_short()
    with _signals_blocked():
        forkserver.ensure_running()


def _keep_socket_path_short() -> None:
    """The fork server listens on a socket in the temporary folder, and a socket's path may have 107 bytes.

    multiprocessing asks `tempfile` once and keeps the answer, so a long TMPDIR is passed over for that moment only.
    """
    if len(os.fsencode(tempfile.gettempdir())) <= LONGEST_TEMPDIR_BYTES:
        return
    before = tempfile.tempdir
    tempfile.tempdir = SHORT_TEMPDIR
    try:
        util.get_temp_dir()
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(slots=True)
class Launched:
    """An executor whose one worker has been started and was told its plan."""

    executor: Executor
    boot: Future[bytes]
    """Future of the encoded `BootReport`."""
    process: BaseProcess | None
    """None for a thread of this process."""


_launching: Final = threading.Lock()


def launch(plan: WorkerPlan, worker_socket: socket.socket, recorder_fd: int, evidence_fd: int) -> Launched:
    """Start one worker; blocks for the fork, so it is called in a thread. Takes `worker_socket` over and closes it."""
    if plan.in_process:
        threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"penstock-{plan.slot}")
        entry.begin(
            entry.InheritedDescriptor(worker_socket.detach()), entry.InheritedDescriptor(os.dup(recorder_fd))
        )
        return Launched(threads, threads.submit(entry.boot, plan), None)
    context: BaseContext = multiprocessing.get_context(plan.start_method)
    descriptors = (
        entry.InheritedDescriptor(worker_socket.fileno()),
        entry.InheritedDescriptor(recorder_fd),
        entry.InheritedDescriptor(evidence_fd),
    )
    executor = ProcessPoolExecutor(
        max_workers=1,
        mp_context=context,
        initializer=entry.begin_process,
        initargs=(*descriptors, plan.start_method),
    )
    try:
        # A spawned child, and a fork server that has to be started again, inherit the blocked signals.
        with _launching, _signals_blocked():
            boot = executor.submit(entry.boot, plan)
        # The executor names its processes nowhere else, and its own exit code is not passed on.
        processes: dict[int, BaseProcess] = executor._processes  # type: ignore[assignment]  # noqa: SLF001
        return Launched(executor, boot, next(iter(processes.values()), None))
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        # With this copy open, the socket's end of file would never come.
        worker_socket.close()


RUN_BATCH: Final = entry.run_batch
CLOSE: Final = entry.close
