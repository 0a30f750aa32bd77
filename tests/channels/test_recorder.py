"""The flight recorder: what the worker notes is what the reactor reads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from penstock.channels.recorder import MAX_BATCH, Mark, Phase, Recorder


@pytest.fixture
def pair() -> Iterator[tuple[Recorder, Recorder]]:
    reactor = Recorder.create()
    worker = Recorder(os.dup(reactor.fd))
    yield reactor, worker
    reactor.close()
    worker.close()


def test_the_reactor_reads_what_the_worker_does(pair: tuple[Recorder, Recorder]) -> None:
    reactor, worker = pair
    reactor.set_stop(3)
    worker.begin_batch(7, 3)

    assert worker.begin(7, 1)
    worker.enter(Phase.COMMITTING)

    reading = reactor.read()
    assert (reading.phase, reading.batch, reading.index) == (Phase.COMMITTING, 7, 1)
    assert 0 <= time.monotonic() - reading.since_s < 5


def test_marks_of_the_batch_before_are_cleared(pair: tuple[Recorder, Recorder]) -> None:
    reactor, worker = pair
    worker.begin_batch(1, 2)
    worker.end(0, Mark.ACKED)
    worker.end(1, Mark.TOLD)
    assert reactor.marks(2) == bytes([Mark.ACKED, Mark.TOLD])

    worker.begin_batch(2, 2)

    assert reactor.marks(2) == bytes(2)


def test_what_was_taken_back_is_not_begun(pair: tuple[Recorder, Recorder]) -> None:
    reactor, worker = pair
    reactor.set_stop(5)
    assert worker.begin(1, 0)

    reactor.set_stop(1)

    assert not worker.begin(1, 1)
    assert reactor.read().phase is Phase.IDLE


def test_the_largest_batch_fits(pair: tuple[Recorder, Recorder]) -> None:
    reactor, worker = pair

    worker.end(MAX_BATCH - 1, Mark.ACKED)

    assert reactor.marks(MAX_BATCH)[-1] == Mark.ACKED


def test_a_delivery_that_waits_is_nobodys_and_its_time_stands_still(pair: tuple[Recorder, Recorder]) -> None:
    worker, reactor = pair
    worker.begin_batch(1, 1)
    worker.begin(1, 0)
    worker.enter(Phase.HANDLER)
    began_s = reactor.read().since_s

    with worker.paused():
        assert reactor.read().phase is Phase.IDLE
        paused_s = time.monotonic()
        while time.monotonic() < paused_s + 0.01:
            pass
    after = reactor.read()
    assert (after.phase, after.index) == (Phase.HANDLER, 0)
    assert after.since_s >= began_s + 0.01
