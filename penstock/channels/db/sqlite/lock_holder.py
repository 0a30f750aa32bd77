"""Which process holds SQLite's write lock, as far as the kernel tells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: Of the log's index file, the byte that a writer in WAL mode locks (sqlite.org/walformat.html, "WAL_WRITE_LOCK").
_WRITE_LOCK_BYTE: Final = 120
_LOCKS: Final = Path("/proc/locks")


def describe_writer(location: str) -> str:
    """The process that is writing to the file, in words; "another process" where that cannot be found out."""
    try:
        inode = Path(f"{location}-shm").stat().st_ino
        pid = _pid_in(_LOCKS.read_text(), inode)
        if pid is None:
            return "another process"
        if pid == os.getpid():
            return "a connection of somebody else in this very process"
        # Its name only: a command line may hold a password.
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        # Not Linux, or the holder has just ended.
        return "another process"


def _pid_in(locks: str, inode: int) -> int | None:
    # 7: POSIX  ADVISORY  WRITE 4711 fe:00:262145 120 120
    for line in locks.splitlines():
        words = line.split()
        if len(words) != 8 or words[3] != "WRITE" or words[5].rpartition(":")[2] != str(inode):
            continue
        first, last = int(words[6]), words[7]
        # Of another namespace's process the kernel shows 0 or nothing.
        if (
            first <= _WRITE_LOCK_BYTE
            and (last == "EOF" or int(last) >= _WRITE_LOCK_BYTE)
            and int(words[4]) > 0
        ):
            return int(words[4])
    return None
