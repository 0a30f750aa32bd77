"""The state machine of what is out: prefetch, tags, and what a failed or a lost round leaves."""

import pytest

from penstock.app.messages import FRESH, History
from penstock.buses.embedded.deliveries import Consumer, Deliveries
from penstock.buses.embedded.rounds import Claim, Round
from penstock.buses.embedded.store import Claimed
from tests.contract.received import Received

QUEUE = 1


@pytest.fixture
def received() -> Received:
    return Received()


@pytest.fixture
def deliveries(received: Received) -> Deliveries:
    machine = Deliveries(on_settled=lambda: None)
    machine.consume([Consumer(QUEUE, "work", 3, received)])
    return machine


def claimed(*ids: int, history: History = FRESH) -> list[Claimed]:
    return [
        Claimed(
            id_,
            0,
            id_,
            0,
            0,
            f"m-{id_}",
            None,
            None,
            None,
            None,
            None,
            None,
            None,
            0.0,
            *_columns(history),
            b"",
        )
        for id_ in ids
    ]


def _columns(history: History) -> tuple[int, int, float]:
    return history.attempts, history.crashes, history.first_failed_at_s


def test_claims_leave_room_for_what_is_out(deliveries: Deliveries, received: Received) -> None:
    (claim,) = deliveries.next_claims()
    assert claim == Claim(QUEUE, 3)
    assert deliveries.next_claims() == ()  # in flight

    deliveries.arrive(claim, claimed(1, 2, 3))
    assert deliveries.next_claims() == ()  # full

    received.deliveries[0].settler.ack(received.deliveries[0].tag)
    assert deliveries.next_claims() == (Claim(QUEUE, 1),)


def test_a_queue_that_had_no_more_is_left_alone_until_somebody_speaks(deliveries: Deliveries) -> None:
    (claim,) = deliveries.next_claims()
    deliveries.arrive(claim, claimed(1))
    assert deliveries.next_claims() == ()

    deliveries.look_at({99})
    assert deliveries.next_claims() == ()
    deliveries.look_at({QUEUE})
    assert deliveries.next_claims() == (Claim(QUEUE, 2),)


def test_a_word_that_comes_while_a_claim_is_in_flight_is_not_lost(deliveries: Deliveries) -> None:
    (claim,) = deliveries.next_claims()
    deliveries.look_at(None)
    deliveries.arrive(claim, [])

    assert deliveries.next_claims() == (Claim(QUEUE, 3),)


def test_a_tag_settles_once(deliveries: Deliveries, received: Received) -> None:
    deliveries.arrive(Claim(QUEUE, 3), claimed(1))
    (delivery,) = received.deliveries

    assert delivery.settler.ack(delivery.tag)
    assert not delivery.settler.ack(delivery.tag)
    assert not delivery.settler.requeue(delivery.tag)

    assert deliveries.next_settlements() == {"ack": (1,), "requeue": (), "unseen": ()}


def test_an_old_tag_does_not_settle_the_messages_next_delivery(
    deliveries: Deliveries, received: Received
) -> None:
    deliveries.arrive(Claim(QUEUE, 3), claimed(1))
    received.deliveries[0].settler.requeue(received.deliveries[0].tag)
    deliveries.arrive(Claim(QUEUE, 3), claimed(1))
    old, new = received.deliveries

    assert not old.settler.ack(old.tag)
    assert new.settler.ack(new.tag)


def test_a_failed_round_is_wanted_again_in_order(deliveries: Deliveries, received: Received) -> None:
    (claim,) = deliveries.next_claims()
    deliveries.arrive(claim, claimed(1, 2))
    first, second = received.deliveries
    first.settler.ack(first.tag)
    deliveries.next_settlements()
    second.settler.ack(second.tag)

    assert deliveries.known() == {1, 2}
    deliveries.failed(Round(lease_id=1, claims=(claim,)))

    assert deliveries.next_settlements()["ack"] == (1, 2)
    assert deliveries.next_claims() == (Claim(QUEUE, 3),)
    assert deliveries.done == 0
    deliveries.settled(0.0)
    assert deliveries.done == deliveries.asked == 2


def test_a_lost_lease_voids_all_and_begins_afresh(deliveries: Deliveries, received: Received) -> None:
    deliveries.arrive(Claim(QUEUE, 3), claimed(1, 2))
    first, second = received.deliveries
    first.settler.ack(first.tag)

    deliveries.lose_lease()

    assert second.settler.is_gone
    assert not second.settler.ack(second.tag)
    assert not deliveries.has_settlements
    assert deliveries.done == deliveries.asked
    assert deliveries.next_claims() == (Claim(QUEUE, 3),)
    deliveries.arrive(Claim(QUEUE, 3), claimed(2))
    assert not received.deliveries[2].settler.is_gone


def test_what_arrives_after_stopping_goes_back_unseen(deliveries: Deliveries, received: Received) -> None:
    (claim,) = deliveries.next_claims()

    deliveries.stop()
    deliveries.arrive(claim, claimed(1, 2))

    assert received.deliveries == []
    assert deliveries.next_settlements() == {"ack": (), "requeue": (), "unseen": (1, 2)}
    deliveries.look_at(None)
    assert deliveries.next_claims() == ()


def test_history_comes_from_its_columns(deliveries: Deliveries, received: Received) -> None:
    history = History(attempts=2, crashes=1, first_failed_at_s=5.0)

    deliveries.arrive(Claim(QUEUE, 3), [*claimed(1), *claimed(2, history=history)])

    assert [delivery.history for delivery in received.deliveries] == [FRESH, history]


def test_its_repr_says_what_is_going_on(deliveries: Deliveries, received: Received) -> None:
    deliveries.arrive(Claim(QUEUE, 3), claimed(1, 2))
    received.deliveries[0].settler.ack(received.deliveries[0].tag)

    assert repr(deliveries) == "<Deliveries from 1 queues, 1 out, 1 being settled>"
