"""`penstock demo` end to end: it ends by itself, and what it prints works when it is pasted."""

from __future__ import annotations

import re
import shlex
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from penstock.cli.demo.messages import BROKEN
from penstock.cli.exits import Exit
from penstock.demo.library import source_files
from penstock.demo.parsing import parse
from tests.cli.program import DEADLINE_S, SCRIPT, Folder, until
from tests.cli.services import depths

#: Its own limit is half a minute on two cores that have nothing else to do.
PATIENCE_S = 110


def run_demo(folder: Folder, *words: str) -> str:
    done = subprocess.run(
        [str(SCRIPT), "demo", *words],
        cwd=folder.path,
        env=folder.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (Exit.OK, "")
    return done.stdout


def demo_folder(folder: Folder) -> Path:
    (found,) = folder.temporary.glob("penstock-demo-*")
    return found


def check_what_is_there(folder: Folder, said: str, queue: str) -> None:
    """Every file is indexed and counted once, the three broken messages are dead, and the printed command shows one."""
    files = len(source_files())
    assert f"{files:,} files and {BROKEN} broken messages: {2 * files + BROKEN:,} messages" in said
    with closing(sqlite3.connect(demo_folder(folder) / "index.db")) as connection:
        (modules,) = connection.execute("SELECT count(*) FROM demo_modules").fetchone()
        (counted,) = connection.execute("SELECT sum(modules) FROM demo_packages").fetchone()
        assert (modules, counted) == (files, files)
        wrong = connection.execute(
            "SELECT name FROM demo_packages p WHERE (lines, modules) != "
            "(SELECT sum(lines), count(*) FROM demo_modules m WHERE m.package = p.name)"
        ).fetchall()
        assert wrong == []
        (functions,) = connection.execute("SELECT count(*) FROM demo_functions").fetchone()
        (total,) = connection.execute("SELECT sum(functions) FROM demo_packages").fetchone()
        assert functions == total > 10_000
    for name in ("broken-not-json", "broken-not-a-path", "broken-no-such-file"):
        assert said.count(name) >= 1
    command = said.rstrip().splitlines()[-1]
    assert f"dead show {queue} broken-no-such-file" in command
    shown = subprocess.run(
        ["sh", "-c", command],
        cwd="/",
        env=folder.environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert shown.returncode == Exit.OK, shown.stderr
    assert "FileNotFoundError" in shown.stdout
    assert "Traceback" in shown.stdout


def test_it_indexes_the_standard_library_on_the_embedded_bus(folder: Folder) -> None:
    said = run_demo(folder)

    check_what_is_there(folder, said, "files.found")
    assert str(demo_folder(folder) / "index.db") in said
    assert "Largest packages" in said or re.search(r"^package +modules", said, re.MULTILINE)


def test_it_runs_again_over_rabbitmq_whatever_an_earlier_one_has_left(folder: Folder, amqp_url: str) -> None:
    # Given one that was interrupted as soon as there was something to handle
    queue = "penstock-demo.files.found"
    with subprocess.Popen(
        [str(SCRIPT), "demo", "--bus", amqp_url],
        cwd=folder.path,
        env=folder.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as first:
        until(lambda: bool(depths(amqp_url, queue)[0]), "messages in the queue")
        first.send_signal(signal.SIGINT)
        assert first.stderr is not None
        told = first.stderr.read()
        assert first.wait(DEADLINE_S) == Exit.OK
    assert re.match(r"stopped: [\d,]+ of [\d,]+ messages were settled", told)
    interrupted = demo_folder(folder)

    # When it runs to its end
    said = run_demo(folder, "--bus", amqp_url)

    # Then it is right, and the folder of the first is gone
    check_what_is_there(folder, said, queue)
    assert not interrupted.exists()
    assert depths(amqp_url, queue, "penstock-demo.files.indexed", f"{queue}.dead") == [0, 0, BROKEN]


def test_a_password_goes_into_the_folder_and_not_onto_the_screen(folder: Folder) -> None:
    # The command is made without a broker: what it prints depends on the URL alone.
    from penstock.cli.demo.folder import DemoFolder
    from penstock.cli.demo.report import Run, next_command

    made = DemoFolder.make(keeps_earlier=True)
    try:
        made.write_settings("amqp://user:S3CR3T@host/", made.database_url)
        run = Run(files=1, settled=1, took_s=1, processes=1, queue="q", bus_flag=None)
        command = next_command(run, "some id", made)
        assert "S3CR3T" not in command
        assert shlex.split(command)[:3] == ["cd", str(made.path), "&&"]
        assert shlex.split(command)[-1] == "some id"
        settings = made.path / "penstock.toml"
        assert "S3CR3T" in settings.read_text(encoding="utf-8")
        assert settings.stat().st_mode & 0o077 == 0
    finally:
        made.release()
        made.remove()


def test_statements_are_found_however_deep_they_are() -> None:
    source = b"""
import a.b
try:
    from . import near
except ImportError:
    from ..far import thing
else:
    class One:
        def method(self, x, /, *, y): ...
match 1:
    case 1:
        async def two(): ...
    case _:
        with open("x") as file:
            def three(): import c
"""
    parsed = parse(source, "package.module", is_package=False)

    assert parsed.imports == {"a.b", "package", "far", "c"}
    assert parsed.classes == [("One", 8)]
    assert sorted(parsed.functions) == [("method", 9, 3), ("three", 15, 0), ("two", 12, 0)]
    assert parse(b"def", "broken", is_package=False).fault is not None


def test_relative_imports_are_named_in_full() -> None:
    package = parse(b"from . import a\nfrom .b import c\nfrom ..d import e\n", "one.two", is_package=True)
    module = parse(b"from . import a\nfrom .b import c\n", "one.two.three", is_package=False)

    assert package.imports == {"one.two", "one.two.b", "one.d"}
    assert module.imports == {"one.two", "one.two.b"}
