"""What a test has left behind: processes, sockets and threads that were not there before it."""

import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

# A process that was killed, or a thread whose queue was closed, needs a moment to be gone.
PATIENCE_S = 3.0
# Kept by multiprocessing for the whole life of a program, on purpose.
KEPT = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")

_shared: set[int] = set()


class Belongings:
    """What this process holds at the moment of construction."""

    def __init__(self) -> None:
        self._processes = {child.pid for child in psutil.Process().children()}
        self._workers = set(_fork_server_children())
        self._sockets = set(_sockets().values())
        self._threads = set(threading.enumerate())

    def share_new_processes(self) -> None:
        """What has been started since belongs to all tests: no test has left it behind."""
        _shared.update(child.pid for child in psutil.Process().children() if child.pid not in self._processes)

    def left_behind(self) -> list[str]:
        """In words, what is there now and was not then, after waiting up to 3 s for it to go."""
        deadline = time.monotonic() + PATIENCE_S
        while (left := list(self._new())) and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        return left

    def _new(self) -> Iterator[str]:
        for child in psutil.Process().children():
            if child.pid not in self._processes | _shared and not _is_kept(child):
                yield from _describe(child)
        for worker in _fork_server_children():
            if worker not in self._workers:
                yield from _describe(worker)
        for fd, inode in _sockets().items():
            if inode not in self._sockets:
                yield f"socket {fd}: {_peers(fd)}"
        for thread in threading.enumerate():
            if thread not in self._threads and not thread.daemon:
                yield f"thread {thread.name}"


def carrying(name: str, value: str) -> list[str]:
    """In words, the processes of this machine that were started with that environment variable, but for us."""
    return [
        line
        for process in psutil.process_iter()
        if _carries(process, name, value)
        for line in _describe(process)
    ]


def _carries(process: psutil.Process, name: str, value: str) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        return process.environ().get(name) == value and not _is_kept(process)
    except (psutil.Error, OSError):
        return False  # somebody else's, or gone


def _describe(process: psutil.Process) -> Iterator[str]:
    try:
        if process.status() != psutil.STATUS_ZOMBIE:
            yield f"process {process.pid}: {' '.join(process.cmdline())}"
    except psutil.NoSuchProcess:
        return


def _is_kept(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
        parent = process.parent()
    except psutil.NoSuchProcess:
        return True
    return parent is not None and parent.pid == os.getpid() and any(kept in command for kept in KEPT)


def _fork_server_children() -> list[psutil.Process]:
    return [worker for child in psutil.Process().children() if _is_kept(child) for worker in child.children()]


def _sockets() -> dict[int, str]:
    if sys.platform != "linux":
        return {item.fd: repr(item) for item in psutil.Process().net_connections("all")}
    found: dict[int, str] = {}
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue  # the folder's own descriptor
        if target.startswith("socket:"):
            found[int(link.name)] = target
    return found


def _peers(fd: int) -> str:
    for item in psutil.Process().net_connections("all"):
        if item.fd == fd:
            return f"{item.laddr} -> {item.raddr}"
    return "already closed"
