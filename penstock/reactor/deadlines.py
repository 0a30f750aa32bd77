"""Hard deadlines: a handler that ignores its soft one is killed with its process, and with nobody else.

Nothing in the worker could do it: a handler may swallow the exception, or sit in C code that sees no signal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from penstock.channels.recorder import Reading
from penstock.reactor.slots import Slot
from penstock.reactor.work import Work

#: How often the flight recorders are read.
TICK_S: Final = 0.1

_log = structlog.get_logger("penstock.deadlines")


async def watch_deadlines(slots: Callable[[], Iterable[Slot]], kill_after_s: float) -> None:
    """Kill what runs `kill_after_s` seconds beyond its handler's `timeout`; returns only when cancelled.

    It also looks how much memory those workers have that take their time, for the evidence of a death.
    """
    while True:
        await asyncio.sleep(TICK_S)
        now_s = time.monotonic()
        overdue = [one for slot in slots() if (one := _overdue(slot, now_s, kill_after_s)) is not None]
        if overdue:
            await asyncio.gather(*(_kill(one, now_s, kill_after_s) for one in overdue))


@dataclass(frozen=True, slots=True)
class _Overdue:
    slot: Slot
    reading: Reading
    work: Work
    timeout_s: float


def _overdue(slot: Slot, now_s: float, kill_after_s: float) -> _Overdue | None:
    reading, work = slot.reading()
    if work is None:
        return None
    ran_s = now_s - reading.since_s
    if ran_s > TICK_S:
        # Quick ones are over before anybody could look, and looking costs more than they do.
        slot.note_memory()
    timeout_s = work.served.handler.options.timeout_s
    if timeout_s is None or ran_s <= timeout_s + kill_after_s:
        return None
    return _Overdue(slot, reading, work, timeout_s)


async def _kill(overdue: _Overdue, now_s: float, kill_after_s: float) -> None:
    slot, work = overdue.slot, overdue.work
    pid, why = slot.pid, f"killed {kill_after_s:g} s after its deadline of {overdue.timeout_s:g} s"
    if await slot.kill_overdue(overdue.reading, why):
        # Once a slot: one that is being killed is not overdue again.
        work.served.tally.deadline_kills += 1
        _log.error(
            "a handler ignored its deadline: its worker is killed, the message is tried again or dead lettered",
            slot=slot.name,
            pid=pid,
            **work.fields,
            ran_s=round(now_s - overdue.reading.since_s, 1),
        )
