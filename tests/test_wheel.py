"""What people install: the built wheel, beside code whose names are the names of our rooms."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"reactor", "workers", "channels", "config"}
PATIENCE_S = 30.0

# The user's program: its own config.py and workers package, and Django Channels, all imported under those names.
ORDERS = """
import asyncio
import json
import os

import channels.layers
import config
import workers
from pydantic import BaseModel
from sqlalchemy import text

import penstock
from penstock import App, AsyncContext, Context

app = App()


class Order(BaseModel):
    id: int


@app.handler("orders.created")
def store(order: Order, ctx: Context) -> None:
    ctx.connection.execute(text("insert into orders values (:id, :shop)"), {"id": order.id, "shop": config.SHOP})
    ctx.bus.publish(
        "orders.stored",
        {
            "id": order.id,
            "process": os.getpid(),
            "penstock": penstock.__file__,
            "workers": workers.__file__,
            "channels": channels.layers.__file__,
        },
    )


@app.handler("orders.stored")
async def announce(event: dict, ctx: AsyncContext) -> None:
    _, listener = await asyncio.open_connection("127.0.0.1", config.LISTENER)
    listener.write(json.dumps(event | {"reactor": os.getpid()}).encode() + b"\\n")
    await listener.drain()
    listener.close()
    await listener.wait_closed()
"""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=100,
    )
    return folder


@pytest.fixture(scope="module")
def installed(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that has the wheel, and sees our dependencies but not this tree."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    site_packages = home / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    # A line of a .pth file is a path; .pth files further down that path, such as our editable install, are not read.
    (site_packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    (wheel,) = artifacts.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python")]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", str(wheel)],
        check=True,
        timeout=60,
    )
    return home / "bin"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The folder of the user's program, with an empty table in its database."""
    (tmp_path / "orders.py").write_text(ORDERS)
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").touch()
    (tmp_path / "reactor.py").write_text("raise RuntimeError('nobody asked for this one')\n")
    with sqlite3.connect(tmp_path / "app.db") as database:
        database.execute("create table orders (id integer primary key, shop text)")
    database.close()
    return tmp_path


def test_nothing_of_ours_but_penstock_is_at_the_top_of_the_wheel(artifacts: Path) -> None:
    (wheel,) = artifacts.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith("/entry_points.txt"))
        assert "penstock = penstock.cli:main" in archive.read(entry_points).decode()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"penstock"}
    assert "penstock/py.typed" in names
    assert all(f"penstock/{room}/__init__.py" in names for room in ROOMS)


def test_the_sdist_has_the_rooms_once(artifacts: Path) -> None:
    (sdist,) = artifacts.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert "penstock/reactor/__init__.py" in names
    assert not ROOMS & {name.partition("/")[0] for name in names}


def test_an_installed_wheel_runs_a_message_through_a_worker_beside_strangers(
    installed: Path, program: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        port = listener.getsockname()[1]
        (program / "config.py").write_text(f"SHOP = 'corner shop'\nLISTENER = {port}\n")
        # Given the service, consuming
        service = start(
            installed, program, "run", "orders:app", "--database", "sqlite:///app.db", "--processes", "1"
        )
        with service:
            try:
                read_until(service, "consuming")
                # When a message is published by another process
                run(installed, program, "publish", "orders.created", '{"id": 7}')
                # Then it has gone through a worker process, and what the worker published through the loop
                event = receive(listener)
                service.send_signal(signal.SIGTERM)
                output, _ = service.communicate(timeout=PATIENCE_S)
            finally:
                service.kill()
    assert service.returncode == 0, output
    assert event["id"] == 7
    assert event["reactor"] == service.pid
    assert event["process"] != service.pid
    # And every name meant what the user's program meant by it
    assert Path(event["penstock"]).is_relative_to(installed.parent)
    assert Path(event["workers"]) == program / "workers" / "__init__.py"
    assert Path(event["channels"]).is_relative_to(sysconfig.get_path("purelib"))
    with sqlite3.connect(program / "app.db") as database:
        rows = database.execute("select id, shop from orders").fetchall()
    database.close()
    assert rows == [(7, "corner shop")]


def start(installed: Path, program: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(installed / "penstock"), *words, "--bus", "sqlite:///bus.db"],
        cwd=program,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(installed: Path, program: Path, *words: str) -> None:
    with start(installed, program, *words) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def read_until(service: subprocess.Popen[str], event: str) -> None:
    assert service.stdout is not None
    seen = []
    for line in service.stdout:
        seen.append(line)
        if event in line:
            return
    pytest.fail(f"the service ended without saying {event!r}:\n{''.join(seen)}")


def receive(listener: socket.socket) -> dict[str, Any]:
    peer, _ = listener.accept()
    with peer, peer.makefile() as lines:
        received: dict[str, Any] = json.loads(lines.readline())
    return received
