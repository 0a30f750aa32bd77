"""A service in a process of its own, started as a person starts it, so that tests may kill it."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DEADLINE_S = 60.0
ROOT = Path(__file__).parents[2]


class ServiceProcess:
    """`penstock run` with its log read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._reads = asyncio.Event()
        self._reads.set()
        self._reader = asyncio.create_task(self._read())
        self.lines: list[dict[str, Any]] = []
        self._more = asyncio.Event()
        self._workers: dict[int, str] = {}
        """By pid, when it was started: a pid is somebody else's sooner or later, who must not be measured or killed."""

    @classmethod
    async def start(
        cls,
        bus_url: str,
        folder: Path,
        *flags: str,
        processes: int = 2,
        app: str = "tests.service.application:app",
        environment: Mapping[str, str] | None = None,
        log_format: str = "json",
    ) -> ServiceProcess:
        """Start it in a process group of its own; with another log format a line is all text, as its event."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "penstock", "run", app),
            *(
                "--bus",
                bus_url,
                "--database",
                f"sqlite:///{folder / 'app.db'}",
                "--processes",
                str(processes),
            ),
            *("--log-level", "debug", "--log-format", log_format, *flags),
            cwd=ROOT,
            env={**os.environ, "PENSTOCK_DATABASE__SYNCHRONOUS": "NORMAL", **(environment or {})},
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """The reactor's pid; it leads its process group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.returncode

    @property
    def worker_pids(self) -> list[int]:
        """The workers that were ready and live."""
        return [pid for pid, start in self._workers.items() if start_of(pid) == start]

    @property
    def boots(self) -> int:
        """How many workers have been ready so far."""
        return sum(1 for line in self.lines if line["event"] == "a worker is ready")

    async def wait_line(self, event: str, count: int = 1) -> dict[str, Any]:
        """The count-th log line with this event, or with these words in a text that is not JSON."""

        def says(line: dict[str, Any]) -> bool:
            return line["event"] == event or (len(line) == 1 and event in line["event"])

        async with asyncio.timeout(DEADLINE_S):
            while len(found := [line for line in self.lines if says(line)]) < count:
                assert not self._reader.done(), f"it ended without {event!r}: {self.lines[-20:]}"
                self._more.clear()
                await self._more.wait()
        return found[count - 1]

    async def kill(self) -> None:
        """SIGKILL to the reactor alone, if it has not ended by itself."""
        if self._process.returncode is None:
            self._process.kill()
        await self.wait()

    async def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self._process.terminate()
        return await self.wait()

    async def wait(self) -> int:
        """Its exit code, once everything that it logged has been read."""
        async with asyncio.timeout(DEADLINE_S):
            code = await self._process.wait()
            await self._reader
        return code

    def stop_reading(self) -> None:
        """What it writes from now on fills the pipe."""
        self._reads.clear()

    def read_on(self) -> None:
        """After `stop_reading`."""
        self._reads.set()

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            await self._reads.wait()
            text = raw.decode()
            line: dict[str, Any] = json.loads(text) if text.startswith("{") else {"event": text.rstrip()}
            self.lines.append(line)
            if line["event"] == "a worker is ready" and "pid" in line:
                self._workers.pop(line["pid"], None)
                if (start := start_of(line["pid"])) is not None:
                    self._workers[line["pid"]] = start
            self._more.set()
        self._more.set()


def seconds_until_gone(pids: list[int], deadline_s: float = 10.0) -> float:
    """How long it takes until none of these processes lives."""
    began_s = time.monotonic()
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([fd], [], [], deadline_s)[0], f"process {pid} lives"
        finally:
            os.close(fd)
    return time.monotonic() - began_s


def parent_of(pid: int) -> int:
    """The pid of its parent: of a worker, the fork server."""
    return int(_stat(pid)[1])


def start_of(pid: int) -> str | None:
    """When it was started, which tells it from another process with its pid; None when there is none."""
    try:
        return _stat(pid)[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()


def kill_quietly(pid: int, number: int = signal.SIGKILL) -> bool:
    """False when it had gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
