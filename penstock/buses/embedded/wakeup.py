"""How one process tells another that messages wait, and sees at once that it has died: a named pipe each.

```
 publisher ──COMMIT──▶ file                                  loop wakes
     └───── queue ids ─────▶ bus.db-pipes/1234-5f0c9a1b ─────────▶ reads the ids, claims from those queues
```

A pipe has no limit on its path's length, works on Linux and macOS, and the kernel closes its reading end when
the process ends in any way: opening it for writing then fails with ENXIO, so the same pipe tells the dead from
the living without a guess by pid. A lost word (the publisher died between COMMIT and write, a file system
without pipes) costs at most a second: `penstock.buses.embedded.pump` looks by itself that often.

What bounds it: the kernel's buffer. When it is full the reader has not woken yet, and then looks everywhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import struct
from collections.abc import Collection
from enum import Enum
from pathlib import Path
from typing import Final

#: POSIX guarantees that so many bytes are written whole or not at all.
ATOMIC_BYTES: Final = 512
#: More unread bytes than this: the buffer may have been full and words lost, so look at every queue.
CROWDED_BYTES: Final = 4096
_READ_BYTES: Final = 65536
_ID: Final = struct.Struct("<I")


class Pulse(Enum):
    """What a look at another process's pipe says."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """No pipe, or none that we may open: only its lease can tell."""


def folder_of(bus_file: Path) -> Path:
    """Where the pipes of a bus lie: beside its file."""
    return bus_file.with_name(bus_file.name + "-pipes")


class WakeupPipe:
    """The reading end, in the process that wants to be woken.

    `open` and `close` may be repeated; `path` and `fd` are None while it is closed, or when the file system has
    no named pipes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept_writer: int | None = None
        self.path: Path | None = None
        self.fd: int | None = None

    def __repr__(self) -> str:
        return f"<WakeupPipe {self.path if self.fd is not None else 'closed'}>"

    @property
    def name(self) -> str | None:
        """Its name in the folder, which is what others are told; None while it is closed."""
        return None if self.path is None else self.path.name

    def open(self, mode: int) -> None:
        """Make the pipe, with the permissions (`mode`) of the bus's file; must run under its write lock.

        Raises `OSError` only when descriptors have run out; a folder without pipes leaves it closed.
        """
        if self.path is not None and self.path.exists():
            return
        # Whoever swept the folder after a transaction of ours that failed took it for a dead process's.
        self.close()
        path = self.folder / f"{os.getpid()}-{secrets.token_hex(4)}"
        try:
            if not self.folder.exists():
                self.folder.mkdir()
                # Who may read the bus's file may find the pipes.
                self.folder.chmod(mode | (mode & 0o444) >> 2)
            os.mkfifo(path)
            path.chmod(mode)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOSPC):
                raise
            return
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            # Kept open so that the pipe never reads as ended, which would wake the loop without pause.
            self._kept_writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise

    def read(self) -> set[int] | None:
        """Ids of the queues to look at; None: at all of them."""
        assert self.fd is not None
        words = bytearray()
        with contextlib.suppress(BlockingIOError):
            while len(words) < _READ_BYTES:
                words += os.read(self.fd, _READ_BYTES)
        if len(words) > CROWDED_BYTES or len(words) % _ID.size:
            return None
        return {queue_id for (queue_id,) in _ID.iter_unpack(words)}

    def close(self) -> None:
        """Close it and remove it from the folder; only when no lease names it any more."""
        path = self.path
        self.abandon()
        if path is not None:
            path.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Close it and leave it in the folder: whoever feels for its pulse ends the lease that names it."""
        for fd in (self.fd, self._kept_writer):
            if fd is not None:
                os.close(fd)
        self.path = self.fd = self._kept_writer = None


def wake(pipe: Path, queue_ids: Collection[int]) -> None:
    """Tell the process behind `pipe` which queues have messages; one that is gone or has no room is not waited for."""
    with contextlib.suppress(OSError):  # it looks by itself within a second
        fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            words = b"".join(_ID.pack(queue_id) for queue_id in queue_ids)
            for start in range(0, len(words), ATOMIC_BYTES):
                os.write(fd, words[start : start + ATOMIC_BYTES])
        finally:
            os.close(fd)


def feel(pipe: Path | None) -> Pulse:
    """Whether the process that reads `pipe` lives."""
    if pipe is None:
        return Pulse.UNKNOWN
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return Pulse.DEAD if error.errno == errno.ENXIO else Pulse.UNKNOWN
    return Pulse.ALIVE


def sweep(folder: Path, known: Collection[str]) -> None:
    """Remove pipes that no lease names: their process died while it made them. Runs under the write lock."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name not in known and stat.S_ISFIFO(entry.stat(follow_symlinks=False).st_mode):
                Path(entry.path).unlink(missing_ok=True)
