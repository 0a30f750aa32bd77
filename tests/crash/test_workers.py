"""Workers that die, hang and misbehave."""

from __future__ import annotations

import time
from pathlib import Path

from tests.broker import Broker
from tests.crash.scene import READY, even, play, tasks


async def test_a_killed_worker_costs_one_attempt_of_one_message(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        await scene.service.wait_line(READY, count=2)
        (slow,) = await scene.publish("c.work", {"s": 1.0})
        await scene.begun(slow)
        victim = int(scene.ledger.runs.read_text().split()[3])
        bystanders = await scene.publish("c.work", *tasks(200, publishes=True))

        killed_s = time.monotonic()
        assert scene.kill_worker(victim)
        await scene.service.wait_line(READY, count=3)
        back_s = time.monotonic() - killed_s
        await scene.done([slow, *bystanders])
        balance = await scene.close()

    print(f"recovery_s={back_s:.3f}")  # noqa: T201 - the figure that the suite is asked for
    assert back_s < 0.5
    attempts = {effect.message_id: effect.attempt for effect in scene.ledger.effects()}
    assert attempts.pop(slow) == 2
    assert set(attempts.values()) == {1}
    even(balance, duplicates=0, dead=0, effects=201)
