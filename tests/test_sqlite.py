"""Every SQLite file that we open is opened alike: write-ahead log, a wait for others' locks, foreign keys on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from pydantic import SecretStr

import penstock
from penstock import close_connections, get_connection
from penstock.buses.embedded.file import open_file
from penstock.channels.db.sqlite.opening import find_file, open_reader, open_writer
from penstock.config.database import DatabaseSection
from penstock.proxy.served_sqlite import open_sqlite
from penstock.workers.connection import OwnConnection

Ask = Callable[[str], Any]
FULL: Final = 2
NORMAL: Final = 1

#: Who calls the driver, and why those who are not below need not be.
OPENERS: Final = {
    "workers/database/sqlite_dialect.py": "below",
    "channels/db/sqlite/opening.py": "below",
    "proxy/served_sqlite.py": "below",
    "threads/opening.py": "below",
    "buses/embedded/forks.py": "below",
    "cli/check/database.py": "only to look, mode=ro",
    "cli/check/embedded.py": "only to look, mode=ro",
    "channels/dbapi/sqlite/connection.py": "in memory, for the driver's own classes",
    "channels/dbapi/sqlite/parameters.py": "in memory, to ask the driver what it makes of a value",
}


def test_nobody_else_opens_one() -> None:
    root = Path(penstock.__file__).parent
    found = {
        str(file.relative_to(root))
        for file in root.rglob("*.py")
        if "sqlite3.connect(" in file.read_text(encoding="utf-8")
    }
    assert found == set(OPENERS)


def section(path: Path) -> DatabaseSection:
    return DatabaseSection(url=SecretStr(f"sqlite:///{path}"), synchronous="NORMAL", busy_timeout_s=7)


@contextmanager
def of_the_worker(path: Path) -> Iterator[Ask]:
    own = OwnConnection(section(path), log=structlog.get_logger())
    own.open()
    own.begin("test")
    yield lambda what: own.connection.exec_driver_sql(what).scalar()
    own.rollback()
    own.close()


@contextmanager
def of_a_stream(path: Path) -> Iterator[Ask]:
    own = OwnConnection(section(path), log=structlog.get_logger())
    own.open()
    own.begin("test")

    def ask(what: str) -> Any:
        with own.stream(what) as rows:
            return next(rows)[0]

    yield ask
    own.rollback()
    own.close()


@contextmanager
def of_the_channels_writer(path: Path) -> Iterator[Ask]:
    writer = open_writer(find_file(section(path)), section(path))
    assert writer is not None
    with closing(writer):
        yield lambda what: writer.control(what).fetchone()[0]


@contextmanager
def of_the_channels_readers(path: Path) -> Iterator[Ask]:
    with (
        of_the_channels_writer(path),
        closing(open_reader(find_file(section(path)), section(path))) as reader,
    ):
        yield lambda what: reader.control(what).fetchone()[0]


@contextmanager
def of_the_proxy(path: Path) -> Iterator[Ask]:
    with closing(open_sqlite(str(path), {}, writes=True)) as connection:
        yield lambda what: connection.execute(what).fetchone()[0]


@contextmanager
def of_the_proxys_readers(path: Path) -> Iterator[Ask]:
    with closing(open_sqlite(str(path), {}, writes=False)) as connection:
        yield lambda what: connection.execute(what).fetchone()[0]


@contextmanager
def of_a_thread(path: Path) -> Iterator[Ask]:
    yield lambda what: get_connection(path).execute(what).fetchone()[0]
    close_connections()


@contextmanager
def of_the_embedded_bus(path: Path) -> Iterator[Ask]:
    with closing(open_file(path)) as connection:
        yield lambda what: connection.execute(what).fetchone()[0]


#: (synchronous, milliseconds that SQLite itself waits): the setting's where there is one. Who waits for less asks again.
HOW: Final = [
    (of_the_worker, NORMAL, 1000),
    (of_a_stream, NORMAL, 1000),
    (of_the_channels_writer, NORMAL, 100),
    (of_the_channels_readers, None, 7000),
    (of_the_proxy, FULL, 30_000),
    (of_the_proxys_readers, None, 30_000),
    (of_a_thread, FULL, 30_000),
    (of_the_embedded_bus, FULL, None),
]


@pytest.mark.parametrize(("opened", "synchronous", "waits_ms"), HOW)
def test_it_is_opened_as_all_are(
    opened: Callable[[Path], Any], synchronous: int | None, waits_ms: int | None, tmp_path: Path
) -> None:
    with opened(tmp_path / "app.db") as ask:
        assert ask("PRAGMA journal_mode") == "wal"
        assert ask("PRAGMA foreign_keys") == 1
        if synchronous is not None:
            assert ask("PRAGMA synchronous") == synchronous
        if waits_ms is not None:
            assert ask("PRAGMA busy_timeout") == waits_ms


@pytest.mark.parametrize("opened", [of_a_stream, of_the_channels_readers, of_the_proxys_readers])
def test_what_only_reads_cannot_write(opened: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE item (id INTEGER)")
    with opened(path) as ask, pytest.raises(Exception, match="readonly"):
        ask("INSERT INTO item VALUES (1) RETURNING id")
