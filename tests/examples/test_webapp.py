"""The CherryPy application over HTTP: many clients at once, executed anew, and as a daemon."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "webapp"
PATIENCE_S = 30.0


class Site:
    """The application as its clients see it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def post(self, order: dict[str, Any]) -> int:
        request = urllib.request.Request(f"{self.url}/orders", data=json.dumps(order).encode())
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                status: int = answer.status
                return status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def wait(self) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.get("processes")
            except OSError:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            else:
                return


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(
        shutil.copytree(EXAMPLE, tmp_path / "webapp", ignore=shutil.ignore_patterns("*.db*", "__pycache__"))
    )


@pytest.fixture
def port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


@pytest.fixture
def site(folder: Path, port: int) -> Iterator[Site]:
    said = folder / "log"
    with (
        said.open("wb") as log,
        subprocess.Popen(
            [sys.executable, "webapp.py", "--port", str(port)], cwd=folder, stdout=log, stderr=log
        ) as server,
    ):
        try:
            site = Site(port)
            site.wait()
            # It answers before, and a signal that comes too early ends it with another code.
            while "Bus STARTED" not in said.read_text("utf-8"):
                time.sleep(0.02)
            yield site
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(PATIENCE_S)
        assert server.returncode == 0, said.read_text("utf-8")


def gone(pids: list[int]) -> bool:
    deadline_s = time.monotonic() + 5
    while any(map(is_alive, pids)) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return not any(map(is_alive, pids))


def is_alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_what_is_no_order_is_refused_with_words(site: Site) -> None:
    assert site.post({"id": 1}) == 400
    assert site.post({"id": "one", "customer": "Ada", "total": 1}) == 400
    with pytest.raises(urllib.error.HTTPError) as refused:
        site.get("orders?above=much")
    with refused.value:
        assert refused.value.code == 400
    assert site.get("orders") == []


def test_many_clients_at_once_are_all_served(site: Site) -> None:
    def client(number: int) -> list[int]:
        statuses = []
        for step in range(15):
            statuses.append(site.post({"id": number * 100 + step, "customer": f"c{number}", "total": step}))
            assert len(site.get(f"orders?above={step - 1}")) >= 1
        return statuses

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(client, range(8)))

    assert answers == [[201] * 15] * 8
    assert site.post({"id": 0, "customer": "again", "total": 1}) == 409
    assert site.get("turnover") == {f"c{number}": sum(range(15)) for number in range(8)}
    found = site.get("processes")
    assert found["orders"] == 120
    assert 2 <= len(found["subprocesses"]) <= 3


def test_a_killed_subprocess_is_replaced(site: Site) -> None:
    assert site.post({"id": 1, "customer": "Ada", "total": 2}) == 201
    killed = site.get("processes")["subprocesses"]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    # A statement that reaches one that is just dying has failed, in words; the next one after that has not.
    assert gone(killed)
    assert site.post({"id": 2, "customer": "Ada", "total": 3}) == 201
    assert site.get("turnover") == {"Ada": 5}


def test_the_autoreload_starts_new_subprocesses_and_leaves_none_of_the_old(site: Site, folder: Path) -> None:
    assert site.post({"id": 1, "customer": "Ada", "total": 2}) == 201
    assert site.get("turnover") == {"Ada": 2}
    before = site.get("processes")

    reports = folder / "reports.py"
    reports.write_text(reports.read_text("utf-8").replace("+ total", "+ total * 10"), encoding="utf-8")
    log, changed_s = folder / "log", time.time()
    # CherryPy notes times of files now and then, and sees only what changes afterwards.
    while "Re-spawning" not in log.read_text("utf-8"):
        changed_s += 10
        os.utime(reports, (changed_s, changed_s))
        time.sleep(1)
    while log.read_text("utf-8").count("Bus STARTED") < 2:
        time.sleep(0.02)
    assert site.get("turnover") == {"Ada": 20}
    after = site.get("processes")
    assert after["server"] == before["server"]
    assert not set(after["subprocesses"]) & set(before["subprocesses"])
    assert gone(before["subprocesses"])
    assert site.post({"id": 2, "customer": "Bob", "total": 1}) == 201


def test_a_daemon_has_subprocesses_of_its_own(folder: Path, port: int) -> None:
    pid_file = folder / "webapp.pid"
    started = subprocess.run(
        [sys.executable, "webapp.py", "--port", str(port), "--daemon", str(pid_file)],
        cwd=folder, capture_output=True, text=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    site = Site(port)
    site.wait()
    daemon = int(pid_file.read_text("utf-8"))
    try:
        assert site.post({"id": 1, "customer": "Ada", "total": 2}) == 201
        assert site.get("turnover") == {"Ada": 2}
        found = site.get("processes")
        assert found["server"] == daemon, started.stderr
        assert all(psutil.Process(pid).ppid() == daemon for pid in found["subprocesses"])
    finally:
        os.kill(daemon, signal.SIGTERM)
    assert gone([daemon, *found["subprocesses"]])
    assert not pid_file.exists()


def test_the_page_s_requests_are_answered(site: Site) -> None:
    page = (EXAMPLE / "README.md").read_text("utf-8")
    paths = re.findall(r"^curl '?http://localhost:8080/(\S+?)'?$", page, re.MULTILINE)
    body = re.findall(r"^curl -d '(\S.*)' http://localhost:8080/orders$", page, re.MULTILINE)
    assert site.post(json.loads(body[0])) == 201
    answers = [site.get(path) for path in paths]
    assert answers[:2] == [[{"id": 1, "customer": "Ada", "total": 9.99}], {"Ada": 9.99}]
