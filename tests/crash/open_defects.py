"""Reproductions of defects that are not repaired yet: run by name, not with the others.

`pytest tests/crash/open_defects.py`; one that passes belongs among the others.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.broker import Broker
from tests.crash.proxy import BOTH
from tests.crash.scene import LOST, even, play, tasks


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


async def test_a_stop_request_is_heard_while_the_broker_is_silent(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    """A drain of 2 s took 35 s at the default heartbeat: the first step, `bus.stop_consuming`, waits for the broker's
    cancel-ok until three heartbeats are missed, and nothing bounds it. Service managers kill long before."""
    async with play(
        broker, tmp_path, "c.work", url=amqp_url, SERVICE__DRAIN_SECONDS="2", BUS__HEARTBEAT_S="10"
    ) as scene:
        ids = await scene.publish("c.work", *tasks(50))
        await scene.done(ids)
        scene.proxy.swallow(*BOTH)
        began_s = time.monotonic()

        await scene.stop_service()

        took_s = time.monotonic() - began_s
        scene.proxy.heal()
        balance = await scene.close()

    assert took_s < 7.0
    even(balance)
