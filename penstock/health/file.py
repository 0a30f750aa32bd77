"""The health file: once a second the loop notes that it turns, and somebody outside can read it.

A loop that is blocked, a process that is gone and a machine that was started again all leave a file that grows old;
nothing has to be asked, so a health check costs the service nothing and cannot hang.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import quote

import msgspec
import structlog

from penstock.errors import ConfigurationError

#: How often the loop writes.
BEAT_S: Final = 1.0
#: An older file means that the loop stands still: ten beats missed.
STALE_S: Final = 10.0
#: Longest file name of the default place; every file system takes it.
_MAX_NAME_CHARS: Final = 200

_log = structlog.get_logger("penstock.health")


class Health(msgspec.Struct, frozen=True):
    """What the file says."""

    pid: int
    application: str
    queues: tuple[str, ...]
    is_ready: bool
    """True while messages are handled."""
    monotonic_s: float
    """The writer's monotonic clock; all processes of one boot share it."""
    unix_s: float
    why_not_ready: tuple[str, ...] = ()
    """In words, what is missing; empty when nothing is."""


def default_health_file(application: str) -> Path:
    """Where the service that runs `application` (`module:attribute`) writes unless `service.health_file` is set."""
    module, _, attribute = application.partition(":")
    name = quote(f"{module}:{attribute or 'app'}", safe="")[-_MAX_NAME_CHARS:]
    return default_folder() / f"{name}.json"


def default_folder() -> Path:
    """The folder of this user's health files."""
    return Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}"


class HealthFile:
    """Keeps one health file up to date; run `keep` as a task and cancel it to end it.

    `path` None is the default place. `why_not_ready` is asked at every beat.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        application: str,
        queues: Sequence[str],
        why_not_ready: Callable[[], Sequence[str]],
    ) -> None:
        self.path = path or default_health_file(application)
        self._is_default = path is None
        self._application = application
        self._queues = tuple(queues)
        self._why_not_ready = why_not_ready
        self._last_fault: str | None = None

    def __repr__(self) -> str:
        return f"<HealthFile {self.path} [{self._last_fault or 'written'}]>"

    async def keep(self) -> NoReturn:
        """Write once a second until cancelled, then remove the file. A full disk is told once, and tried again."""
        self._tell_of_another()
        try:
            while True:
                self._beat()
                await asyncio.sleep(BEAT_S)
        finally:
            self._remove()

    def write(self) -> None:
        """Write it once, whole: a reader sees the old or the new one. Raises `OSError`, `ConfigurationError`."""
        if self._is_default:
            _make_private(self.path.parent)
        why_not = tuple(self._why_not_ready())
        health = Health(
            os.getpid(), self._application, self._queues, not why_not, time.monotonic(), time.time(), why_not
        )
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        fresh.write_bytes(msgspec.json.encode(health))
        fresh.replace(self.path)

    def _beat(self) -> None:
        try:
            self.write()
        except (OSError, ConfigurationError) as error:
            # The service goes on: messages matter more than the note that they are handled.
            if str(error) != self._last_fault:
                _log.error(
                    "the health file cannot be written, so a health check will say that this service is not live",
                    path=str(self.path),
                    error=str(error),
                )
            self._last_fault = str(error)
        else:
            self._last_fault = None

    def _tell_of_another(self) -> None:
        other = read_health(self.path)
        if other is not None and other.pid != os.getpid() and what_is_wrong(other) is None:
            _log.warning(
                "another service writes the same health file: give each its own with service.health_file",
                path=str(self.path),
                other_pid=other.pid,
            )

    def _remove(self) -> None:
        own = read_health(self.path)
        if own is not None and own.pid == os.getpid():
            self.path.unlink(missing_ok=True)


def read_health(path: Path) -> Health | None:
    """What the file says; None when there is none, or it is not one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Health)
    except (OSError, msgspec.DecodeError):
        return None


def what_is_wrong(health: Health) -> str | None:
    """Why the service that wrote it is not live, in words; None when it is."""
    if not _is_alive(health.pid):
        return f"its process {health.pid} is gone"
    age_s = time.monotonic() - health.monotonic_s
    if age_s < 0:
        return f"its note is from before the machine was started; process {health.pid} is somebody else's"
    if age_s > STALE_S:
        return f"its loop has not turned for {age_s:.0f} s (process {health.pid})"
    return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # One that was killed and not yet fetched by its parent answers signals, too.
        state = re.search(rb"\) (\w) ", Path(f"/proc/{pid}/stat").read_bytes())
    except OSError:
        return True
    return state is None or state[1] not in (b"Z", b"X")


def _make_private(folder: Path) -> None:
    """The default folder lies where everybody may write: only one that is ours alone is used."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        msg = f"{folder} is not a folder of this user alone; set service.health_file to another place"
        raise ConfigurationError(msg)
