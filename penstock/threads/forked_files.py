"""An SQLite file that was open when its process forked: what makes it safe for the child to open it anew.

SQLite counts a process's locks on a file once for all its connections. The child inherits the count and not the locks,
which the kernel gives to one process. A new connection there would believe in a shared lock that it does not have: the
parent's last close would delete the log that the child writes into, and committed rows with it. So the child takes,
before anybody can write, the very locks that its SQLite believes in, and keeps them until it ends:

| file | byte | what SQLite means by it |
|---|---|---|
| `app.db` | 0x40000002, 510 bytes | somebody reads: held by each connection in WAL mode |
| `app.db-shm` | 128 | the shared memory is in use ("dead man's switch") |

What the parent was in the middle of cannot be taken over: then the child refuses the file in words.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from penstock.errors import DatabaseUnavailable

#: sqlite.org/fileformat2.html and os_unix.c: SHARED_FIRST, SHARED_SIZE; sqlite.org/walformat.html: UNIX_SHM_DMS.
_SHARED_FIRST: Final = 0x40000002
_SHARED_BYTES: Final = 510
_IN_USE_BYTE: Final = 128
#: Of the shared memory: what readers, writers and checkpoints lock for the time they take.
_FIRST_BUSY_BYTE: Final = 120
_LOCKS: Final = Path("/proc/locks")

_Identity = tuple[int, int]


class _Inherited(NamedTuple):
    """A file that the parent had open at the fork; `fault` says why this process must not open it."""

    identity: _Identity | None
    shm: _Identity | None
    fault: str | None


#: Written just before a fork: what is open then.
_at_fork: Final[dict[str, _Inherited]] = {}
#: In a child: what was open at its fork, or at its parent's.
_inherited: Final[dict[str, _Inherited]] = {}


def note(path: str, *, in_transaction: bool) -> None:
    """The file is open, and a fork follows at once."""
    shm = _identity(f"{path}-shm")
    fault = "inside a transaction on it" if in_transaction else None
    if fault is None and shm is not None and _is_busy(shm[1]):
        fault = "reading it, with a cursor that had not come to its end"
    known = _at_fork.get(path)
    if known is None or known.fault is None:
        _at_fork[path] = _Inherited(_identity(path), shm, fault)


def forget() -> None:
    """In the parent, after the fork."""
    _at_fork.clear()


def take_locks() -> None:
    """In the child, after the fork: take the locks that its SQLite believes in."""
    for path, file in {**_inherited, **_at_fork}.items():
        fault = file.fault or _lock(path, file)
        _inherited[path] = file._replace(fault=fault)
    _at_fork.clear()


def refuse_if_unsafe(path: str) -> None:
    """Raises `DatabaseUnavailable` when this process was forked while its parent did what cannot be taken over."""
    file = _inherited.get(path)
    # Another file under the same name, made since, is nobody's.
    if file is not None and file.fault is not None and file.identity == _identity(path):
        msg = (
            f"process {os.getpid()} was forked while its parent was {file.fault}: {path} cannot be opened here, SQLite "
            "would lose rows. Fork between transactions, or start the process with spawn or forkserver"
        )
        raise DatabaseUnavailable(msg)


def _lock(path: str, file: _Inherited) -> str | None:
    if file.shm is None:
        return None  # not in WAL mode: without a transaction there are no locks to believe in
    try:
        _hold(path, file.identity, _SHARED_FIRST, _SHARED_BYTES)
        _hold(f"{path}-shm", file.shm, _IN_USE_BYTE, 1)
    except OSError:
        return "closing it"
    return None


def _hold(path: str, identity: _Identity | None, first: int, count: int) -> None:
    # Never closed: with a descriptor, whichever, all of a process's locks on the file go.
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    stat = os.fstat(fd)
    if (stat.st_dev, stat.st_ino) != identity:
        raise FileNotFoundError(path)
    fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, count, first)


def _identity(path: str) -> _Identity | None:
    with suppress(OSError):
        stat = Path(path).stat()
        return stat.st_dev, stat.st_ino
    return None


def _is_busy(inode: int) -> bool:
    """True when this process reads or writes through that shared memory; False where the kernel does not tell."""
    with suppress(OSError):
        # 7: POSIX  ADVISORY  READ 4711 fe:00:262145 123 123
        for line in _LOCKS.read_text().splitlines():
            words = line.split()
            if (
                len(words) == 8
                and words[4] == str(os.getpid())
                and words[5].rpartition(":")[2] == str(inode)
                and _FIRST_BUSY_BYTE <= int(words[6]) < _IN_USE_BYTE
            ):
                return True
    return False
