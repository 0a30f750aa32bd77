"""Opening: patient with what may pass, in words about what never will."""

import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from penstock.errors import ConfigurationError
from penstock.workers.database import mysql
from tests.workers.own_connection import ITEMS, Base, EnoughSeenError, Worker, names_in, until_lines

CANARY = "S3CR3T-canary"


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A server that lets people in and says nothing."""
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_database_that_is_down_is_waited_for_and_each_failure_is_told_without_the_password(
    closed_port: int,
) -> None:
    url = f"mysql+pymysql://pen:{CANARY}@127.0.0.1:{closed_port}/shop"
    worker = Worker(url, on_line=until_lines(4), connect_backoff_cap_s=0.01)
    with pytest.raises(EnoughSeenError):
        worker.own.open()
    assert [line["attempt"] for line in worker.log] == [1, 2, 3, 4]
    for line in worker.log:
        assert line["event"] == "database not reachable; trying again"
        assert line["database"] == f"mysql+pymysql://pen:***@127.0.0.1:{closed_port}/shop"
        assert "Connection refused" in line["error"]
        assert 0 <= line["next_try_s"] <= 0.01
    assert CANARY not in str(worker.log) + repr(worker.own)
    worker.own.close()


def test_a_server_that_accepts_and_never_greets_is_given_up_and_tried_again(
    mute_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "_GREETING_TIMEOUT_S", 0.05)
    url = f"mysql+pymysql://pen:{CANARY}@127.0.0.1:{mute_port}/shop"
    worker = Worker(url, on_line=until_lines(2), connect_backoff_cap_s=0.01)
    with pytest.raises(EnoughSeenError):
        worker.own.open()
    assert "timed out" in worker.log[0]["error"]
    worker.own.close()


def test_a_folder_that_appears_later_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "mounted later"

    def mount(lines: int) -> None:
        if lines == 2:
            folder.mkdir()

    worker = Worker(f"sqlite:///{folder}/app.db", on_line=mount, connect_backoff_cap_s=0.01)
    worker.own.open()
    assert worker.log[0]["error"] == f"unable to open database file: {folder} is not a folder"
    assert worker.log[-1]["event"] == "database reachable again"
    worker.message(lambda own: Base.metadata.create_all(own.connection))
    worker.message(lambda own: own.connection.execute(ITEMS.insert().values(name="cup")))
    worker.own.close()
    assert names_in(folder / "app.db") == ["cup"]


def test_what_is_no_database_is_waited_for_too_because_it_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    path.write_text("this is a text" * 1000)
    worker = Worker(f"sqlite:///{path}", on_line=until_lines(1), connect_backoff_cap_s=0.01)
    with pytest.raises(EnoughSeenError):
        worker.own.open()
    assert "file is not a database" in worker.log[0]["error"]
    worker.own.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"{CANARY}", r"database\.url cannot be read .* write %40 for @"),
        (f"nosuch://pen:{CANARY}@host/x", r"nosuch://, which SQLAlchemy does not know; Penstock is tested with sqlite://, .* and postgresql\+psycopg://"),
        (f"postgres://pen:{CANARY}@host/x", r"postgres://, which .* write postgresql\+psycopg://"),
        (f"mysql+nosuch://pen:{CANARY}@host/x", r"mysql\+nosuch://.* write mysql\+pymysql://"),
        (f"mysql+cymysql://pen:{CANARY}@host/x", r"cymysql is not installed: pip install 'penstock\[mysql\]' and write mysql\+pymysql://"),
        (f"oracle://pen:{CANARY}@host/x", r"driver .*racle.* is not installed: install .*racle"),
        (f"mysql+aiomysql://pen:{CANARY}@host/x", r"event loop.* write mysql\+pymysql://"),
        ("sqlite+aiosqlite:///app.db", r"event loop.* write sqlite://"),
        ("sqlite://", "database in memory: every worker process would have one of its own"),
        ("sqlite:///:memory:", "database in memory"),
        ("sqlite:///file:shared?mode=memory&cache=shared&uri=true", "database in memory"),
        ("sqlite:///file::memory:?uri=true", "database in memory"),
        (f"sqlite://pen:{CANARY}@host/app.db", "option that cannot be used: Invalid SQLite URL"),
        (f"mysql+pymysql://pen:{CANARY}@host/x?connect_timeout=soon", "option that cannot be used"),
        (f"mysql+pymysql://pen:{CANARY}@host/x?nonsense=1", "cannot be opened with these settings: TypeError: .*nonsense"),
        (f"postgresql+psycopg://pen:{CANARY}@127.0.0.1:1/x?nonsense=1", 'cannot be opened with these settings: .*option "nonsense"'),
        (f"mysql+pymysql://pen@host/x?passwd={CANARY}&nonsense=1", "mysql[+]pymysql://pen@host/x cannot"),
    ],
)  # fmt: skip
def test_what_will_never_work_is_said_at_once_and_without_the_password(url: str, words: str) -> None:
    worker = Worker(url)
    with pytest.raises(ConfigurationError, match=words) as caught:
        worker.own.open()
    assert CANARY not in str(caught.value)
    assert worker.log == []
    worker.own.close()


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    worker = Worker(f"sqlite:///{tmp_path}")
    with pytest.raises(
        ConfigurationError, match=f"{tmp_path} is a folder: name a file in it, such as {tmp_path}/app.db"
    ):
        worker.own.open()
    worker.own.close()


@pytest.mark.parametrize(
    ("url", "module", "advice"),
    [
        ("mysql+pymysql://pen@host/x", "pymysql", "pip install 'penstock[mysql]'"),
        ("mysql+mysqldb://pen@host/x", "MySQLdb", "pip install 'penstock[mysqlclient]'"),
        ("mariadb+mysqldb://pen@host/x", "MySQLdb", "pip install 'penstock[mysqlclient]'"),
        ("mysql://pen@host/x", "MySQLdb", "pip install 'penstock[mysql]' and write mysql+pymysql://"),
        ("postgresql+psycopg://pen@host/x", "psycopg", "pip install 'penstock[postgres]'"),
    ],
)
def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, url: str, module: str, advice: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError) as caught:
        Worker(url).own.open()
    assert str(caught.value).endswith(f"its driver {module} is not installed: {advice}")


def test_opening_twice_keeps_the_connection(tmp_path: Path) -> None:
    worker = Worker(f"sqlite:///{tmp_path}/app.db")
    worker.own.open()
    first = worker.driver_connection()
    worker.own.open()
    assert worker.driver_connection() is first
    worker.own.close()
