"""systemd's notifications, on a real socket, from a real service."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from penstock.health.readiness import Readiness
from penstock.health.systemd import Systemd
from tests.cli.program import Folder
from tests.health.watched import APP, watched

WATCHDOG_S = 1.0
#: Between two keep-alives systemd expects half of it; what a loaded machine adds.
LATE_S = 0.4


class Manager:
    """systemd's end of the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.told: list[tuple[float, str]] = []

    def wait(self, line: str, *, timeout_s: float = 30.0) -> None:
        """Wait for the next notification that says this."""
        ends_s = time.monotonic() + timeout_s
        while (left_s := ends_s - time.monotonic()) > 0:
            self._sock.settimeout(left_s)
            try:
                text = self._sock.recv(65536).decode()
            except TimeoutError:
                break
            self.told += [(time.monotonic(), part) for part in text.split("\n")]
            if any(part.startswith(line) for part in text.split("\n")):
                return
        raise AssertionError(f"nobody told {line!r}: {self.told}")

    def says(self, line: str) -> bool:
        """Whether it was told."""
        return any(part.startswith(line) for _, part in self.told)


@contextmanager
def manager(folder: Folder, *, abstract: bool = False) -> Iterator[Manager]:
    """A socket to notify, in the environment of what the folder runs."""
    name = f"@penstock-test-{os.getpid()}-{time.monotonic_ns()}" if abstract else str(folder.path / "notify")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind("\0" + name[1:] if abstract else name)
        folder.environment |= {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        folder.write("watched.py", APP)
        yield Manager(sock)


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_of_the_start_the_life_and_the_end(folder: Folder, abstract: bool) -> None:
    with manager(folder, abstract=abstract) as systemd, folder.running("watched") as service:
        systemd.wait("READY=1")
        assert systemd.says("STATUS=consuming 2 queues")
        assert systemd.says("EXTEND_TIMEOUT_USEC=")
        for _ in range(4):
            systemd.wait("WATCHDOG=1")
        assert not systemd.says("STOPPING=1")
        service.terminate()
        systemd.wait("STOPPING=1")
        assert service.wait() == 0

    ready_s = next(at_s for at_s, line in systemd.told if line == "READY=1")
    kept_s = [at_s for at_s, line in systemd.told if line == "WATCHDOG=1" and at_s >= ready_s]
    pauses = [after - before for before, after in pairwise(kept_s)]
    assert max(pauses) < WATCHDOG_S / 2 + LATE_S
    assert [line for _, line in systemd.told].count("READY=1") == 1


def test_a_blocked_loop_sends_no_keep_alive(folder: Folder) -> None:
    with manager(folder) as systemd, folder.running("watched") as service:
        systemd.wait("READY=1")
        del folder.environment["NOTIFY_SOCKET"]
        folder.penstock("publish", "blocks", '{"s": 3}')
        service.wait_line("the loop is blocked")
        systemd.told.clear()
        service.wait_line("the loop turns again")
        systemd.wait("WATCHDOG=1")
        # What came in between stands in the socket, too.
        kept = [line for _, line in systemd.told if line == "WATCHDOG=1"]
        service.terminate()
        assert service.wait() == 0

    assert len(kept) <= 2


def test_no_process_of_ours_speaks_in_the_services_place(folder: Folder) -> None:
    with manager(folder) as systemd, folder.running("watched") as service:
        systemd.wait("READY=1")
        children = psutil.Process(service.process.pid).children(recursive=True)
        environments = [child.environ() for child in children]
        service.terminate()
        assert service.wait() == 0

    assert environments
    assert not [one for one in environments if {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & one.keys()]


def test_what_systemd_sends_after_missed_keep_alives_shows_where_the_loop_stood(folder: Folder) -> None:
    with watched(folder) as service:
        service.until_ready()
        folder.penstock("publish", "blocks", '{"s": 60, "lock": true}')
        # The first dump is written to its end: a second one that begins amid it writes nothing.
        service.service.wait_line("Timeout (0:00:00.5")
        service.service.wait_line("in blocks_the_loop")
        service.service.wait_line("in <module>")
        service.service.terminate(signal.SIGABRT)
        assert service.service.wait() == -signal.SIGABRT

    after = "".join(service.service.log).partition("Fatal Python error: Aborted")[2]
    assert "in blocks_the_loop" in after


def of(environment: dict[str, str]) -> Systemd | None:
    readiness = Readiness(list, None, asyncio.Event())
    return Systemd.from_environment(environment, readiness, when_ready="consuming")


def test_the_environment_decides_whether_anybody_listens(tmp_path: Path) -> None:
    address = str(tmp_path / "nobody")
    other = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid() + 1)}

    assert of({}) is None
    assert of({"NOTIFY_SOCKET": "vsock:2:1234"}) is None
    assert of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "soon"}) is not None
    for_another = of(other)

    assert for_another is not None
    assert other == {}
    # Nobody listens: what is told is lost, and that is all.
    for_another.tell()
    assert repr(for_another) == "<Systemd [consuming]>"
