"""The consuming side of a bus at work: one task that plays rounds whenever there is something to do.

It is woken by: a settled delivery, a publish of this process, another process's word in the wake-up pipe, the
moment the next delayed message is due, and once a second by itself. That last look costs one small read; it
finds processes that died and messages whose publisher died between COMMIT and the wake-up.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import structlog

from penstock.app.backoff import Backoff
from penstock.app.messages import MAX_DELAY_S
from penstock.buses.contract import Delivery
from penstock.buses.embedded.clock import BusClock
from penstock.buses.embedded.deliveries import Consumer, Deliveries
from penstock.buses.embedded.leases import RENEWALS, Watch
from penstock.buses.embedded.rounds import CLAIMED_AT_ONCE, Claim, Played, Player, Round
from penstock.buses.embedded.store import Place
from penstock.buses.embedded.wakeup import WakeupPipe, folder_of
from penstock.buses.embedded.writer import Writer
from penstock.errors import BusError, BusUnavailable

log = structlog.get_logger(__name__)

#: Longest that a lost wake-up or a dead process goes unseen.
LOOK_AROUND_S: Final = 1.0
#: Longest wait after the first round that failed; doubled up to `bus.reconnect_cap_s`.
FIRST_BACKOFF_S: Final = 0.1
#: How long closing tries to hand deliveries back; after that their lease does it.
END_WAIT_S: Final = 5.0


@dataclass(slots=True)
class _Take:
    """Somebody wants to hold messages."""

    queue: str
    claim: Claim
    answer: asyncio.Future[tuple[list[Delivery], Place | None]]


class Pump:
    """Owned by the loop; `start`, then `aclose`."""

    def __init__(
        self, path: Path, writer: Writer, clock: BusClock, *, lease_s: float, backoff_cap_s: float
    ) -> None:
        self._work = asyncio.Event()
        self.deliveries = Deliveries(on_settled=self._work.set)
        self._path = path
        self._writer = writer
        self._clock = clock
        self._backoff = Backoff(first_s=FIRST_BACKOFF_S, cap_s=min(backoff_cap_s, MAX_DELAY_S))
        self._random = Random()
        self._look_around_s = min(LOOK_AROUND_S, lease_s / RENEWALS)
        self._renew_s = lease_s / RENEWALS
        pipe = WakeupPipe(folder_of(path))
        self._player = Player(path, clock, pipe, Watch(self._look_around_s), lease_s)
        self._takes: deque[_Take] = deque()
        self._flushing: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due_timer: asyncio.TimerHandle | None = None
        self._lease_id: int | None = None
        self._renewed_at_s = 0.0
        self._next_due_ms: int | None = None
        self._is_due_stale = False
        self._looked_at_version = -1
        self._looks_around = False
        self._must_reconcile = False
        self._is_ending = False
        self._read_fd: int | None = None
        self._complaint = ""

    def __repr__(self) -> str:
        return f"<Pump {self._path} lease {self._lease_id}, {self.deliveries!r}>"

    @property
    def is_alive(self) -> bool:
        """True from `start` until the end, unless a fault of ours ended it early."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin; harmless when repeated."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"penstock-bus-pump {self._path.name}")
            self._task.add_done_callback(self._ended)
            self._look_again_later()

    def consume(self, consumers: Collection[Consumer]) -> None:
        """Deliver from these queues, too."""
        self.deliveries.consume(consumers)
        self._work.set()

    def stop_consuming(self) -> None:
        """Nothing is delivered after it returns."""
        self.deliveries.stop()

    def look_at(self, queues: Collection[int] | None) -> None:
        """Messages may wait in these queues; None: in any."""
        self.deliveries.look_at(queues)
        # Whoever's queue it was: the message may be a delayed one, and the next that is due.
        self._is_due_stale = True
        self._work.set()

    async def take(self, queue: str, claim: Claim) -> tuple[list[Delivery], Place | None]:
        """Deliveries that no prefetch counts, and the place of the last one."""
        take = _Take(queue, claim, asyncio.get_running_loop().create_future())
        self._takes.append(take)
        self._work.set()
        return await take.answer

    async def flush(self) -> None:
        """Returns when everything settled so far is durable, or void because the lease has ended."""
        if self.deliveries.done == self.deliveries.asked:
            return
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushing.append((self.deliveries.asked, answer))
        if not self.is_alive:
            self._disappoint()
        await answer

    async def aclose(self) -> None:
        """Settle what was asked for, hand back the rest, end the lease; harmless when repeated."""
        if self._task is None:
            return
        self.stop_consuming()
        self._is_ending = True
        self._work.set()
        try:
            await asyncio.wait([self._task], timeout=END_WAIT_S)
            if not self._task.done():
                log.warning(
                    "the embedded bus could not hand deliveries back: their lease ends with this process",
                    file=str(self._path),
                    deliveries=repr(self.deliveries),
                )
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])
            for timer in (self._timer, self._due_timer):
                if timer is not None:
                    timer.cancel()
            self._forget_lease(is_over=False)

    def drop_pipe(self) -> None:
        """After the writer has closed: a round that was cut short may have opened the pipe once more."""
        self._player.pipe.abandon()

    async def _run(self) -> None:
        failures = 0
        while True:
            takes = list(self._takes)
            round_ = self._next_round(takes)
            if round_ is None:
                if self._is_ending:
                    return
                await self._work.wait()
                continue
            self._takes.clear()
            try:
                played = await self._writer.run(partial(self._player.play, round_), cost=_cost(round_))
            except (BusUnavailable, OSError) as error:
                self._fail(round_, takes)
                failures += 1
                self._complain(error)
                await asyncio.sleep(self._backoff.delay_s(failures, self._random))
                continue
            failures = 0
            self._complaint = ""
            self._apply(round_, takes, played)
            if round_.ends:
                return

    def _next_round(self, takes: list[_Take]) -> Round | None:
        self._work.clear()
        deliveries = self.deliveries
        is_due = self._next_due_ms is not None and self._clock.now_ms() >= self._next_due_ms
        self._arm_due_timer()
        claims = tuple(take.claim for take in takes) + deliveries.next_claims()
        if self._lease_id is None:
            if self._is_ending:
                return None
        elif not (
            claims
            or deliveries.has_settlements
            or self._looks_around
            or is_due
            or self._is_due_stale
            or self._is_ending
        ):
            return None
        settlements = deliveries.next_settlements(everything=self._is_ending)
        round_ = Round(
            lease_id=self._lease_id,
            acks=settlements["ack"],
            requeues=settlements["requeue"],
            unseen=settlements["unseen"],
            claims=claims,
            known=deliveries.known() if self._must_reconcile else None,
            looks_around=self._looks_around,
            renews=self._looks_around and time.monotonic() - self._renewed_at_s >= self._renew_s,
            ends=self._is_ending,
        )
        self._looks_around = self._is_due_stale = False
        return round_

    def _apply(self, round_: Round, takes: list[_Take], played: Played) -> None:
        if played.lease_id is None or round_.ends:
            self._forget_lease(is_over=True)
            self._takes.extendleft(reversed(takes))
            return
        if round_.lease_id is None:
            self._lease_id = played.lease_id
            self._listen()
        if round_.renews or round_.lease_id is None:
            self._renewed_at_s = time.monotonic()
        self._must_reconcile = False
        self._next_due_ms = played.next_due_ms
        # Compared with the last look at everything, not with the last round: a round looks at some queues only.
        if round_.looks_around and played.data_version != self._looked_at_version:
            self._looked_at_version = played.data_version
            self.look_at(None)
        self.deliveries.settled(time.monotonic())
        self._answer_flushes()
        self._hand_out(round_, takes, played)

    def _hand_out(self, round_: Round, takes: list[_Take], played: Played) -> None:
        answered = len(played.claimed)
        self._takes.extendleft(reversed(takes[answered:]))
        self.deliveries.look_at({claim.queue_id for claim in round_.claims[answered:]})
        for take, claimed in zip(takes, played.claimed, strict=False):
            if take.answer.done():
                self.deliveries.send_back(claimed)
            else:
                place = claimed[-1].place if claimed else None
                take.answer.set_result((self.deliveries.hand_out(take.queue, claimed), place))
        for claim, claimed in zip(round_.claims[len(takes) :], played.claimed[len(takes) :], strict=False):
            self.deliveries.arrive(claim, claimed)

    def _fail(self, round_: Round, takes: list[_Take]) -> None:
        self.deliveries.failed(round_)
        self._takes.extendleft(reversed(takes))
        self._looks_around = self._is_due_stale = self._must_reconcile = True
        if round_.lease_id is None:
            # Its lease may be in the file all the same.
            self._player.pipe.abandon()

    def _complain(self, error: BaseException) -> None:
        words = str(error)
        if words != self._complaint:
            self._complaint = words
            log.error(
                "the embedded bus cannot settle or claim; it tries again", error=words, file=str(self._path)
            )

    def _answer_flushes(self) -> None:
        while self._flushing and self._flushing[0][0] <= self.deliveries.done:
            _, answer = self._flushing.popleft()
            if not answer.done():
                answer.set_result(None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.critical(
                "the embedded bus has stopped delivering because of a fault in Penstock; restart the service",
                exc_info=task.exception(),
            )
        self._disappoint()

    def _disappoint(self) -> None:
        """Whoever still waits for the pump waits in vain."""
        waiting: list[asyncio.Future[None] | asyncio.Future[tuple[list[Delivery], Place | None]]] = []
        waiting += [answer for _, answer in self._flushing]
        waiting += [take.answer for take in self._takes]
        self._flushing.clear()
        self._takes.clear()
        for answer in waiting:
            if not answer.done():
                answer.set_exception(
                    BusError(
                        f"the embedded bus {self._path} has ended; what was not settled is handed out again"
                    )
                )

    # Waking.

    def _listen(self) -> None:
        pipe = self._player.pipe
        self._writer.own_pipe = pipe.name
        self._read_fd = pipe.fd
        if pipe.fd is not None:
            asyncio.get_running_loop().add_reader(pipe.fd, self._on_word)

    def _forget_lease(self, *, is_over: bool) -> None:
        self.deliveries.lose_lease()
        self._answer_flushes()
        if self._read_fd is not None:
            asyncio.get_running_loop().remove_reader(self._read_fd)
            self._read_fd = None
        if is_over:
            self._player.pipe.close()
        else:
            # The lease may still be in the file: its pipe has to be found, and found dead.
            self._player.pipe.abandon()
        self._writer.own_pipe = None
        self._lease_id = None

    def _on_word(self) -> None:
        self.look_at(self._player.pipe.read())

    def _look_again_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._look_around_s, self._on_second)

    def _on_second(self) -> None:
        self._looks_around = True
        self._work.set()
        self._look_again_later()

    def _arm_due_timer(self) -> None:
        if self._due_timer is not None:
            self._due_timer.cancel()
            self._due_timer = None
        if self._next_due_ms is not None:
            # A millisecond more, because the loop's timers may come a moment early.
            wait_s = (self._next_due_ms - self._clock.now_ms() + 1) / 1000
            self._due_timer = asyncio.get_running_loop().call_later(max(0.0, wait_s), self._work.set)


def _cost(round_: Round) -> int:
    settled = len(round_.acks) + len(round_.requeues) + len(round_.unseen)
    return 1 + settled + min(CLAIMED_AT_ONCE, sum(claim.limit for claim in round_.claims))
