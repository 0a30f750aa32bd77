"""Acks of one AMQP channel, gathered and written by one ordered writer.

A delivery tag means something on its own AMQP channel only, and an ack for a tag that is settled closes that channel
with everything in flight. So each incarnation of an AMQP channel has a settler of its own, which dies with it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from aiormq.abc import AbstractChannel

from penstock.buses.rabbitmq.broken import broken_is_an_error

#: Acks asked for within so many seconds leave together.
FLUSH_S: Final = 0.003


@dataclass(frozen=True, slots=True)
class AckFrame:
    """basic.ack of one tag, or of every unsettled tag up to it."""

    tag: int
    multiple: bool


@dataclass(frozen=True, slots=True)
class NackFrame:
    """basic.nack of one tag, requeued."""

    tag: int


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

    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel
        self._plan = AckPlan()
        self._writer: asyncio.Task[None] | None = None
        self._is_gone = False

    @property
    def is_gone(self) -> bool:
        """True once nothing that came over it can be settled any more."""
        return self._is_gone

    def holds(self, tag: int) -> bool:
        """True while nobody has asked to settle it."""
        return not self._plan.is_settled(tag)

    def ack(self, tag: int) -> bool:
        """Ask for an ack; written within a few milliseconds."""
        return not self._is_gone and self._plan.ack(tag) and self._wake()

    def requeue(self, tag: int) -> bool:
        """Ask for a requeue; written within a few milliseconds."""
        return not self._is_gone and self._plan.requeue(tag) and self._wake()

    def die(self) -> None:
        """The AMQP channel is gone; the broker hands its unsettled deliveries out again."""
        self._is_gone = True

    async def flush(self) -> None:
        """Returns when everything asked for so far is written, or the AMQP channel is gone."""
        while self._writer is not None and not self._writer.done():
            await asyncio.wait((self._writer,))

    def _wake(self) -> bool:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="penstock-acks")
        return True

    async def _write(self) -> None:
        while len(self._plan) and not self._is_gone:
            await asyncio.sleep(FLUSH_S)
            try:
                with broken_is_an_error():
                    for frame in self._plan.take():
                        if isinstance(frame, AckFrame):
                            await self._channel.basic_ack(frame.tag, multiple=frame.multiple, wait=False)
                        else:
                            await self._channel.basic_nack(frame.tag, requeue=True, wait=False)
            except Exception:  # noqa: BLE001
                # Whatever it was, these acks did not all leave: with the AMQP channel gone the broker repeats them.
                self.die()
