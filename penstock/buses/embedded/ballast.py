"""Space kept back beside the bus's file, given up when the disk is full, so that acks still fit.

SQLite needs room to delete, too: an ack writes to the write-ahead log. The watermark keeps *our* messages from filling
the disk; against everybody else's files there is the ballast, a file of zeros that nobody reads. It is made while a
bus consumes, removed when the last one has ended, and made again once there is room for it above the watermark.

Functions for the writer thread; all but `give_up` under the file's write lock, so that two processes never make one
at once.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

#: The write-ahead log before its checkpoint (4 MiB), what that has to write into the file, and a round of acks on top.
#: Less than the watermark: what is given up is never taken for space to publish into.
BALLAST_BYTES: Final = 16 * 1024 * 1024


def ballast_of(path: Path) -> Path:
    """Where the ballast of a bus's file lies."""
    return path.with_name(f"{path.name}-ballast")


def free_bytes(path: Path) -> int:
    """What this user may still write on the disk of the bus's file."""
    disk = os.statvfs(path.parent)
    return disk.f_bavail * disk.f_frsize


def keep(path: Path, free_floor_bytes: int) -> None:
    """Make the ballast if there is none, where that leaves `free_floor_bytes`; never raises."""
    ballast = ballast_of(path)
    with contextlib.suppress(OSError):
        if ballast.exists() and ballast.stat().st_size < BALLAST_BYTES:
            # Whoever made it was killed meanwhile.
            ballast.unlink()
        if ballast.exists() or free_bytes(path) < free_floor_bytes + BALLAST_BYTES:
            return
        mode = path.stat().st_mode & 0o777
        fd = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            _fill(fd)
        except OSError:
            ballast.unlink()
            raise
        finally:
            os.close(fd)


def give_up(path: Path) -> bool:
    """Free the space; False when there is none kept back."""
    try:
        ballast_of(path).unlink()
    except OSError:
        return False
    return True


def _fill(fd: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, BALLAST_BYTES)
        return
    piece = bytes(1024 * 1024)
    for _ in range(BALLAST_BYTES // len(piece)):
        os.write(fd, piece)
