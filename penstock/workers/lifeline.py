"""A worker dies with its reactor, whatever it is doing, and ignores the signals that a terminal or a group gets.

With the reactor killed, workers of every start method live on, holding connections and locks while the broker
hands their messages to somebody else. A watcher thread needs the GIL and came seconds late inside C code; the kernel
does not: the parent's sentinel is a pipe whose other end only the reactor holds, and its hang-up is delivered as
SIGKILL (3 to 80 ms, Linux). Elsewhere a watcher thread does what it can.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
from multiprocessing import parent_process
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def ignore_stop_signals() -> None:
    """SIGINT and SIGTERM are the reactor's business: a service manager sends them to the whole group."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The fork server was started with these blocked, and its children inherit that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def die_with_reactor(*, of_fork_server: bool) -> None:
    """Bind this process's life to the reactor's, and to the fork server's when that is its parent."""
    parent = parent_process()
    if parent is None:
        return
    if of_fork_server and sys.platform == "linux":
        # Its parent is the fork server, so this covers that death and no other.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    die_at_hangup(parent.sentinel)


def die_at_hangup(sentinel: int) -> None:
    """Bind this process's life to the other end of a pipe, which nobody writes to."""
    if sys.platform == "linux":
        _kill_on_hangup(sentinel)
    else:
        threading.Thread(target=_watch, args=(sentinel,), name="penstock-lifeline", daemon=True).start()
    # It may have died before the line was tied.
    poller = select.poll()
    poller.register(sentinel, select.POLLIN)
    if poller.poll(0):
        os.kill(os.getpid(), signal.SIGKILL)


def _kill_on_hangup(sentinel: int) -> None:
    import fcntl

    fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)  # type: ignore[attr-defined,unused-ignore]
    fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)


def _watch(sentinel: int) -> None:
    poller = select.poll()
    poller.register(sentinel, select.POLLIN)
    poller.poll()
    os.kill(os.getpid(), signal.SIGKILL)
