"""Forks: a child opens its own, and its parent's goes on as if there were no child."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from penstock import DatabaseUnavailable, close_connections, get_connection
from tests.forked_child import Child

# Python 3.12 and later warn of every fork beside a thread. That is what is tried here.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    yield path
    close_connections()


@pytest.fixture
def gate() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        os.close(fd)


def insert(path: Path, x: str) -> None:
    connection = get_connection(path)
    with connection:
        connection.execute("INSERT INTO t VALUES (?)", (x,))


def rows(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [x for (x,) in connection.execute("SELECT x FROM t ORDER BY x")]


def test_parent_and_children_write_with_connections_of_their_own(path: Path) -> None:
    parents = get_connection(path)
    insert(path, "a")

    def work() -> None:
        assert get_connection(path) is not parents
        insert(path, f"child-{os.getpid()}")

    children = [Child(work) for _ in range(3)]
    insert(path, "b")

    assert [child.wait() for child in children] == [0, 0, 0]
    assert get_connection(path) is parents
    insert(path, "c")
    assert rows(path) == ["a", "b", "c", *sorted(f"child-{child.pid}" for child in children)]


def test_what_a_child_commits_outlives_its_parents_close(path: Path, gate: tuple[int, int]) -> None:
    # Careless, the parent's last close would delete the log that the child writes into.
    insert(path, "a")

    def work() -> None:
        insert(path, "child-1")
        os.read(gate[0], 1)
        insert(path, "child-2")

    child = Child(work)
    while "child-1" not in [x for (x,) in get_connection(path).execute("SELECT x FROM t")]:
        threading.Event().wait(0.01)
    close_connections()
    os.write(gate[1], b".")

    assert child.wait() == 0
    assert rows(path) == ["a", "child-1", "child-2"]


def test_a_grandchild_is_as_safe_as_a_child(path: Path, gate: tuple[int, int]) -> None:
    insert(path, "a")

    def grandchild() -> None:
        insert(path, "grandchild-1")
        os.read(gate[0], 1)
        insert(path, "grandchild-2")

    # The one between has not even looked at the file.
    child = Child(lambda: os._exit(Child(grandchild).wait()))
    while "grandchild-1" not in [x for (x,) in get_connection(path).execute("SELECT x FROM t")]:
        threading.Event().wait(0.01)
    close_connections()
    os.write(gate[1], b".")

    assert child.wait() == 0
    assert rows(path) == ["a", "grandchild-1", "grandchild-2"]


@pytest.mark.parametrize("middle", ["writing", "reading"])
def test_a_child_of_a_parent_in_the_middle_is_refused_in_words(path: Path, middle: str) -> None:
    insert(path, "a")
    insert(path, "b")
    connection = get_connection(path)
    cursor = connection.execute("INSERT INTO t VALUES ('c')" if middle == "writing" else "SELECT x FROM t")
    if middle == "reading":
        assert cursor.fetchone()[0] == "a"

    def work() -> None:
        with pytest.raises(
            DatabaseUnavailable, match=r"was forked while its parent was .* spawn or forkserver"
        ):
            get_connection(path)

    assert Child(work).wait() == 0
    connection.rollback()


def test_other_threads_connections_are_left_alone_too(path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(get_connection, path).result()
        pool.submit(insert, path, "a").result()

        assert Child(lambda: insert(path, "child")).wait() == 0

        assert pool.submit(get_connection, path).result() is theirs
        pool.submit(insert, path, "b").result()
    assert rows(path) == ["a", "b", "child"]


GOODBYE = """
import gc, os, sys, threading
import penstock
from penstock.threads import opening

class Connection:
    def __init__(self, name):
        self.name = name
    def close(self):
        print("closed", self.name, flush=True)
    def __del__(self):
        print("freed", self.name, flush=True)

count = iter(["one", "two", "three"])
opening._of_url = lambda text: opening.Database(text, None, lambda: Connection(next(count)))
waiting, go_on = threading.Event(), threading.Event()

def thread():
    penstock.get_connection("x://x")
    waiting.set()
    go_on.wait(30)

other = threading.Thread(target=thread)
other.start()
waiting.wait(30)
penstock.get_connection("x://x")
pid = os.fork()
if pid == 0:
    gc.collect()
    penstock.get_connection("x://x")
    print("child", flush=True)
    sys.exit(0)
os.waitpid(pid, 0)
print("parent", flush=True)
go_on.set()
other.join()
"""


def test_a_child_neither_closes_nor_frees_its_parents_not_even_when_it_exits() -> None:
    # A driver that is freed says goodbye to the server over its parent's socket.
    done = subprocess.run(
        [sys.executable, "-c", GOODBYE], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split("\n") == [
        "child", "closed three", "freed three",
        "parent", "closed one", "freed one", "closed two", "freed two", "",
    ]  # fmt: skip
