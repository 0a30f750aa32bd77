"""What a worker leaves behind of its Python stack: faulthandler writes it into shared memory, the reactor reads it.

Memory and not a pipe: a pipe that is full would hold a dying process up. faulthandler writes inside a signal handler
of C, so that it works while C code holds the interpreter's lock. SIGKILL (the kernel's out-of-memory killer sends it)
and `os._exit` leave nothing: no code of ours runs any more.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
import sys
import tempfile
from typing import Final

#: Sent to a worker that is about to be killed; the last real-time signal, because a handler's own code may use SIGUSR1 and 2.
DUMP_SIGNAL: Final = signal.SIGRTMAX if hasattr(signal, "SIGRTMAX") else signal.SIGUSR2
#: What is read of it; a hundred threads write more.
MAX_READ_BYTES: Final = 256 * 1024
_SECTIONS: Final = ("Thread ", "Current thread ")


class Evidence:
    """Shared memory for one worker's last stack; made by `create` in the reactor, from the descriptor in the worker."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._is_open = True

    @classmethod
    def create(cls) -> Evidence:
        """New memory, empty."""
        if sys.platform == "linux":
            fd = os.memfd_create("penstock-evidence", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        # Its writers share one offset with nobody: what is cleared is written from the start again.
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
        return cls(fd)

    def arm(self) -> None:
        """In the worker: a fatal signal, and `DUMP_SIGNAL`, write the stacks of all threads."""
        faulthandler.enable(file=self.fd, all_threads=True)
        faulthandler.register(DUMP_SIGNAL, file=self.fd, all_threads=True, chain=False)

    @property
    def size_bytes(self) -> int:
        """How much has been written."""
        return os.fstat(self.fd).st_size

    def read(self) -> str:
        """The stack of the thread that was running first, then the others; empty when nothing was written."""
        return running_thread_first(os.pread(self.fd, MAX_READ_BYTES, 0).decode("utf-8", "replace"))

    def clear(self) -> None:
        """Forget what was written: the worker lives on."""
        os.ftruncate(self.fd, 0)

    def close(self) -> None:
        """Give the memory back; harmless when repeated."""
        if self._is_open:
            self._is_open = False
            os.close(self.fd)


def running_thread_first(dump: str) -> str:
    """A dump of faulthandler with the current thread's stack in front, because its end is cut when it is long."""
    sections: list[list[str]] = [[]]
    for line in dump.splitlines():
        if line.startswith(_SECTIONS):
            sections.append([])
        sections[-1].append(line)
    head, *threads = ["\n".join(section).strip() for section in sections]
    threads.sort(key=lambda thread: not thread.startswith("Current thread "))
    return "\n\n".join(part for part in (head, *threads) if part)
