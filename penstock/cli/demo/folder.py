"""The demo's folder: bus, database, log and settings; it stays, so that somebody can look into it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PREFIX: Final = "penstock-demo-"
#: Held by the demo that runs there; a folder whose lock is free may be removed by the next demo.
_LOCK: Final = "demo.lock"


@dataclass(frozen=True, slots=True)
class DemoFolder:
    """A fresh folder that nobody else can read."""

    path: Path
    _lock_fd: int

    @classmethod
    def make(cls, *, keeps_earlier: bool) -> DemoFolder:
        """Make it, and remove those of demos that have ended unless they are to be kept."""
        if not keeps_earlier:
            for earlier in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
                _remove(earlier)
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock_fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        return cls(path, lock_fd)

    @property
    def bus_url(self) -> str:
        """The embedded bus in it."""
        return f"sqlite:///{self.path / 'bus.db'}"

    @property
    def database_url(self) -> str:
        """The database in it."""
        return f"sqlite:///{self.path / 'index.db'}"

    @property
    def log(self) -> Path:
        """Where the reactor's log goes; the terminal shows the progress bar."""
        return self.path / "penstock.log"

    def open_log(self) -> int:
        """A descriptor to write the log to; the caller closes it."""
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write_settings(self, bus_url: str, database_url: str) -> None:
        """A penstock.toml, so that `penstock` knows bus and database there; only its owner can read it."""
        # A JSON string is a TOML string.
        text = (
            f"[bus]\nurl = {json.dumps(bus_url)}\n\n[database]\nurl = {json.dumps(database_url)}\n"
            '# A power cut may cost the last commits, which a demo can do without.\nsynchronous = "NORMAL"\n'
        )
        fd = os.open(self.path / "penstock.toml", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:  # noqa: PTH123 - the descriptor has the permissions
            file.write(text)

    def release(self) -> None:
        """The demo has ended; the folder stays until the next one."""
        os.close(self._lock_fd)

    def remove(self) -> None:
        """Remove it with all that is in it, once it is released."""
        _remove(self.path)


def _remove(earlier: Path) -> None:
    try:
        if earlier.is_symlink() or earlier.stat().st_uid != os.getuid():
            return
        fd = os.open(earlier / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        # Somebody else's, or not a demo's.
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(earlier, ignore_errors=True)
    finally:
        os.close(fd)
