"""Who is suspected of having ended a service, and that suspects run one at a time."""

from __future__ import annotations

import asyncio

import pytest

from penstock.app.messages import History
from penstock.reactor import apart
from penstock.reactor.apart import Apart
from penstock.reactor.counting import Counting
from penstock.reactor.side_tasks import SideTasks
from penstock.reactor.suspicion import Suspicion, suspicion
from penstock.reactor.work import Work
from tests.reactor.deliveries import delivery, served, work

COPY = History(alone=True)


@pytest.mark.parametrize(
    ("history", "redelivered", "delivery_count", "expected"),
    [
        (History(), False, 0, Suspicion.CLEAR),
        (History(4, 2), True, 2, Suspicion.CLEAR),
        (History(), True, 3, Suspicion.SUSPECT),
        (History(), True, None, Suspicion.UNCOUNTED),
        (History(starts=2), True, None, Suspicion.UNCOUNTED),
        (History(starts=2), False, 0, Suspicion.CLEAR),
        (History(starts=3), False, 0, Suspicion.SUSPECT),
        (COPY, False, 0, Suspicion.RUNS_ALONE),
        (COPY, True, 1, Suspicion.KILLED),
        (COPY, True, None, Suspicion.KILLED),
    ],
)
def test_what_the_past_says(
    history: History, redelivered: bool, delivery_count: int | None, expected: Suspicion
) -> None:
    one = delivery(history=history, redelivered=redelivered, delivery_count=delivery_count)

    assert suspicion(one) is expected


class Turns:
    """What the turn asked for."""

    def __init__(self, *, comes_back: bool = True) -> None:
        self.marked: list[Work] = []
        self.begun: list[Work] = []
        self._comes_back = comes_back
        self.acks_taken = asyncio.Event()
        self.acks_taken.set()
        self.side_tasks = SideTasks()
        self.counting = Counting(
            self.side_tasks, count_start=self.marked.append, acks_taken=lambda _: self._wait_for_acks()
        )
        self.freed: list[Work] = []
        self.apart = Apart(
            self.counting, set_apart=self._set_apart, set_free=self.freed.append, run=self.begin
        )
        self.begins, self.marks = asyncio.Event(), asyncio.Event()

    def begin(self, one: Work) -> None:
        self.begun.append(one)
        self.begins.set()

    async def _wait_for_acks(self) -> None:
        await self.acks_taken.wait()

    def settle(self, one: Work) -> None:
        """As the reactor tells both."""
        self.counting.note_settled(one)
        self.apart.note_settled(one)

    async def until_begun(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.begun) < count:
                self.begins.clear()
                await self.begins.wait()

    async def is_marked(self, count: int) -> None:
        while len(self.marked) < count:
            self.marks.clear()
            await self.marks.wait()

    def _set_apart(self, one: Work) -> bool:
        self.marked.append(one)
        self.marks.set()
        return self._comes_back


async def test_one_suspect_after_the_other_is_marked_and_run() -> None:
    turns = Turns()
    first, second = work(served(), 1, delivery_count=3), work(served(), 2, delivery_count=3)
    copy = work(served(), 3, history=COPY)

    turns.apart.take_on(first)
    turns.apart.take_on(second)
    turns.apart.take_on(copy)
    assert (turns.marked, turns.begun) == ([first], [])

    turns.settle(first)
    await turns.until_begun(1)
    assert (turns.marked, turns.begun) == ([first], [copy])

    turns.settle(copy)
    assert turns.marked == [first, second]


@pytest.mark.parametrize("history", [COPY, History(starts=1)])
async def test_a_copy_waits_until_the_bus_has_the_ack_of_the_original(history: History) -> None:
    turns = Turns()
    turns.acks_taken.clear()
    original, copy = work(served(), 1, delivery_count=None), work(served(), 2, history=history)

    turns.counting.count(original)
    turns.counting.admit(copy, turns.begin)
    turns.settle(original)
    await asyncio.sleep(0)
    assert turns.begun == []

    turns.acks_taken.set()
    await turns.until_begun(1)
    assert turns.begun == [copy]


async def test_a_suspect_that_became_a_dead_letter_gives_the_turn_away() -> None:
    turns = Turns(comes_back=False)
    works = [work(served(), tag, redelivered=True, history=COPY) for tag in (1, 2)]

    for one in works:
        turns.apart.take_on(one)

    assert turns.marked == works


async def test_a_copy_that_cannot_run_at_once_loses_its_mark() -> None:
    turns = Turns()
    copies = [work(served(), tag, history=COPY) for tag in (1, 2)]

    for one in copies:
        turns.apart.take_on(one)

    assert (turns.begun, turns.freed) == (copies[:1], copies[1:])


async def test_a_copy_that_does_not_arrive_gives_the_turn_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "ARRIVAL_WAIT_S", 0.01)
    turns = Turns()
    works = [work(served(), tag, delivery_count=3) for tag in (1, 2)]

    for one in works:
        turns.apart.take_on(one)
    # However long the mark is under way, nobody else gets one.
    await asyncio.sleep(0.05)
    assert turns.marked == works[:1]

    turns.settle(works[0])
    async with asyncio.timeout(5):
        await turns.is_marked(2)
    assert turns.marked == works


async def test_what_waits_is_given_out_for_handing_back_and_nothing_begins_after_it() -> None:
    turns = Turns()
    running = work(served(), 1, history=COPY)
    suspect = work(served(), 3, delivery_count=3)
    for one in (running, suspect):
        turns.apart.take_on(one)

    assert turns.apart.clear() == [suspect]
    turns.settle(running)
    assert (turns.begun, turns.marked) == ([running], [])


async def test_a_copy_that_waits_for_those_beside_it_is_handed_back_at_a_stop_and_never_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apart, "TOGETHER_S", 0.0)
    turns = Turns()
    first, stray, second = (work(served(), tag, history=COPY) for tag in (1, 2, 3))
    turns.apart.take_on(first)
    turns.apart.take_on(stray)
    turns.settle(stray)
    turns.settle(first)

    turns.apart.take_on(second)
    assert turns.apart.clear() == [second]
    # Its turn of the loop has come and gone.
    for _ in range(3):
        await asyncio.sleep(0)
    assert turns.begun == [first]
