"""What became of each delivery of a batch, whoever is to blame."""

from __future__ import annotations

import pytest

from penstock.app.outcomes import DONE, Died, Rejected
from penstock.channels.recorder import Mark, Phase, Reading
from penstock.reactor.batch_end import Death, after_death, after_report
from tests.reactor.deliveries import served, work

WORKS = [work(served(), tag) for tag in range(4)]
MARKS = bytes([Mark.ACKED, Mark.TOLD, Mark.NONE, Mark.NONE])
TOLD = {1: Rejected("closed")}


def reading(phase: Phase, index: int = 2) -> Reading:
    return Reading(phase, 1, index, 0.0)


def test_a_report_says_what_ended_and_what_was_never_begun() -> None:
    end = after_report(WORKS, MARKS, TOLD)

    assert end.ended == [(WORKS[0], DONE), (WORKS[1], TOLD[1])]
    assert end.unstarted == WORKS[2:]


@pytest.mark.parametrize("phase", [Phase.DECODING, Phase.HANDLER, Phase.IN_TRANSACTION, Phase.COMMITTING])
def test_a_death_is_charged_to_the_delivery_that_was_running(phase: Phase) -> None:
    death = Death("signal 9, SIGKILL", peak_bytes=5, stack="Current thread…")

    end = after_death(WORKS, MARKS, TOLD, reading(phase), death)

    assert end.ended[:2] == [(WORKS[0], DONE), (WORKS[1], TOLD[1])]
    died = Died("signal 9, SIGKILL", phase.words, phase is Phase.COMMITTING, 5, "Current thread…")
    assert end.ended[2] == (WORKS[2], died)
    assert end.unstarted == [WORKS[3]]


@pytest.mark.parametrize("last", [None, reading(Phase.IDLE), reading(Phase.ENDED, 1)])
def test_a_death_between_two_deliveries_is_charged_to_nobody(last: Reading | None) -> None:
    end = after_death(WORKS, MARKS, TOLD, last, Death("signal 9, SIGKILL"))

    assert len(end.ended) == 2
    assert end.unstarted == WORKS[2:]


def test_an_outcome_that_was_told_before_the_death_counts() -> None:
    told = {**TOLD, 2: Rejected("told, and died before its mark")}

    end = after_death(WORKS, MARKS, told, reading(Phase.COMMITTING), Death("exit code 1"))

    assert end.ended[2] == (WORKS[2], told[2])
    assert end.unstarted == [WORKS[3]]


def test_with_the_fork_server_dead_nobody_is_to_blame_but_the_message_says_so() -> None:
    end = after_death(WORKS, MARKS, TOLD, reading(Phase.HANDLER), Death("signal 9, SIGKILL", blameless=True))

    assert end.unstarted == WORKS[2:]
    assert WORKS[2].delivery.redelivered
    assert not WORKS[3].delivery.redelivered


@pytest.mark.parametrize("phase", [Phase.IN_TRANSACTION, Phase.COMMITTING])
def test_a_commit_that_nobody_saw_end_is_told_to_the_next_run_even_without_blame(phase: Phase) -> None:
    works = [work(served(), tag) for tag in range(4)]

    after_death(works, MARKS, TOLD, reading(phase), Death("signal 9, SIGKILL", blameless=True))

    assert works[2].delivery.history.commit_unknown is (phase is Phase.COMMITTING)
    assert not works[3].delivery.history.commit_unknown
