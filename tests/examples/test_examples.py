"""The examples as somebody meets them: copied, started, published to; what their pages say is what happens."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.program import DEADLINE_S, SCRIPT, until

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy: a run leaves files."""
    ignored = shutil.ignore_patterns("*.db*", "__pycache__")
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=ignored))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "tmp").mkdir()
    path = f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "TMPDIR": str(tmp_path / "tmp")}


@pytest.fixture
def service(examples: Path, environment: dict[str, str]) -> Iterator[Path]:
    """The orders service on the embedded bus, as its page starts it; gives its folder."""
    folder = examples / "orders"
    (command,) = commands(folder, containing="penstock run")
    with subprocess.Popen(command.split(), cwd=folder, env=environment, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if b"consuming" in line:
                    break
            yield folder
        finally:
            process.send_signal(signal.SIGTERM)
            _, rest = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 0, rest


def commands(folder: Path, *, containing: str) -> list[str]:
    """Lines of the shell blocks in a page that contain a word."""
    blocks = re.findall(r"```sh\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if containing in line]


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def query(folder: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        return connection.execute(statement).fetchall()


def test_orders_does_what_its_page_says(service: Path, environment: dict[str, str]) -> None:
    for command in commands(service, containing="penstock publish"):
        run(command, service, environment)

    until(lambda: query(service, "SELECT * FROM turnover") == [("Ada", 999)], "Ada's turnover")
    assert query(service, "SELECT id, customer, total FROM orders") == [(1, "Ada", 9.99)]
    (dead_list,) = commands(service, containing="penstock dead")
    until(lambda: "valid integer" in run(dead_list, service, environment), "a dead letter with its reason")


def test_orders_runs_over_rabbitmq_with_nothing_else_changed(
    examples: Path, environment: dict[str, str], amqp_url: str
) -> None:
    folder = examples / "orders"
    words = [str(SCRIPT), "run", "orders:app", "--bus", amqp_url]
    with subprocess.Popen(words, cwd=folder, env=environment, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if b"consuming" in line:
                    break
            published = commands(folder, containing="penstock publish")[0]
            run(f"{published} --bus {amqp_url}", folder, environment)
            until(lambda: query(folder, "SELECT * FROM turnover") == [("Ada", 999)], "Ada's turnover")
        finally:
            process.send_signal(signal.SIGTERM)
            _, rest = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, rest


def test_the_flask_publisher_reaches_the_service(service: Path, environment: dict[str, str]) -> None:
    folder = service.parent / "flask_publisher"
    (command,) = commands(folder, containing="flask --app")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        ["sh", "-c", f"exec env {command} --port {port}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as web:
        try:
            assert web.stderr is not None
            for line in web.stderr:
                if b"Running on" in line:
                    break
            order = json.dumps({"id": 2, "total": "19.99", "customer": "Bob"}).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{port}/orders", data=order)
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
                assert (answer.status, json.load(answer)) == (202, {"message": "order-2"})
        finally:
            web.terminate()
            web.communicate(timeout=DEADLINE_S)
    until(lambda: query(service, "SELECT * FROM turnover") == [("Bob", 1999)], "Bob's turnover")


@pytest.mark.parametrize("name", ["orders", "flask_publisher", "thread_connections", "webapp"])
def test_the_tests_that_come_with_an_example_run_where_it_lies(examples: Path, name: str) -> None:
    # Without our own settings for pytest, as in somebody's project.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=examples / name,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["orders", "flask_publisher", "thread_connections", "webapp"])
def test_a_page_is_short(name: str) -> None:
    lines = (EXAMPLES / name / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 25
