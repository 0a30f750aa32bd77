"""Preloaded into the fork server, and nowhere else: with it a fork that the system refuses costs one start.

Without it (CPython 3.11 to 3.14) the error of `fork` ends the fork server, and every worker with it: one worker that
died while the limit of processes was reached took all its healthy neighbours along.

The fork server goes on after one error only, ECONNABORTED; so the refusal is told as that. The descriptors that came
with the request are closed first: whoever asked reads the end of its pipe and knows that nothing was started.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from multiprocessing import forkserver, reduction
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import socket

_fork: Final = os.fork
_recvfds: Final = reduction.recvfds
_received: list[int] = []


def _noting_recvfds(sock: socket.socket, size: int) -> list[int]:
    _received[:] = _recvfds(sock, size)
    return list(_received)


def _forgiving_fork() -> int:
    try:
        pid = _fork()
    except OSError as error:
        for fd in _received:
            with contextlib.suppress(OSError):
                os.close(fd)
        _received.clear()
        raise OSError(errno.ECONNABORTED, f"no process could be started: {error}") from error
    if pid == 0:
        # What runs in the worker gets its own system's answers.
        os.fork = _fork
        reduction.recvfds = _recvfds
    return pid


def install() -> None:
    """In the fork server, before its first request."""
    os.fork = _forgiving_fork
    reduction.recvfds = _noting_recvfds


def _is_fork_server() -> bool:
    """True in the process that `multiprocessing.forkserver` starts with `-c`, and in nobody who only imports this."""
    frame: Any = sys._getframe()  # noqa: SLF001 - who imports is asked nowhere else
    while frame is not None:
        if frame.f_code is forkserver.main.__code__:
            return True
        frame = frame.f_back
    return False


if _is_fork_server():
    install()
