"""Redelivered messages join the work that is running, or that ended just now: they do not run twice.

When an AMQP channel dies, the broker hands its unsettled messages out again at once, while their handlers still run
here. A redelivery that agrees in queue, message id, body *and* history takes the running work over: its outcome settles
the new delivery. One whose ack was lost with its channel is acked at once.

A retry has the id and the body of the message whose ack may be lost, and is another message: acked in its place, it would
be lost. Its history tells them apart; where it does not, the work is not remembered.

What bounds it: the recent ones are as many as may be out unsettled (an ack further back has reached the broker, else it
would not have handed out what came after), and for 60 s.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from penstock.app.messages import FRESH, History
from penstock.buses.contract import Delivery, Settler
from penstock.reactor.work import Work

REMEMBERED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Ended:
    digest: bytes
    settler: Settler
    at_s: float


class Joiner:
    """Knows what runs and what ended; times are monotonic seconds, given by the caller."""

    def __init__(self, *, remembered: int) -> None:
        self._remembered = remembered
        self._running: dict[Hashable, Work] = {}
        self._ended: OrderedDict[Hashable, _Ended] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Joiner [{len(self._running)} running, {len(self._ended)} remembered]>"

    def find_running(self, delivery: Delivery) -> Work | None:
        """The work that this redelivery belongs to; None when it has to run."""
        if not delivery.redelivered or delivery.message_id is None:
            return None
        work = self._running.get(_key(delivery))
        # A live settler means that the first delivery is still out: this is another message with the same id.
        if work is None or not work.delivery.settler.is_gone:
            return None
        return work if work.delivery.body == delivery.body else None

    def has_ended(self, delivery: Delivery, now_s: float) -> bool:
        """True when it was handled here less than 60 s ago and its ack went down with its AMQP channel.

        One delivery joins one work: the memory of it is used up.
        """
        if not delivery.redelivered or delivery.message_id is None:
            return False
        key = _key(delivery)
        ended = self._ended.get(key)
        if ended is None or not ended.settler.is_gone or ended.digest != _digest(delivery.body):
            return False
        del self._ended[key]
        return now_s - ended.at_s < REMEMBERED_S

    def begin(self, work: Work) -> None:
        """The work runs from now on; a message without an id never joins."""
        if work.delivery.message_id is not None:
            # Kept, because what its run finds out may change its history.
            work.join_key = key = _key(work.delivery)
            self._running.setdefault(key, work)

    def forget(self, work: Work) -> None:
        """The work was handed back, or a message that looks just like it is on its way."""
        if self._running.get(work.join_key) is work:
            del self._running[work.join_key]
        self._ended.pop(work.join_key, None)

    def end(self, work: Work, now_s: float) -> None:
        """The work ended and its ack was asked for."""
        if work.join_key is None:
            return
        self.forget(work)
        delivery = work.delivery
        self._ended[work.join_key] = _Ended(_digest(delivery.body), delivery.settler, now_s)
        if len(self._ended) > self._remembered:
            self._ended.popitem(last=False)


def _key(delivery: Delivery) -> tuple[str, str | None, History | None]:
    # Its own copies and retries have the id, too. Nearly all have no history, and their key is made quickly.
    history = delivery.history
    return delivery.queue, delivery.message_id, None if history is FRESH else history


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=16).digest()
