"""Reproductions of defects that are not repaired yet: run by name, not with the others.

`pytest tests/crash/open_defects.py`; one that passes belongs among the others.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.broker import Broker
from tests.crash.scene import LOST, even, play


async def test_a_service_comes_back_through_a_front_that_accepts_and_hangs_up(
    own_broker: Broker, tmp_path: Path
) -> None:
    """A load balancer before a dead broker. aiormq's connect raises StopAsyncIteration at an end of file in its
    handshake; that is none of BROKEN, so the supervisor's task ends in silence and the connection never comes back."""
    async with play(own_broker, tmp_path, "c.work") as scene:
        await asyncio.to_thread(own_broker.sync_declarations)
        await asyncio.to_thread(own_broker.kill)
        await scene.service.wait_line(LOST, count=2)
        # The proxy goes on listening, and closes what it accepts.
        await asyncio.to_thread(own_broker.start)

        await scene.recovered(deadline_s=20)
        even(await scene.close())
