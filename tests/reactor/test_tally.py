"""What is counted of a handler, and what a batch tells of its deliveries."""

from __future__ import annotations

import pytest

from penstock.app.outcomes import DONE, Died, Returned
from penstock.reactor.calls import MOST_KINDS, OTHERS, Calls
from penstock.reactor.tally import Histogram, Tally
from penstock.reactor.work import note_batch
from tests.reactor.deliveries import served, work


def test_a_value_lies_in_the_place_whose_bound_it_does_not_exceed() -> None:
    histogram = Histogram((1, 2, 4))
    for value in (0.5, 1, 1.5, 4, 100):
        histogram.observe(value)

    assert histogram.counts == [2, 1, 1, 1]
    assert histogram.total == 107


def test_a_copy_stays_as_it_was() -> None:
    tally = Tally(delivered=3)
    tally.note_outcome(Died("signal 11", "handler"))
    tally.queue_wait.observe(1)
    copy = tally.copy()

    tally.delivered += 1
    tally.acked += 1
    tally.dead["rejected"] += 1
    tally.note_outcome(Died("signal 11", "handler"))
    tally.queue_wait.observe(1)

    assert (copy.delivered, copy.acked, copy.unsettled, copy.others[Died]) == (3, 0, 3, 1)
    assert (tally.unsettled, copy.dead) == (2, {})
    assert sum(copy.queue_wait.counts) == 1


def test_what_returned_and_published_is_counted_apart_from_what_only_returned() -> None:
    tally = Tally()
    tally.note_outcome(DONE)
    tally.note_outcome(Returned(()))

    assert (tally.returned, tally.others[Returned]) == (1, 1)


def test_the_deliveries_of_a_batch_ran_one_after_the_other() -> None:
    one = served()
    works = [work(one), work(one), work(one)]
    for each in works:
        each.received_s = 100.0

    # The third was taken back.
    note_batch(works, [1_000_000_000, 3_000_000_000], 110.0)

    assert [each.ended_s for each in works] == [107.0, 110.0, 0.0]
    assert one.tally.run_time.total == pytest.approx(4.0)
    assert one.tally.queue_wait.total == pytest.approx(6.0 + 7.0)
    assert one.run_s is not None


def test_channel_calls_of_too_many_kinds_are_counted_together() -> None:
    calls = Calls()
    for number in range(MOST_KINDS + 10):
        calls.note(("db", f"method{number}"))
    calls.note(("db", "method0"))

    assert len(calls.counts) == MOST_KINDS + 1
    assert calls.counts["db", OTHERS] == 10
    assert calls.counts["db", "method0"] == 2
