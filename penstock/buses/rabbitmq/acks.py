"""Acks of one AMQP channel, gathered and written together in one order.

A delivery tag means something on its own AMQP channel only, and an ack for a tag that is settled closes that channel
with everything in flight. So each incarnation of an AMQP channel has a settler of its own, which dies with it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from struct import Struct
from typing import Final

from penstock.buses.contract import Told
from penstock.buses.rabbitmq.stream import Wire

#: Acks asked for within so many seconds leave together.
FLUSH_S: Final = 0.003


# A method frame of 13 bytes: class and method, the delivery tag, the flags (AMQP 0-9-1 and RabbitMQ's basic.nack).
_FRAME: Final = Struct(">BHIHHQBB")
_METHOD, _SIZE_BYTES, _BASIC, _ACK, _NACK, _END = 1, 13, 60, 80, 120, 0xCE
_MULTIPLE, _REQUEUE = 1, 2


@dataclass(frozen=True, slots=True)
class AckFrame:
    """basic.ack of one tag, or of every unsettled tag up to it."""

    tag: int
    multiple: bool

    def packed(self, number: int) -> bytes:
        """Its bytes on AMQP channel `number`."""
        flags = _MULTIPLE if self.multiple else 0
        return _FRAME.pack(_METHOD, number, _SIZE_BYTES, _BASIC, _ACK, self.tag, flags, _END)


@dataclass(frozen=True, slots=True)
class NackFrame:
    """basic.nack of one tag, requeued."""

    tag: int

    def packed(self, number: int) -> bytes:
        """Its bytes on AMQP channel `number`."""
        return _FRAME.pack(_METHOD, number, _SIZE_BYTES, _BASIC, _NACK, self.tag, _REQUEUE, _END)


class AckPlan:
    """Decides what to write; memory only. Tags count from 1 without a gap, as the broker hands them out."""

    def __init__(self) -> None:
        self._acks: set[int] = set()
        self._requeues: set[int] = set()
        self._ahead: set[int] = set()
        """Written singly, above the floor."""
        self._floor = 0
        """Every tag up to here is settled and written."""

    def __len__(self) -> int:
        return len(self._acks) + len(self._requeues)

    def ack(self, tag: int) -> bool:
        """Ask for an ack; False when the tag is settled already."""
        if self.is_settled(tag):
            return False
        self._acks.add(tag)
        return True

    def requeue(self, tag: int) -> bool:
        """Ask for a requeue; False when the tag is settled already."""
        if self.is_settled(tag):
            return False
        self._requeues.add(tag)
        return True

    def take(self) -> list[AckFrame | NackFrame]:
        """The frames for everything asked for, in the order in which they have to be written.

        Requeues first, because a multiple ack would swallow them. Then one ack for the longest settled run; it ends
        on a tag that is unsettled for the broker, which refuses any other. Then those above a straggler, singly.
        """
        frames: list[AckFrame | NackFrame] = [NackFrame(tag) for tag in sorted(self._requeues)]
        acks, ahead = self._acks, self._ahead
        ahead |= self._requeues
        last = floor = self._floor
        while True:
            tag = floor + 1
            if tag in acks:
                acks.discard(tag)
                last = tag
            elif tag in ahead:
                ahead.discard(tag)
            else:
                break
            floor = tag
        if last > self._floor:
            frames.append(AckFrame(last, multiple=True))
        frames += [AckFrame(tag, multiple=False) for tag in sorted(acks)]
        ahead |= acks
        self._floor = floor
        self._acks, self._requeues = set(), set()
        return frames

    def is_settled(self, tag: int) -> bool:
        """True once it was asked for."""
        return tag <= self._floor or tag in self._acks or tag in self._requeues or tag in self._ahead


class ChannelSettler:
    """Settles the deliveries of one incarnation of an AMQP channel; `die` is called when that is gone."""

    def __init__(self, number: int, wire: Wire) -> None:
        self._number = number
        self._wire = wire
        self._plan = AckPlan()
        self._told: list[Told] = []
        """Who is told of the next flush."""
        self._flush: asyncio.TimerHandle | None = None
        self._is_gone = False

    @property
    def is_gone(self) -> bool:
        """True once nothing that came over it can be settled any more."""
        return self._is_gone

    def holds(self, tag: int) -> bool:
        """True while nobody has asked to settle it."""
        return not self._plan.is_settled(tag)

    @property
    def waiting(self) -> int:
        """Acks and requeues that were asked for and are not written."""
        return 0 if self._is_gone else len(self._plan)

    def ack(self, tag: int, told: Told | None = None) -> bool:
        """Ask for an ack; written within a few milliseconds, and `told` hears of that."""
        if self._is_gone or not self._plan.ack(tag):
            return False
        if told is not None:
            self._told.append(told)
        return self._soon()

    def requeue(self, tag: int) -> bool:
        """Ask for a requeue; written within a few milliseconds."""
        return not self._is_gone and self._plan.requeue(tag) and self._soon()

    def die(self) -> None:
        """The AMQP channel is gone; the broker hands its unsettled deliveries out again."""
        self._is_gone = True
        self._told.clear()

    def flush(self) -> None:
        """Write everything asked for so far, unless the AMQP channel is gone."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if len(self._plan) and not self._is_gone:
            self._wire.write(b"".join(frame.packed(self._number) for frame in self._plan.take()))
            told, self._told = self._told, []
            now_s = time.monotonic()
            for one in told:
                one.note_acked(now_s)

    def _soon(self) -> bool:
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        return True
