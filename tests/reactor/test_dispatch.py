"""Round-robin over handlers, batches by time, and what was handed out and comes back."""

from __future__ import annotations

from penstock.channels.recorder import MAX_BATCH
from penstock.reactor.dispatch import BATCH_BYTES, GATHERED, Dispatcher
from tests.reactor.deliveries import served, work


def test_handlers_take_turns() -> None:
    dispatcher = Dispatcher()
    busy, quiet = served("busy", index=0, run_s=1e-5), served("quiet", index=1, run_s=1e-5)
    for tag in range(10):
        dispatcher.add(work(busy, tag))
    dispatcher.add(work(quiet, 99))

    batch = dispatcher.take(idle_slots=1)

    assert [one.delivery.tag for one in batch] == [0, 99, *range(1, 10)]


def test_a_batch_holds_about_ten_milliseconds_of_work() -> None:
    dispatcher = Dispatcher()
    quick = served(run_s=1 / 1024)
    for tag in range(100):
        dispatcher.add(work(quick, tag))

    assert len(dispatcher.take(idle_slots=1)) == 10


def test_a_slow_handlers_deliveries_travel_alone() -> None:
    dispatcher = Dispatcher()
    slow = served(run_s=0.5)
    for tag in range(3):
        dispatcher.add(work(slow, tag))

    assert [len(dispatcher.take(1)) for _ in range(4)] == [1, 1, 1, 0]


def test_a_handler_of_unknown_pace_is_tried_with_one() -> None:
    dispatcher = Dispatcher()
    unknown = served()
    for tag in range(3):
        dispatcher.add(work(unknown, tag))

    assert len(dispatcher.take(1)) == 1


def test_what_waits_is_shared_among_idle_slots() -> None:
    dispatcher = Dispatcher()
    quick = served(run_s=1e-6)
    for tag in range(10):
        dispatcher.add(work(quick, tag))

    assert [len(dispatcher.take(2)), len(dispatcher.take(1))] == [5, 5]


def test_a_batch_never_exceeds_the_recorder() -> None:
    dispatcher = Dispatcher()
    quick = served(run_s=1e-9)
    for tag in range(MAX_BATCH + 10):
        dispatcher.add(work(quick, tag))

    assert len(dispatcher.take(1)) == MAX_BATCH
    assert len(dispatcher) == 10


def test_large_bodies_end_a_batch_early() -> None:
    dispatcher = Dispatcher()
    quick = served(run_s=1e-9)
    for tag in range(4):
        dispatcher.add(work(quick, tag, body=bytes(BATCH_BYTES // 2)))

    assert len(dispatcher.take(1)) == 2


def test_a_suspect_travels_alone() -> None:
    dispatcher = Dispatcher()
    quick = served(run_s=1e-6)
    works = [work(quick, tag) for tag in range(3)]
    works[1].alone = True
    for one in works:
        dispatcher.add(one)

    assert [[w.delivery.tag for w in dispatcher.take(1)] for _ in range(3)] == [[0], [1], [2]]


def test_what_comes_back_goes_to_the_front_in_its_order() -> None:
    dispatcher = Dispatcher()
    quick = served(run_s=1e-6)
    for tag in range(6):
        dispatcher.add(work(quick, tag))
    batch = dispatcher.take(idle_slots=2)

    dispatcher.put_back(batch[1:])

    assert [one.delivery.tag for one in dispatcher.take(1)] == [1, 2, 3, 4, 5]
    assert repr(dispatcher) == "<Dispatcher [0 waiting for 0 handlers]>"


def test_clearing_gives_everything_that_waits() -> None:
    dispatcher = Dispatcher()
    for index in range(3):
        dispatcher.add(work(served(f"q{index}", index=index), index))

    assert sorted(one.delivery.tag for one in dispatcher.clear()) == [0, 1, 2]
    assert dispatcher.take(1) == []


def test_a_handler_that_turns_slow_leaves_the_large_batches_at_once() -> None:
    one = served(run_s=0.0001)

    one.note_run(0.02)

    assert one.run_s is not None
    assert one.run_s > 0.005


def test_quick_work_gathers_and_slow_work_does_not() -> None:
    dispatcher = Dispatcher()
    dispatcher.add(work(served(run_s=1e-5)))
    assert not dispatcher.is_worth_a_slot()

    for tag in range(GATHERED):
        dispatcher.add(work(served(run_s=1e-5), tag))
    assert dispatcher.is_worth_a_slot()

    for run_s in (None, 0.003):
        slow = Dispatcher()
        slow.add(work(served(run_s=run_s)))
        assert slow.is_worth_a_slot()
