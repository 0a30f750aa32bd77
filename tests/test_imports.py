"""Importing opens nothing, and a worker process never carries the AMQP client."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Imports the named modules one after another and tells, for each, what the operating system was asked for meanwhile.
# What stays open afterwards counts as well: it need not have come through Python.
WATCHED_IMPORTS = """
import importlib, json, os, sys, threading

TELLTALE = ("socket.connect", "socket.bind", "sqlite3.connect", "subprocess.Popen", "os.fork", "os.forkpty",
            "os.exec", "os.posix_spawn", "os.mkdir", "os.remove", "os.rename", "_thread.start_new_thread")
deeds, module = [], ""

def watch(event, args):
    writes = event == "open" and isinstance(args[1], str) and not set(args[1]).isdisjoint("wax+")
    if event in TELLTALE or writes:
        deeds.append(f"{module}: {event} {args}")

def descriptors():
    return set(os.listdir("/dev/fd"))

before = descriptors()
sys.addaudithook(watch)
for module in sys.argv[1:]:
    importlib.import_module(module)
    left = descriptors() - before
    if left:
        deeds.append(f"{module}: left open {left}")
    if threading.active_count() > 1:
        deeds.append(f"{module}: started {threading.enumerate()}")
print(json.dumps(deeds))
"""

LOADED_AFTER = """
import json, sys
{statement}
print(json.dumps(sorted(name.partition(".")[0] for name in sys.modules)))
"""


# Cannot be imported without a driver that has to be compiled.
NEEDS = {"penstock.workers.database.mysqldb": "MySQLdb"}


def modules() -> list[str]:
    names = []
    for path in sorted((ROOT / "penstock").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__main__":
            names.append(".".join(part for part in parts if part != "__init__"))
    return [name for name in names if name not in NEEDS or find_spec(NEEDS[name]) is not None]


def run_python(program: str, *args: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", program, *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    result: list[str] = json.loads(done.stdout)
    return result


def test_importing_any_module_opens_nothing() -> None:
    assert run_python(WATCHED_IMPORTS, *modules()) == []


def test_the_watch_sees_what_an_import_does(tmp_path: Path) -> None:
    (tmp_path / "bold.py").write_text("import socket\nkept = socket.socket()\nopen('note', 'w').close()\n")
    program = f"import sys, os; sys.path.insert(0, {str(tmp_path)!r}); os.chdir({str(tmp_path)!r})\n{WATCHED_IMPORTS}"
    deeds = run_python(program, "bold")
    assert any("open ('note', 'w'" in deed for deed in deeds)
    assert any("left open" in deed for deed in deeds)


@pytest.mark.parametrize(
    "statement",
    [
        "import penstock.workers.entry",
        "from penstock import App, AsyncContext, Backoff, Context, Reject, Retry, Router",
        "import penstock.channels.stub, penstock.channels.frames",
    ],
)
def test_what_a_worker_imports_brings_no_amqp_client(statement: str) -> None:
    loaded = run_python(LOADED_AFTER.format(statement=statement))
    assert "penstock" in loaded
    assert not {"aio_pika", "aiormq", "aiosqlite", "typer"} & set(loaded)


@pytest.mark.parametrize("room", ["reactor", "workers", "channels", "config"])
def test_the_rooms_stand_at_the_root_as_relative_links(room: str) -> None:
    link = ROOT / room
    assert link.is_symlink()
    assert link.readlink() == Path("penstock") / room
    assert (link / "__init__.py").is_file()
