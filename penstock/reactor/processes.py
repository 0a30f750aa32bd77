"""A worker process as the reactor sees it from outside: its pidfd, and how it ended, in words."""

from __future__ import annotations

import os
import select
import signal
from multiprocessing.process import BaseProcess
from typing import Final


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None when it has ended, or off Linux."""
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        # The executor's own sentinel has to do.
        return None


def is_readable(fd: int, timeout_ms: int = 0) -> bool:
    """True when the descriptor has something to say now, or within so many milliseconds; blocks its thread for them."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(timeout_ms))


#: What multiprocessing says of a child whose fork server cannot tell any more; a child may also say so itself.
UNTOLD_EXIT_CODE: Final = 255


def how_it_ended(process: BaseProcess | None) -> str:
    """Signal or exit code, in words."""
    code = process.exitcode if process is not None else None
    if code is None:
        return "its exit is unknown"
    if code < 0:
        return f"signal {-code}, {signal.Signals(-code).name}"
    return f"exit code {code}"
