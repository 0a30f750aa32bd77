"""The soft deadline: raised in the handler's thread, held back where it would cut something in two."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from penstock.errors import DeadlineExceeded
from penstock.workers.deadline import SoftDeadline
from tests import soft_deadline


@pytest.fixture
def deadline() -> Iterator[SoftDeadline]:
    with soft_deadline.installed() as installed:
        yield installed


def spin(seconds: float) -> None:
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        pass


def test_it_interrupts_the_handler(deadline: SoftDeadline) -> None:
    deadline.arm(0.02)

    with pytest.raises(DeadlineExceeded, match=r"its timeout of 0.02 s"):
        spin(10)


def test_it_waits_until_the_shield_is_over(deadline: SoftDeadline) -> None:
    whole = []
    deadline.arm(0.02)

    with pytest.raises(DeadlineExceeded):  # noqa: PT012 - where it is raised is the point
        with deadline.shield():
            spin(0.1)
            whole.append("the frame")
        whole.append("never")

    assert whole == ["the frame"]


def test_a_disarmed_one_says_nothing(deadline: SoftDeadline) -> None:
    deadline.arm(0.02)
    deadline.disarm()

    spin(0.1)


def test_another_threads_shield_holds_nothing_back(deadline: SoftDeadline) -> None:
    entered, leave = threading.Event(), threading.Event()

    def log() -> None:
        with deadline.shield():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=log)
    thread.start()
    entered.wait(10)
    deadline.arm(0.02)
    try:
        with pytest.raises(DeadlineExceeded):
            spin(5)
    finally:
        leave.set()
        thread.join()


def test_it_stands_still_while_it_is_paused_and_goes_on_afterwards(deadline: SoftDeadline) -> None:
    deadline.arm(0.05)

    with deadline.paused():
        spin(0.1)
    began_s = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        spin(10)
    assert time.monotonic() - began_s < 5


class Finalized:
    """Python prints what its end raises, and goes on."""

    def __del__(self) -> None:
        spin(0.5)


def test_one_that_a_finalizer_swallowed_comes_again(deadline: SoftDeadline) -> None:
    deadline.arm(0.02)

    Finalized()
    with pytest.raises(DeadlineExceeded):
        spin(5)


def test_one_that_a_finalizer_swallowed_at_the_end_does_not_come_behind_the_handler(
    deadline: SoftDeadline,
) -> None:
    deadline.arm(0.02)

    Finalized()
    deadline.disarm()
    spin(0.05)


def test_another_error_in_a_finalizer_is_told_as_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))

    class Failing:
        def __del__(self) -> None:
            raise ValueError

    with soft_deadline.installed() as deadline:
        deadline.arm(10)
        Failing()
    assert told == [ValueError]
