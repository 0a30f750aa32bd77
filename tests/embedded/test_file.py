"""The file: made once by whoever comes first, refused in words when it is not ours."""

import asyncio
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from penstock.buses.address import open_bus
from penstock.buses.embedded import EmbeddedBus, file, forks
from penstock.buses.embedded.file import open_file, path_of
from penstock.buses.embedded.schema import APPLICATION_ID, VERSION
from penstock.errors import BusUnavailable, ConfigurationError
from tests.embedded.conftest import WORK, NewBus, publish
from tests.embedded.section import section_of


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite://", "sqlite:///:memory:", "sqlite:///bus.db?mode=ro"])
def test_a_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape("sqlite:///penstock.db")):
        path_of(url)


def test_urls_are_relative_with_three_strokes_and_absolute_with_four(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert path_of("sqlite:///data/bus.db") == tmp_path.resolve() / "data" / "bus.db"
    assert path_of("sqlite:////var/lib/bus.db") == Path("/var/lib/bus.db").resolve()


def test_a_link_leads_to_the_same_bus(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "bus.db")

    assert path_of(f"sqlite:///{tmp_path}/link.db") == tmp_path.resolve() / "bus.db"


def test_a_new_file_is_durable_and_nobody_elses(path: Path) -> None:
    with closing(open_file(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)

    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    before = path.read_bytes()

    _is_refused(path, "another program's SQLite database")

    assert path.read_bytes() == before
    assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name]


def test_a_newer_penstocks_file_is_refused_and_left_alone(path: Path) -> None:
    open_file(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()

    _is_refused(path, "newer Penstock")

    assert path.read_bytes() == before


def test_what_is_no_database_is_refused_with_the_way_out(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 1000)

    _is_refused(path, "recover")

    assert path.read_bytes() == b"Dear diary, " * 1000


def test_a_damaged_file_is_said_to_be_damaged(path: Path) -> None:
    asyncio.run(_fill(path, 500))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))

    _is_refused(path, "damaged")


def test_a_folder_in_the_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir()

    _is_refused(path, "cannot be opened")


def test_a_missing_folder_is_named_with_the_command_that_makes_it(path: Path) -> None:
    _is_refused(path.parent / "no" / "bus.db", "mkdir -p")


def test_a_file_that_stays_locked_is_refused_after_the_timeout(path: Path) -> None:
    open_file(path).close()
    with _locked(path):
        _is_refused(path, "fuser")

    # Nothing was kept back by the refusal.
    asyncio.run(_fill(path, 1))


def test_a_file_that_another_process_makes_amid_the_look_at_it_is_ours(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_connect = forks.connect
    made: list[bool] = []

    def connect(at: Path, *, timeout_s: float) -> sqlite3.Connection:
        connection = plain_connect(at, timeout_s=timeout_s)
        connection.set_trace_callback(make)
        return connection

    def make(statement: str) -> None:
        if statement != "PRAGMA user_version" or made:
            return
        made.append(True)
        with (
            closing(sqlite3.connect(path, timeout=0)) as other,
            # It has to wait for whoever looks.
            suppress(sqlite3.OperationalError),
        ):
            other.executescript(
                f"BEGIN; CREATE TABLE x (y); PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {VERSION}; COMMIT"
            )

    monkeypatch.setattr(file, "connect", connect)
    open_file(path).close()
    assert made


async def test_many_processes_may_make_the_file_at_once(path: Path) -> None:
    script = (
        "import asyncio, sys; from tests.embedded.section import section_of\n"
        "from penstock.buses.embedded import EmbeddedBus\n"
        "from penstock.app.queues import QueueDeclaration\n"
        "async def main():\n"
        "    bus = EmbeddedBus(section_of(sys.argv[1]))\n"
        "    sys.stdin.read(1)\n"
        "    await bus.connect()\n"
        "    await bus.declare([QueueDeclaration(name='work')])\n"
        "    await bus.aclose()\n"
        "asyncio.run(main())\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-c", script, str(path), stdin=asyncio.subprocess.PIPE
        )
        for _ in range(6)
    ]

    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"!")

    assert [await process.wait() for process in processes] == [0] * 6
    with closing(open_file(path)) as connection:
        assert connection.execute("SELECT count(*) FROM queues").fetchone() == (2,)
        assert connection.execute("SELECT count(*) FROM clocks").fetchone() == (1,)


async def test_a_closed_bus_leaves_its_file_and_nothing_else(path: Path, new_bus: NewBus) -> None:
    bus = await new_bus()
    await publish(bus, "a")
    async with bus.hold("work", limit=1) as held:
        assert [delivery.message_id async for delivery in held] == ["a"]

    await bus.aclose()

    assert list((path.parent / "bus.db-pipes").iterdir()) == []
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["bus.db", "bus.db-pipes"]


def test_importing_opens_nothing_and_loads_no_amqp(tmp_path: Path) -> None:
    script = (
        "import sys, threading, penstock.buses.embedded, penstock.buses.address\n"
        "from tests.embedded.section import section_of\n"
        "bus = penstock.buses.address.open_bus(section_of('bus.db'))\n"
        "assert type(bus).__name__ == 'EmbeddedBus', bus\n"
        "assert threading.active_count() == 1\n"
        "assert not {'aio_pika', 'aiormq'} & set(sys.modules)\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(root)}, check=True
    )

    assert list(tmp_path.iterdir()) == []


def _is_refused(path: Path, words: str) -> None:
    async def connect() -> None:
        bus = open_bus(section_of(path))
        try:
            await bus.connect()
        finally:
            await bus.aclose()

    with pytest.raises(BusUnavailable, match=words) as refused:
        asyncio.run(connect())
    assert path.name in str(refused.value)


async def _fill(path: Path, count: int) -> None:
    bus = EmbeddedBus(section_of(path), free_floor_bytes=0)
    await bus.connect()
    await bus.declare([WORK])
    await publish(bus, *(f"m-{n}" for n in range(count)))
    await bus.aclose()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
