"""Where the endpoint's answers come from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from penstock.health.database import DatabaseWatch
from penstock.health.loop_watch import LoopWatch
from penstock.health.readiness import Readiness
from penstock.reactor.figures import Figures


@dataclass(frozen=True, slots=True)
class Sources:
    """`figures` and `readiness` are asked on `loop`, the others from any thread."""

    loop: asyncio.AbstractEventLoop
    watch: LoopWatch
    readiness: Readiness
    database: DatabaseWatch | None
    figures: Callable[[], Figures]
    application: str
    count_dropped: Callable[[], int]
    """Lines of the log that nobody took."""
