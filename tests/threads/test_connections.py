"""One connection a thread and database, closed with the thread, and no other's."""

from __future__ import annotations

import gc
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from penstock import ConfigurationError, close_connection, close_connections, get_connection
from tests.forked_child import Child


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_connections()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


def in_thread(work: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def is_open(connection: sqlite3.Connection) -> bool:
    try:
        _ = connection.in_transaction
    except sqlite3.ProgrammingError:
        return False
    return True


def open_descriptors(path: Path) -> int:
    return sum(
        1
        for fd in Path("/proc/self/fd").iterdir()
        if fd.exists() and str(fd.readlink()).startswith(str(path))
    )


def test_a_path_gives_sqlite_s_connection_as_one_wants_it(path: Path) -> None:
    connection = get_connection(path)

    assert isinstance(connection, sqlite3.Connection)
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA busy_timeout").fetchone()[0] == 30_000
    assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    row = connection.execute("SELECT 1 AS one").fetchone()
    assert isinstance(row, sqlite3.Row)
    assert row["one"] == 1


def test_a_thread_has_one_connection_however_the_database_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    (path.parent / "link.db").symlink_to(path)

    connection = get_connection(path)

    others: list[str | Path] = [
        str(path),
        "app.db",
        "./app.db",
        f"sqlite:///{path}",
        "sqlite:///app.db",
        path.parent / "link.db",
    ]
    assert all(get_connection(other) is connection for other in others)
    assert get_connection(path.parent / "other.db") is not connection


def test_each_thread_has_its_own_and_its_end_closes_it(path: Path) -> None:
    mine = get_connection(path)

    # Held by us, so that only a close can have closed it.
    theirs = in_thread(lambda: get_connection(path))

    assert theirs is not mine
    assert not is_open(theirs)
    assert is_open(mine)


def test_a_thread_s_end_closes_without_the_garbage_collector(path: Path) -> None:
    gc.disable()
    try:
        before = open_descriptors(path)
        ring: list[Any] = []

        def work() -> None:
            ring.append(get_connection(path))
            ring.append(ring)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert open_descriptors(path) == before
    finally:
        gc.enable()


def test_what_a_thread_did_not_commit_is_rolled_back_at_its_end(path: Path) -> None:
    get_connection(path).execute("CREATE TABLE t (x)")
    in_thread(lambda: get_connection(path).execute("INSERT INTO t VALUES (1)"))
    assert get_connection(path).execute("SELECT count(*) FROM t").fetchone()[0] == 0


def test_close_connection_closes_one_and_close_connections_all_of_the_thread_s(path: Path) -> None:
    other = path.parent / "other.db"
    first, second = get_connection(path), get_connection(other)

    close_connection(str(path))
    assert (is_open(first), is_open(second)) == (False, True)
    close_connection(path)
    assert get_connection(path) is not first

    close_connections()
    assert not is_open(second)
    close_connections()


def test_closing_all_leaves_other_threads_theirs(path: Path) -> None:
    opened, go_on = threading.Event(), threading.Event()
    states: list[bool] = []

    def work() -> None:
        connection = get_connection(path)
        opened.set()
        go_on.wait(30)
        states.append(is_open(connection))

    thread = threading.Thread(target=work)
    thread.start()
    assert opened.wait(30)
    close_connections()
    go_on.set()
    thread.join()
    assert states == [True]


def test_a_connection_that_its_user_closed_is_replaced(path: Path) -> None:
    closed = get_connection(path)
    closed.close()
    assert get_connection(path).execute("SELECT 1").fetchone()[0] == 1


def test_many_threads_write_to_a_new_file_and_none_finds_it_locked(path: Path) -> None:
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        connection = get_connection(path)
        connection.execute("CREATE TABLE IF NOT EXISTS t (thread, x)")
        for x in range(20):
            with connection:
                connection.execute("INSERT INTO t VALUES (?, ?)", (number, x))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert get_connection(path).execute("SELECT count(*) FROM t").fetchone()[0] == 160


def test_memory_is_each_thread_s_own() -> None:
    get_connection(":memory:").execute("CREATE TABLE t (x)")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        in_thread(lambda: get_connection("sqlite://").execute("SELECT * FROM t"))


def test_threads_that_make_the_file_at_the_same_moment_all_get_it(path: Path) -> None:
    # Of 480 of them 4 found it locked: SQLite does not wait for a change of the journal mode.
    for number in range(25):
        barrier = threading.Barrier(8)

        def work(file: Path, barrier: threading.Barrier) -> str:
            barrier.wait()
            return str(get_connection(file).execute("PRAGMA journal_mode").fetchone()[0])

        with ThreadPoolExecutor(8) as pool:
            file = path.parent / f"{number}.db"
            modes = [pool.submit(work, file, barrier) for _ in range(8)]
        assert {mode.result() for mode in modes} == {"wal"}


def test_a_file_that_may_only_be_read_is_read() -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "app.db"
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("CREATE TABLE t (x)")
        Path(folder).chmod(0o755)
        path.chmod(0o444)

        def work() -> None:
            if os.geteuid() == 0:
                os.setuid(65534)
            assert get_connection(path).execute("SELECT count(*) FROM t").fetchone()[0] == 0

        assert Child(work).wait() == 0


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense://x", "cannot be read"),
        ("mysql+pymysql://u:S3CR3T@host:port/x", "cannot be read"),
        ("sqlite+aiosqlite:///app.db", "a path is enough"),
        ("sqlite:///file:app.db?uri=true", "without options"),
        ("file:app.db", "no path of an SQLite file"),
        ("", "no path of an SQLite file"),
        ("sqlite+penstock://", "leads through a worker's channel"),
        ("oracle+cx_oracle://u:S3CR3T@host/x", "needs the driver"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_words_and_without_the_password(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as refused:
        get_connection(url)
    assert "S3CR3T" not in str(refused.value)


def test_a_server_s_url_gives_what_the_driver_raises(closed_port: int) -> None:
    pymysql = pytest.importorskip("pymysql")
    with pytest.raises(pymysql.err.OperationalError, match="Can't connect"):
        get_connection(f"mysql+pymysql://u:p@127.0.0.1:{closed_port}/x")


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for path, why in (
        (tmp_path / "nowhere" / "app.db", f"{tmp_path / 'nowhere'} is not a folder"),
        (tmp_path, f"{tmp_path} is a folder"),
    ):
        with pytest.raises(sqlite3.OperationalError, match="unable to open database file") as refused:
            get_connection(path)
        assert str(refused.value).endswith(f": {why}")
        assert refused.value.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CANTOPEN


def test_nothing_that_somebody_else_opened_is_closed(path: Path) -> None:
    get_connection(path)
    others = sqlite3.connect(path)
    close_connections()
    assert is_open(others)
    others.close()
