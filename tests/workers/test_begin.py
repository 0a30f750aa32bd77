"""A worker dies with its reactor from its very first moment, before it has been told what it is for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.service.processes import seconds_until_gone

# What an executor does first when it is given work; the work itself, the worker's plan, is never sent.
REACTOR = """
import multiprocessing, os, socket, sys, time
from concurrent.futures import ProcessPoolExecutor
from penstock.channels.evidence import Evidence
from penstock.channels.recorder import Recorder
from penstock.workers import entry

method = sys.argv[1]
ours, theirs = socket.socketpair()
fds = theirs.fileno(), Recorder.create().fd, Evidence.create().fd
descriptors = [entry.InheritedDescriptor(fd) for fd in fds]
executor = ProcessPoolExecutor(
    1, multiprocessing.get_context(method), initializer=entry.begin_process, initargs=(*descriptors, method)
)
executor._spawn_process()
(process,) = executor._processes.values()
theirs.close()
folder = f"/proc/{process.pid}/fd"
def holds_recorder():
    try:
        return any("penstock-recorder" in os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder))
    except FileNotFoundError:  # closed in between
        return False
while not holds_recorder():
    time.sleep(0.01)
print(process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_reactor_that_is_killed_before_it_sends_the_plan_leaves_no_worker(method: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", REACTOR, method], stdout=subprocess.PIPE, text=True
    ) as reactor:
        assert reactor.stdout is not None
        worker = int(reactor.stdout.readline())

        reactor.kill()

        # A spawned one still imports; bound to its reactor it looks for it then.
        assert seconds_until_gone([worker], 5.0) < 5.0
