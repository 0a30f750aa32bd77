"""Several worker processes on one SQLite file; locks, deaths and deadlines."""

import os
import signal
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import FrameType

import pytest
from sqlalchemy import Integer, column, insert, select, table, text, update

from penstock.errors import DeadlineExceeded
from penstock.workers.connection import OwnConnection
from tests.workers.own_connection import ITEMS, Worker, names_in, somebody_else_on, worker_on

WORKERS = 4
MESSAGES = 60
COUNTER = table("counter", column("value", Integer))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def deadline() -> Iterator[None]:
    """Raises DeadlineExceeded in 0.2 s, as the worker's soft deadline does."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise DeadlineExceeded("late")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _count_up(path: Path, together: Barrier, answers: "Pipe[object, object]") -> None:
    worker = Worker(f"sqlite:///{path}", synchronous="NORMAL")
    together.wait()
    # All open one new file at once, which is when it gets its WAL mode.
    worker.own.open()
    worker.message(
        lambda own: own.connection.execute(text("CREATE TABLE IF NOT EXISTS counter (value INTEGER)"))
    )

    def first(own: OwnConnection) -> None:
        if own.connection.scalar(select(COUNTER.c.value)) is None:
            own.connection.execute(insert(COUNTER).values(value=0))

    def read_and_write(own: OwnConnection) -> None:
        value = own.connection.scalars(select(COUNTER.c.value)).one()
        own.connection.execute(update(COUNTER).values(value=value + 1))

    worker.message(first)
    for _ in range(MESSAGES):
        worker.message(read_and_write)
    worker.own.close()
    answers.send([line["event"] for line in worker.log])


def test_workers_that_read_before_they_write_lose_no_update_and_meet_no_lock(path: Path) -> None:
    processes = get_context("spawn")
    together = processes.Barrier(WORKERS)
    answers, theirs = processes.Pipe(duplex=False)
    children = [processes.Process(target=_count_up, args=(path, together, theirs)) for _ in range(WORKERS)]
    for child in children:
        child.start()
    theirs.close()
    logged = [answers.recv() for _ in children]
    for child in children:
        child.join()
    answers.close()
    assert [child.exitcode for child in children] == [0] * WORKERS
    assert logged == [[]] * WORKERS
    with somebody_else_on(path) as other:
        assert other.execute("SELECT value FROM counter").fetchall() == [(WORKERS * MESSAGES,)]


def _die_in_a_transaction(path: Path, answers: "Pipe[object, object]") -> None:
    worker = Worker(f"sqlite:///{path}")
    worker.own.open()

    def handler(own: OwnConnection) -> None:
        own.connection.execute(insert(ITEMS).values(name="lost"))
        answers.send("inside")
        signal.pause()

    worker.message(handler)


def test_a_worker_killed_in_its_transaction_leaves_no_row_and_no_lock(path: Path) -> None:
    processes = get_context("spawn")
    answers, theirs = processes.Pipe(duplex=False)
    with worker_on(path, busy_timeout_s=10) as worker:
        child = processes.Process(target=_die_in_a_transaction, args=(path, theirs))
        child.start()
        assert answers.recv() == "inside"
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        worker.message(lambda own: own.connection.execute(insert(ITEMS).values(name="cup")))
    answers.close()
    theirs.close()
    assert names_in(path) == ["cup"]


@pytest.mark.usefixtures("deadline")
def test_a_deadline_reaches_a_handler_that_waits_for_a_lock(path: Path) -> None:
    with worker_on(path, busy_timeout_s=60) as worker, somebody_else_on(path) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            worker.message(lambda own: own.connection.execute(insert(ITEMS).values(name="late")))
        assert time.monotonic() - started < 10
        assert worker.own.is_busy(caught.value), "its time went into waiting for somebody else"
        other.execute("ROLLBACK")
        worker.message(lambda own: own.connection.execute(insert(ITEMS).values(name="cup")))
    assert names_in(path) == ["cup"]


def test_a_lock_is_waited_for_piece_by_piece_until_it_is_released(path: Path) -> None:
    with worker_on(path, busy_timeout_s=60) as worker, somebody_else_on(path) as other:
        other.execute("BEGIN IMMEDIATE")
        # Python runs this once the first piece of waiting inside SQLite is over.
        before = signal.signal(signal.SIGALRM, lambda _number, _frame: other.execute("ROLLBACK").close())
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        worker.message(lambda own: own.connection.execute(insert(ITEMS).values(name="cup")))
        signal.signal(signal.SIGALRM, before)
    assert names_in(path) == ["cup"]
