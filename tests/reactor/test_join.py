"""A redelivery of what runs, or just ended, does not run twice; anything less certain does."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.app.messages import History
from penstock.reactor.join import REMEMBERED_S, Joiner
from penstock.reactor.work import Work
from tests.reactor.deliveries import Ledger, delivery, served


def running(settler: Ledger, joiner: Joiner) -> Work:
    work = Work(delivery(settler), served())
    joiner.begin(work)
    return work


def test_a_redelivery_joins_the_work_whose_amqp_channel_died() -> None:
    joiner, settler = Joiner(remembered=10), Ledger()
    work = running(settler, joiner)
    settler.is_gone = True

    assert joiner.find_running(delivery(redelivered=True)) is work


@pytest.mark.parametrize(
    "difference",
    [
        {"redelivered": False},
        {"message_id": None},
        {"message_id": "m2"},
        {"queue": "other"},
        {"body": b"[]"},
        {"history": History(1)},
    ],
)
def test_what_differs_runs_on_its_own(difference: dict[str, Any]) -> None:
    joiner, settler = Joiner(remembered=10), Ledger()
    running(settler, joiner)
    settler.is_gone = True

    assert joiner.find_running(delivery(**{"redelivered": True, **difference})) is None


def test_one_delivery_joins_one_work() -> None:
    joiner, settler = Joiner(remembered=10), Ledger()
    work = running(settler, joiner)
    settler.is_gone = True
    joined = delivery(redelivered=True)

    work.delivery = joined

    assert joiner.find_running(delivery(redelivered=True)) is None


def test_an_ack_that_went_down_with_its_amqp_channel_is_remembered_once() -> None:
    joiner, settler = Joiner(remembered=10), Ledger()
    joiner.end(running(settler, joiner), now_s=0)
    settler.is_gone = True

    assert joiner.has_ended(delivery(redelivered=True), now_s=1)
    assert not joiner.has_ended(delivery(redelivered=True), now_s=1)


def test_a_retry_is_not_taken_for_the_message_that_it_repeats() -> None:
    joiner, settler = Joiner(remembered=10), Ledger()
    joiner.end(running(settler, joiner), now_s=0)
    settler.is_gone = True

    assert not joiner.has_ended(delivery(redelivered=True, history=History(1)), now_s=1)
    assert joiner.has_ended(delivery(redelivered=True), now_s=1)


def test_what_is_forgotten_takes_what_was_remembered_of_its_id_along() -> None:
    joiner, settler = Joiner(remembered=10), Ledger()
    joiner.end(running(settler, joiner), now_s=0)
    joiner.forget(running(settler, joiner))
    settler.is_gone = True

    assert not joiner.has_ended(delivery(redelivered=True), now_s=1)


def test_while_the_amqp_channel_lives_a_redelivery_is_another_message() -> None:
    joiner = Joiner(remembered=10)
    joiner.end(running(Ledger(), joiner), now_s=0)

    assert not joiner.has_ended(delivery(redelivered=True), now_s=1)


def test_the_memory_ends() -> None:
    joiner, settler = Joiner(remembered=2), Ledger(is_gone=True)
    for number in range(3):
        work = Work(delivery(settler, message_id=f"m{number}"), served())
        joiner.begin(work)
        joiner.end(work, now_s=0)

    assert not joiner.has_ended(delivery(message_id="m0", redelivered=True), now_s=1)
    assert joiner.has_ended(delivery(message_id="m1", redelivered=True), now_s=1)
    assert not joiner.has_ended(delivery(message_id="m2", redelivered=True), now_s=REMEMBERED_S + 1)
    assert repr(joiner) == "<Joiner [0 running, 0 remembered]>"


def test_what_was_handed_back_is_forgotten() -> None:
    joiner, settler = Joiner(remembered=10), Ledger()
    work = running(settler, joiner)
    settler.is_gone = True

    joiner.forget(work)

    assert joiner.find_running(delivery(redelivered=True)) is None


def test_a_copy_that_arrives_while_its_original_is_settled_joins_a_run_of_its_own() -> None:
    joiner, settler = Joiner(remembered=10), Ledger()
    original = running(settler, joiner)
    copy = Work(delivery(settler, history=History(starts=1)), served())
    joiner.begin(copy)
    joiner.forget(original)
    settler.is_gone = True

    assert joiner.find_running(delivery(redelivered=True, history=History(starts=1))) is copy
    assert joiner.find_running(delivery(redelivered=True)) is None
