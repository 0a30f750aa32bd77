"""The broker dies, restarts, freezes, raises alarms and shuts people out."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.broker import Broker
from tests.crash.scene import BACK, LOST, Scene, even, play, tasks


async def restarted(scene: Scene) -> dict[str, float]:
    """Start the broker; seconds to the first new effect of each queue, once its leader confirms again."""
    await scene.start_broker()
    queues = ("c.work", "c.classic", "c.loop")
    seconds = [await scene.recovered(queue) for queue in queues]
    return dict(zip(queues, seconds, strict=True))


async def test_a_broker_that_is_killed_loses_nothing_and_is_back_soon(
    own_broker: Broker, tmp_path: Path
) -> None:
    async with play(own_broker, tmp_path) as scene:
        await asyncio.to_thread(own_broker.sync_declarations)
        before = [
            *await scene.publish("c.work", *tasks(600, publishes=True)),
            *await scene.publish("c.classic", *tasks(300, publishes=True)),
            *await scene.publish("c.loop", *tasks(100, publishes=True)),
            *await scene.publish("c.work", {"s": 3.0}, {"fails": 1}),
        ]

        with scene.ledger.disturbed("broker killed", severs=True):
            await scene.kill_broker()
            # As long as it is away, on purpose: handlers go on.
            await scene.service.wait_line(LOST, count=2)
        recovery_s = await restarted(scene)
        await scene.service.wait_line(BACK, count=2)
        await scene.done(before)
        balance = await scene.close()

    print(f"recovery_s={recovery_s}")  # noqa: T201
    even(balance, confirmed=1005, dead=0)
    assert max(recovery_s.values()) < 5.0
