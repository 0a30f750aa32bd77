"""Hard deadlines: a handler that ignores its soft one is killed with its process, and with nobody else.

Nothing in the worker could do it: a handler may swallow the exception, or sit in C code that sees no signal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final
from weakref import WeakSet

import structlog

from penstock.reactor.slots import Slot

#: How often the flight recorders are read.
TICK_S: Final = 0.1

_log = structlog.get_logger("penstock.deadlines")


async def watch_deadlines(slots: Callable[[], Iterable[Slot]], kill_after_s: float) -> None:
    """Kill what runs `kill_after_s` seconds beyond its handler's `timeout`; returns only when cancelled."""
    killed: WeakSet[Slot] = WeakSet()
    while True:
        await asyncio.sleep(TICK_S)
        now_s = time.monotonic()
        for slot in list(slots()):
            reading, work = slot.reading()
            timeout_s = work.served.handler.options.timeout_s if work is not None else None
            if (
                work is None
                or timeout_s is None
                or slot in killed
                or now_s - reading.since_s <= timeout_s + kill_after_s
            ):
                continue
            killed.add(slot)
            work.served.tally.deadline_kills += 1
            _log.error(
                "a handler ignored its deadline: its worker is killed, the message is tried again or dead lettered",
                slot=slot.name,
                pid=slot.pid,
                **work.fields,
                ran_s=round(now_s - reading.since_s, 1),
            )
            await slot.kill(f"killed {kill_after_s:g} s after its deadline of {timeout_s:g} s")
