"""A worker process as the reactor sees it from outside: its pidfd, its memory, and how it ended, in words."""

from __future__ import annotations

import os
import select
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path
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


def sent_to(pidfd: int | None, number: int) -> bool:
    """Send the process a signal; False when it is gone, or has no descriptor by which it is safely told from another."""
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def resident_bytes(pid: int | None) -> int:
    """Resident memory of the process; 0 where the system does not say."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 - no path to speak of
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def peak_bytes(pid: int | None) -> int:
    """The most resident memory that the process has had so far; 0 where the system does not say."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123 - the same
            peak = next((line for line in file if line.startswith(b"VmHWM:")), b"")
    except OSError:
        return 0
    return int(peak.split()[1]) * 1024 if peak else 0


def count_memory_kills() -> int:
    """Processes that the kernel killed on this machine because memory ran out, since its boot; 0 where it does not say."""
    try:
        text = Path("/proc/vmstat").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)


#: What multiprocessing says of a child whose fork server cannot tell any more; a child may also say so itself.
UNTOLD_EXIT_CODE: Final = 255
_MEANINGS: Final = {
    signal.SIGSEGV: "a segmentation fault",
    signal.SIGBUS: "a bus error",
    signal.SIGABRT: "C code gave up with abort()",
    signal.SIGFPE: "an arithmetic fault in C code",
    signal.SIGILL: "an instruction that this processor does not have",
    signal.SIGKILL: "killed from outside",
}
_OUT_OF_MEMORY: Final = "killed by the kernel, most likely: memory ran out on this machine at that time"


def how_it_ended(process: BaseProcess | None, *, memory_ran_out: bool = False) -> str:
    """Signal or exit code, in words; `memory_ran_out`: the kernel has killed something for it meanwhile."""
    code = process.exitcode if process is not None else None
    if code is None:
        return "its exit is unknown"
    if code >= 0:
        return f"exit code {code}"
    try:
        number = signal.Signals(-code)
    except ValueError:
        return f"signal {-code}"
    meaning = _OUT_OF_MEMORY if memory_ran_out and number is signal.SIGKILL else _MEANINGS.get(number)
    return f"signal {-code}, {number.name}" + (f": {meaning}" if meaning else "")
