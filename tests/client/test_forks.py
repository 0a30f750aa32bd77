"""Forks: a child gets a connection of its own, and nothing that it does is noticed on its parent's."""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from penstock import AsyncClient, BusUnavailable, Client
from tests.client.reader import Reader
from tests.forked_child import Child

# Python 3.12 and later warn of every fork beside a thread. That is what is tried here.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.fixture
def gate() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        os.close(fd)


def test_parent_and_children_go_on_publishing_with_one_client(client: Client, reader: Reader) -> None:
    client.publish(reader.queue, {}, id="before")

    children = [Child(partial(client.publish, reader.queue, {}, id=f"child-{number}")) for number in range(3)]
    client.publish(reader.queue, {}, id="parent")

    assert [child.wait() for child in children] == [0, 0, 0]
    client.publish(reader.queue, {}, id="after")
    assert sorted(map(str, reader.read_ids(6))) == [
        "after",
        "before",
        "child-0",
        "child-1",
        "child-2",
        "parent",
    ]


def test_what_a_child_published_outlives_its_parents_connection(
    client: Client, reader: Reader, gate: tuple[int, int]
) -> None:
    # Over a SQLite file the parent's close would delete the log that a careless child writes into.
    client.publish(reader.queue, {}, id="before")

    def publish_before_and_after_the_parent_closed() -> None:
        client.publish(reader.queue, {}, id="child-1")
        os.read(gate[0], 1)
        client.publish(reader.queue, {}, id="child-2")

    child = Child(publish_before_and_after_the_parent_closed)
    client.publish(reader.queue, {}, id="parent")
    client.close()
    os.write(gate[1], b"x")

    assert child.wait() == 0
    assert sorted(map(str, reader.read_ids(4))) == ["before", "child-1", "child-2", "parent"]


def test_a_child_that_ends_or_closes_does_not_close_its_parents_connection(
    client: Client, reader: Reader
) -> None:
    client.publish(reader.queue, {}, id="before")

    assert Child(client.close).wait() == 0
    assert Child(lambda: None).wait() == 0

    client.publish(reader.queue, {}, id="after")
    assert reader.read_ids(2) == ["before", "after"]


def test_a_fork_while_other_threads_publish_loses_nothing_and_hangs_nobody(
    client: Client, reader: Reader
) -> None:
    stopping = threading.Event()
    published: list[str] = []

    def publish_until_told() -> None:
        while not stopping.is_set():
            published.append(client.publish(reader.queue, {}))

    threads = [threading.Thread(target=publish_until_told) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        codes = [
            Child(partial(client.publish, reader.queue, {}, id=f"child-{number}")).wait()
            for number in range(5)
        ]
    finally:
        stopping.set()
        for thread in threads:
            thread.join()

    assert codes == [0] * 5
    expected = sorted([*published, *(f"child-{number}" for number in range(5))])
    assert sorted(map(str, reader.read_ids(len(expected)))) == expected


def test_a_forked_multiprocessing_child_publishes_and_ends_cleanly(client: Client, reader: Reader) -> None:
    client.publish(reader.queue, {}, id="parent")

    child = multiprocessing.get_context("fork").Process(
        target=client.publish, args=(reader.queue, {}), kwargs={"id": "child"}
    )
    child.start()
    child.join(30)

    with closing(child):
        assert child.exitcode == 0
    assert sorted(map(str, reader.read_ids(2))) == ["child", "parent"]


async def test_a_child_of_a_process_that_has_the_embedded_bus_open_is_told_so(
    embedded_reader: Reader,
) -> None:
    async with AsyncClient(embedded_reader.url) as parent:
        await parent.publish(embedded_reader.queue, {}, id="before")

        def publish() -> None:
            with (
                Client(embedded_reader.url) as client,
                pytest.raises(BusUnavailable, match="was forked while"),
            ):
                client.publish(embedded_reader.queue, {}, id="lost")

        assert Child(publish).wait() == 0
        await parent.publish(embedded_reader.queue, {}, id="after")

    # Once it is closed, a fork is as good as any.
    assert (
        Child(partial(Client(embedded_reader.url).publish, embedded_reader.queue, {}, id="child")).wait() == 0
    )
    assert embedded_reader.read_ids(3) == ["before", "after", "child"]


def test_a_forked_program_that_runs_to_its_end_is_silent(url: str, reader: Reader, tmp_path: Path) -> None:
    # Unlike a multiprocessing child, this one takes its interpreter apart, with what it has inherited.
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from penstock import Client\n"
        "client = Client(sys.argv[1])\n"
        "client.publish(sys.argv[2], {}, id='before')\n"
        "child = os.fork()\n"
        "client.publish(sys.argv[2], {}, id='parent' if child else 'child')\n"
        "if child:\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    # Python 3.12 and later warn of every fork beside a thread; that is about the program, not about its end.
    command = [
        sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning",
        str(program), url, reader.queue,
    ]  # fmt: skip

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(map(str, reader.read_ids(3))) == ["before", "child", "parent"]
