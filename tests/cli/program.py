"""`penstock` as a process: run to its end, or started, watched by its log and signalled."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from penstock.cli.signals import ECHO_S
from penstock.health.file import default_health_file, read_health

DEADLINE_S: Final = 60.0
#: The console script where it is installed; its main module is a file, which children would import again.
SCRIPT: Final = Path(sys.executable).with_name("penstock")
MODULE: Final = (sys.executable, "-m", "penstock")
HERE: Final = Path(__file__).parent


class Folder:
    """A working directory with the application, a database and an embedded bus."""

    def __init__(self, path: Path, **environment: str) -> None:
        self.path = path
        self.temporary = path / "tmp"
        self.temporary.mkdir()
        shutil.copy(HERE / "shop.py", path)
        self.environment = {
            **os.environ,
            # Health files and demo folders of other tests are nobody's business here.
            "TMPDIR": str(self.temporary),
            "COLUMNS": "200",
            **environment,
        }
        with closing(sqlite3.connect(path / "app.db")) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE notes (what TEXT, pid INTEGER)")
        self.write(
            "penstock.toml",
            '[bus]\nurl = "sqlite:///bus.db"\n[database]\nurl = "sqlite:///app.db"\nsynchronous = "OFF"\n'
            "[workers]\nprocesses = 1\n",
        )

    def write(self, name: str, text: str) -> Path:
        """Write a file in the folder."""
        path = self.path / name
        path.write_text(text, encoding="utf-8")
        return path

    def penstock(
        self, *words: str, stdin: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [str(SCRIPT), *words],
            cwd=self.path,
            env={**self.environment, **environment},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=DEADLINE_S,
            check=False,
        )

    def on_a_terminal(self, *words: str) -> str:
        """What a command writes when its output is a terminal of 120 columns."""
        ours, theirs = os.openpty()
        environment = {**self.environment, "TERM": "xterm-256color", "COLUMNS": "120"}
        with subprocess.Popen(
            [str(SCRIPT), *words], cwd=self.path, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
        ) as process:
            os.close(theirs)
            written = _read_all(ours)
            assert process.wait(DEADLINE_S) == 0, written
        return written.decode()

    @contextmanager
    def running(
        self, *words: str, command: tuple[str, ...] = (str(SCRIPT),), reads_log: bool = True
    ) -> Iterator[Running]:
        """A service that is killed at the end of the block if it still runs."""
        process = subprocess.Popen(
            [*command, "run", *words],
            cwd=self.path,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        with process:
            try:
                yield Running(process, reads_log=reads_log)
            finally:
                if process.poll() is None:
                    process.kill()

    def notes(self) -> list[str]:
        """What handlers have written, in order."""
        return [what for what, _ in self.rows()]

    def rows(self) -> list[tuple[str, int]]:
        """What handlers have written, and in which process."""
        with closing(sqlite3.connect(self.path / "app.db")) as connection:
            return list(connection.execute("SELECT what, pid FROM notes ORDER BY rowid"))

    def wait_note(self, what: str) -> None:
        """Wait until a handler has committed this."""
        until(lambda: what in self.notes(), what)

    def wait_stopping(self, address: str) -> None:
        """Wait until the service says, in its health file, that it no longer consumes."""
        path = default_health_file(address)
        own = self.temporary / path.parent.name / path.name

        def is_stopping() -> bool:
            health = read_health(own)
            return health is not None and not health.is_ready

        until(is_stopping, "a health file that says not ready")


class Running:
    """A service that was started."""

    def __init__(self, process: subprocess.Popen[bytes], *, reads_log: bool) -> None:
        self.process = process
        self.log: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        if reads_log:
            threading.Thread(target=self._read, daemon=True).start()

    def wait_line(self, words: str) -> str:
        """The next line of the log that contains the words."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            try:
                line = self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                break
            if line is None:
                break
            self.log.append(line)
            if words in line:
                return line
        raise AssertionError(f"no line with {words!r} in:\n" + "".join(self.log))

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask for a stop."""
        self.process.send_signal(number)

    def hurry(self) -> None:
        """Ask again and again until it ends: two requests within a moment count as one."""
        while self.process.poll() is None:
            self.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(4 * ECHO_S)

    def wait(self) -> int:
        """The exit code; the rest of the log is read."""
        code = self.process.wait(DEADLINE_S)
        while (line := self._lines.get(timeout=DEADLINE_S)) is not None:
            self.log.append(line)
        return code

    def events(self) -> list[dict[str, Any]]:
        """The log's lines as objects; every one of them is JSON."""
        return [json.loads(line) for line in self.log]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line.decode())
        self._lines.put(None)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that another process does, and that it does not tell."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.02)


def _read_all(terminal: int) -> bytes:
    parts: list[bytes] = []
    with os.fdopen(terminal, "rb", buffering=0) as file:
        while True:
            try:
                part = file.read(65536)
            except OSError:  # how Linux says that the other end is closed
                return b"".join(parts)
            if not part:
                return b"".join(parts)
            parts.append(part)
