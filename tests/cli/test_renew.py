"""SIGHUP: the workers are replaced one by one and import the handlers anew, while messages come in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Self

import pytest

from penstock import Client
from tests.cli.program import DEADLINE_S, SCRIPT, Folder

HANDLERS = """
from sqlalchemy import text
from penstock import App, Context

app = App()

@app.handler("work")
def work(payload: dict, ctx: Context) -> None:
    note = f"{ctx.message.id} VERSION"
    ctx.connection.execute(text("INSERT INTO notes VALUES (:what, 0)"), {"what": note})
"""
# Makes its terminal the one that controls it, as a login shell's is.
ON_TERMINAL = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def code(folder: Folder) -> Path:
    """The file with the handlers, in their first version."""
    return folder.write("live.py", HANDLERS.replace("VERSION", "one"))


def change(code: Path, version: str) -> None:
    """At once, as a deployment does it: nobody reads half a file. Each version has a length of its own."""
    new = code.with_suffix(".new")
    new.write_text(HANDLERS.replace("VERSION", version), encoding="utf-8")
    new.rename(code)


class Stream:
    """Publishes without a pause, and knows what was confirmed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ends = threading.Event()
        self.confirmed: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        with Client(self._url) as client:
            while not self._ends.is_set():
                id_ = f"m{len(self.confirmed)}"
                client.publish("work", {}, id=id_)
                self.confirmed.append(id_)


def test_new_handlers_take_over_while_messages_come_in_and_each_runs_once(
    folder: Folder, code: Path, amqp_url: str
) -> None:
    with folder.running("live", "--bus", amqp_url, "--processes", "2") as service:
        service.wait_line('"consuming"')
        with Stream(amqp_url) as stream:
            folder.wait_note("m5 one")
            change(code, "version two")
            service.terminate(signal.SIGHUP)
            service.wait_line("every worker has been replaced")
            came = len(stream.confirmed)
            # What was sent before went to old slots at the latest; this one cannot.
            folder.wait_note(f"m{came + 100} version two")
        folder.wait_note(f"{stream.confirmed[-1]} version two")
        service.terminate()
        assert service.wait() == 0

    stopped = service.events()[-1]
    counts = Counter(note.split()[0] for note in folder.notes())
    assert counts == dict.fromkeys(stream.confirmed, 1)
    assert (stopped["retried"], stopped["dead"], stopped["handed_back"]) == (0, 0, 0)


def test_code_that_cannot_be_imported_leaves_the_old_workers_at_work_until_it_can(
    folder: Folder, code: Path
) -> None:
    with folder.running("live") as service, Client(f"sqlite:///{folder.path}/bus.db") as client:
        service.wait_line('"consuming"')
        new = code.with_suffix(".new")
        new.write_text("import nothing_of_that_name", encoding="utf-8")
        new.rename(code)

        service.terminate(signal.SIGHUP)
        line = service.wait_line("a worker could not be started")
        client.publish("work", {}, id="meanwhile")
        folder.wait_note("meanwhile one")
        change(code, "version two")
        service.wait_line("every worker has been replaced")
        client.publish("work", {}, id="after")
        folder.wait_note("after version two")

        service.terminate()
        assert service.wait() == 0
    assert "nothing_of_that_name" in line


def test_a_queue_that_has_no_handler_any_more_is_said_in_words(folder: Folder, code: Path) -> None:
    with folder.running("live") as service:
        service.wait_line('"consuming"')
        code.write_text(HANDLERS.replace('"work"', '"renamed"'), encoding="utf-8")

        service.terminate(signal.SIGHUP)

        assert "no handler any more for 'work'" in service.wait_line("a worker could not be started")
        service.terminate()
        assert service.wait() == 0


def test_the_end_of_its_terminal_drains_it(folder: Folder, code: Path) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", ON_TERMINAL, str(SCRIPT), "run", code.stem, "--log-level", "info"]
    with subprocess.Popen(
        command,
        cwd=folder.path,
        env=folder.environment,
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(theirs)
        assert process.stderr is not None
        while "consuming" not in process.stderr.readline():
            assert process.poll() is None

        os.close(ours)

        assert process.wait(DEADLINE_S) == 0
        assert '"stopped"' in process.stderr.read()
