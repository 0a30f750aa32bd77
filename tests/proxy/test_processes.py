"""Subprocesses die, parents die, fork and execute themselves anew: each costs what it must and no more."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from penstock import SQLProxy
from tests.forked_child import Child
from tests.proxy import functions

# Python 3.12 and later warn of every fork beside a thread. That is what is tried here.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

#: Takes minutes inside SQLite, which no signal handler of Python's interrupts.
ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000000000) SELECT count(*) FROM n"
)


def test_a_subprocess_that_dies_fails_the_statement_it_was_running_and_comes_back(proxy: SQLProxy) -> None:
    with pytest.raises(sqlite3.OperationalError, match=r"subprocess \d+ of the proxy ended by signal 9"):
        proxy.run(functions.kill_self)
    assert proxy.execute("SELECT count(*) FROM t") == [(1000,)]


def test_a_subprocess_that_is_killed_inside_a_statement_fails_that_one_only(proxy: SQLProxy) -> None:
    with ThreadPoolExecutor(2) as pool:
        endless = pool.submit(proxy.execute, ENDLESS)
        victim = busy(proxy)
        others = pool.submit(lambda: [proxy.execute("SELECT 1") for _ in range(200)])
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(sqlite3.OperationalError, match="signal 9"):
            endless.result(30)
        assert others.result(30) == [[(1,)]] * 200


def kill(pid: int) -> None:
    """Until it is dead, but not buried: that is its parent's."""
    os.kill(pid, signal.SIGKILL)
    while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        threading.Event().wait(0.005)


def dies(pid: int) -> None:
    """Within seconds; whoever adopted it may bury it later."""
    deadline_s = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s, psutil.Process(pid)
        threading.Event().wait(0.005)


def busy(proxy: SQLProxy) -> int:
    """The subprocess that computes."""
    while True:
        for pid in proxy.pids:
            if psutil.Process(pid).cpu_times().user > 0.4:
                return pid
        threading.Event().wait(0.01)


def test_a_subprocess_that_dies_while_it_is_idle_fails_nothing(proxy: SQLProxy) -> None:
    proxy.execute("INSERT INTO t (x) VALUES (1)")
    proxy.execute("SELECT 1")
    for pid in (before := proxy.pids):
        kill(pid)
    assert proxy.execute("SELECT count(*) FROM t") == [(1001,)]
    proxy.execute("INSERT INTO t (x) VALUES (1)")
    assert not set(before) & set(proxy.pids)


def test_a_transaction_whose_subprocess_dies_is_rolled_back_and_over(proxy: SQLProxy) -> None:
    with pytest.raises(sqlite3.OperationalError, match="signal 9"), proxy.transaction() as tx:  # noqa: PT012 - the end of the block raises
        tx.execute("DELETE FROM t")
        kill(tx.child.pid)
        tx.execute("SELECT 1")
    with pytest.raises(sqlite3.OperationalError, match="the transaction is over"):
        tx.execute("SELECT 1")
    assert proxy.execute("SELECT count(*) FROM t") == [(1000,)]
    with proxy.transaction() as tx:
        tx.execute("DELETE FROM t")
    assert proxy.execute("SELECT count(*) FROM t") == [(0,)]


def test_who_waited_for_one_that_died_is_served(path: Path) -> None:
    with SQLProxy(path, processes=1) as proxy, ThreadPoolExecutor(8) as pool:
        killed = pool.submit(proxy.execute, ENDLESS)
        victim = busy(proxy)
        waiting = [pool.submit(proxy.execute, "SELECT ?", (number,)) for number in range(6)]
        os.kill(victim, signal.SIGKILL)
        assert [rows.result(30) for rows in waiting] == [[(number,)] for number in range(6)]
        assert isinstance(killed.exception(30), sqlite3.OperationalError)


def test_signals_for_the_whole_group_leave_the_subprocesses_alone(proxy: SQLProxy) -> None:
    proxy.execute("SELECT 1")
    (pid,) = proxy.pids
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    assert proxy.execute("SELECT 1") == [(1,)]
    assert proxy.pids == [pid]


APPLICATION = f"""
import os, sys, threading
from penstock import SQLProxy

print("main", __name__, flush=True)
proxy = SQLProxy(sys.argv[1], processes=1)
proxy.execute("SELECT 1")
threading.Thread(target=proxy.execute, args=({ENDLESS!r},), daemon=True).start()
print(*proxy.pids, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_no_subprocess_outlives_its_application_not_even_inside_sqlite(
    path: Path, tmp_path: Path, end: str
) -> None:
    program = tmp_path / "application.py"
    program.write_text(APPLICATION)
    with subprocess.Popen(
        [sys.executable, program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as application:
        assert application.stdin is not None
        assert application.stdout is not None
        assert application.stdout.readline() == "main __main__\n"
        orphan = int(application.stdout.readline())
        if end == "kill":
            application.kill()
        else:
            application.stdin.close()
        # Each subprocess has the pipe, too: it ends when all of them have ended, and nobody imported the main module.
        assert application.stdout.read() == ""
        assert application.wait(20) == (-9 if end == "kill" else 0)
    dies(orphan)


def test_a_fork_starts_its_own_and_its_parents_go_on(proxy: SQLProxy) -> None:
    proxy.execute("INSERT INTO t (x) VALUES (1)")
    proxy.execute("SELECT 1")
    parents = proxy.pids

    def work() -> None:
        assert proxy.pids == []
        proxy.execute("INSERT INTO t (x) VALUES (2)")
        assert proxy.execute("SELECT count(*) FROM t")[0][0] >= 1002
        assert not set(parents) & set(proxy.pids)
        proxy.close()

    children = [Child(work) for _ in range(2)]
    proxy.execute("INSERT INTO t (x) VALUES (3)")
    assert [child.wait() for child in children] == [0, 0]
    assert proxy.pids == parents
    assert proxy.execute("SELECT count(*) FROM t") == [(1004,)]


def test_a_fork_inside_a_transaction_leaves_it_to_the_parent(proxy: SQLProxy) -> None:
    connection = proxy.connect()
    connection.execute("DELETE FROM t")

    def work() -> None:
        with pytest.raises(sqlite3.OperationalError, match="forked"):
            connection.execute("DELETE FROM t")
        connection.rollback()
        assert connection.execute("SELECT count(*) FROM t").fetchall() == [(1000,)]
        proxy.close()

    assert Child(work).wait() == 0
    connection.commit()
    assert proxy.execute("SELECT count(*) FROM t") == [(0,)]
    connection.close()


def test_a_fork_that_lives_on_does_not_keep_its_parent_s_subprocesses(path: Path) -> None:
    proxy = SQLProxy(path, processes=1)
    proxy.execute("SELECT 1")
    (pid,) = proxy.pids
    reading, writing = os.pipe()
    child = Child(lambda: os.read(reading, 1))
    proxy.close()
    assert not psutil.pid_exists(pid)
    os.write(writing, b".")
    assert child.wait() == 0
    os.close(reading)
    os.close(writing)


REEXECUTED = """
import os, sys
from penstock import SQLProxy

proxy = SQLProxy(sys.argv[1], processes=1)
proxy.execute("INSERT INTO t (x) VALUES (1)")
print(os.getpid(), *proxy.pids, flush=True)
if sys.argv[2] == "once":
    os.execv(sys.executable, [sys.executable, sys.argv[0], sys.argv[1], "again"])
"""


def test_an_application_that_executes_itself_anew_leaves_none_behind(path: Path, tmp_path: Path) -> None:
    program = tmp_path / "application.py"
    program.write_text(REEXECUTED)
    done = subprocess.run(
        [sys.executable, program, path, "once"], capture_output=True, text=True, check=True, timeout=60
    )
    (before, first), (after, second) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert before == after
    assert first != second
    dies(first)
    dies(second)
