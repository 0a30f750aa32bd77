"""Which acks are written, and in which order: an ack too many closes the AMQP channel with everything in flight."""

from random import Random

import pytest
from aiormq import spec
from pamqp.frame import marshal

from penstock.buses.rabbitmq.acks import AckFrame, AckPlan, NackFrame
from tests.rabbitmq.broker_model import BrokerModel, ChannelClosedError

SEED = 20261121


def plan_of(*, acks: tuple[int, ...] = (), requeues: tuple[int, ...] = ()) -> AckPlan:
    plan = AckPlan()
    assert all([*map(plan.ack, acks), *map(plan.requeue, requeues)])
    return plan


def test_a_run_from_the_first_tag_is_one_ack() -> None:
    assert plan_of(acks=(3, 1, 2)).take() == [AckFrame(3, multiple=True)]


def test_what_lies_above_a_straggler_is_acked_singly() -> None:
    plan = plan_of(acks=(1, 2, 4, 5))

    assert plan.take() == [
        AckFrame(2, multiple=True),
        AckFrame(4, multiple=False),
        AckFrame(5, multiple=False),
    ]


def test_the_straggler_is_acked_for_itself_when_it_comes() -> None:
    plan = plan_of(acks=(2, 3))
    plan.take()

    plan.ack(1)

    # Not up to 3: the broker has settled 3 and would refuse it.
    assert plan.take() == [AckFrame(1, multiple=True)]


def test_a_requeue_is_written_before_the_ack_that_would_swallow_it() -> None:
    assert plan_of(acks=(1, 3), requeues=(2,)).take() == [NackFrame(2), AckFrame(3, multiple=True)]


def test_requeues_alone_are_never_followed_by_an_ack() -> None:
    assert plan_of(requeues=(1, 2)).take() == [NackFrame(1), NackFrame(2)]


def test_what_was_asked_for_is_taken_once() -> None:
    plan = plan_of(acks=(1, 3), requeues=(5,))
    assert len(plan) == 3

    plan.take()

    assert len(plan) == 0
    assert plan.take() == []


@pytest.mark.parametrize("is_written", [False, True])
@pytest.mark.parametrize("tag", [1, 3, 5])
def test_a_settled_tag_is_not_settled_again(tag: int, is_written: bool) -> None:
    plan = plan_of(acks=(1, 3), requeues=(5,))
    if is_written:
        plan.take()

    assert not plan.ack(tag)
    assert not plan.requeue(tag)

    assert len(plan) == (0 if is_written else 3)


def test_the_model_refuses_what_the_broker_refuses() -> None:
    model = BrokerModel()
    model.deliver()
    model.write(AckFrame(1, multiple=False))

    for frame in (AckFrame(1, multiple=True), AckFrame(2, multiple=False), NackFrame(1)):
        with pytest.raises(ChannelClosedError):
            model.write(frame)


def test_whatever_order_outcomes_come_in_each_is_settled_once_as_asked() -> None:
    for seed in range(SEED, SEED + 1000):
        settle_at_random(Random(seed))


def settle_at_random(dice: Random) -> None:
    model, plan = BrokerModel(), AckPlan()
    out: list[int] = []
    wants_ack: set[int] = set()
    wants_requeue: set[int] = set()
    requeue_part = dice.choice([0.0, 0.1, 0.5, 1.0])

    for _ in range(dice.randrange(1, 200)):
        match dice.randrange(4):
            case 0 | 1:
                out += [model.deliver() for _ in range(dice.randrange(1, 6))]
            case 2 if out:
                # Mostly the oldest, as work ends; sometimes any.
                tag = out.pop(0 if dice.random() < 0.6 else dice.randrange(len(out)))
                if dice.random() < requeue_part:
                    assert plan.requeue(tag)
                    wants_requeue.add(tag)
                else:
                    assert plan.ack(tag)
                    wants_ack.add(tag)
                settled = dice.choice(sorted(wants_ack | wants_requeue))
                assert not plan.ack(settled)
                assert not plan.requeue(settled)
            case _:
                for frame in plan.take():
                    model.write(frame)
                assert (model.acked, model.requeued) == (wants_ack, wants_requeue)

    for frame in plan.take():
        model.write(frame)
    assert (model.acked, model.requeued, model.unsettled) == (wants_ack, wants_requeue, set(out))


@pytest.mark.parametrize(
    ("ours", "method"),
    [
        (AckFrame(2**40, multiple=True), spec.Basic.Ack(2**40, multiple=True)),
        (AckFrame(7, multiple=False), spec.Basic.Ack(7, multiple=False)),
        (NackFrame(7), spec.Basic.Nack(7, multiple=False, requeue=True)),
    ],
)
def test_frames_are_those_of_the_amqp_library(ours: AckFrame | NackFrame, method: spec.Basic.Ack) -> None:
    assert ours.packed(3) == marshal(method, 3)
