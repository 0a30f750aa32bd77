"""Every Python block of the documents is a whole file: it passes mypy, it is imported or run, and prints what is said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from penstock.app.application import load_app
from penstock.buses.address import open_bus
from penstock.config import load_settings
from tests.docs.pages import PAGES, ROOT, Block, blocks, outputs

#: What the documents write where a reader has a broker of his own.
READERS_BROKER: Final = re.compile(r"amqp://guest:guest@localhost(:5672)?/")
#: What every application must survive before it is called good: each handler's payload type is one that can be read.
LOADED: Final = """
import sys
from penstock.app.application import App
from penstock.app.decode import Decoder
for name in sys.argv[1:]:
    module = __import__(name, fromlist=["app"])
    for app in [value for value in vars(module).values() if isinstance(value, App)]:
        assert app.handlers, f"{name} has an App without handlers"
        for handler in app.handlers:
            Decoder(handler, body_bytes=1)
"""
PAGES_WITH_PROGRAMS: Final = [page for page in PAGES if any(block.page == page for block in blocks("python"))]


def written(page: Path, folder: Path) -> dict[str, Block]:
    """Write the page's files into a folder, as its reader would."""
    files: dict[str, Block] = {}
    for block in blocks("python"):
        if block.page != page or block.file_name is None:
            continue
        assert block.file_name not in files, f"{block}: {block.file_name} stands twice on the page"
        path = folder / block.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        files[block.file_name] = block
    return files


def python(folder: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_python_block_is_a_whole_file_with_its_name() -> None:
    assert [str(block) for block in blocks("python") if block.file_name is None] == []


@pytest.mark.parametrize("page", PAGES_WITH_PROGRAMS, ids=lambda page: page.name)
def test_the_programs_of_a_page_can_be_imported_and_their_handlers_used(page: Path, tmp_path: Path) -> None:
    files = written(page, tmp_path)
    modules = [
        name.removesuffix(".py").replace("/", ".") for name, block in files.items() if not is_script(block)
    ]
    python(tmp_path, "-c", LOADED, *modules)


def is_script(block: Block) -> bool:
    """True for a program that does its work when it is started; importing it would do the work, too."""
    return (
        re.search(r"^(if __name__|asyncio\.run|with |client = |\w+\.send\()", block.text, re.MULTILINE)
        is not None
    )


@pytest.mark.parametrize("page", PAGES_WITH_PROGRAMS, ids=lambda page: page.name)
async def test_the_programs_of_a_page_run_and_print_what_the_page_says(
    page: Path, tmp_path: Path, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = written(page, tmp_path)
    scripts = [name for name, block in files.items() if is_script(block)]
    if any(name.startswith("test_") for name in files):
        python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio")
    if page.name == "publish.md":
        # A queue is there because its service was started before.
        await declare_all(tmp_path, "orders", amqp_url, monkeypatch)
    for name in scripts:
        path = tmp_path / name
        path.write_text(READERS_BROKER.sub(amqp_url, path.read_text("utf-8")), encoding="utf-8")
        printed = python(tmp_path, name, PENSTOCK_BUS__URL=amqp_url)
        said = outputs().get(files[name])
        assert said is None or printed == said, f"{files[name]}"
    assert {str(block) for block in files.values() if block in outputs()} <= {
        str(files[name]) for name in scripts
    }


async def declare_all(folder: Path, module: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    app = load_app(f"{module}:app")
    monkeypatch.delitem(sys.modules, module)
    bus = open_bus(load_settings({"bus": {"url": url}}, directory=folder).bus)
    await bus.connect()
    try:
        await bus.declare([handler.queue for handler in app.handlers])
    finally:
        await bus.aclose()


def test_the_programs_pass_the_type_checker(tmp_path: Path) -> None:
    folders = []
    for page in PAGES_WITH_PROGRAMS:
        folder = tmp_path / page.stem
        folder.mkdir()
        written(page, folder)
        folders.append(folder)
    faults = []
    for folder in folders:
        done = subprocess.run(
            [
                sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"),
                "--cache-dir", str(tmp_path / "cache"), "--explicit-package-bases", ".",
            ],
            cwd=folder,
            env={**os.environ, "MYPYPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )  # fmt: skip
        if done.returncode:
            faults.append(f"{folder.name}: {done.stdout}{done.stderr}")
    assert not faults, "\n".join(faults)
