"""An ordinary fault is told in words: no traceback in the log of a service whose broker or network goes away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.crash.proxy import Way
from tests.crash.scene import BACK, LOST, QUEUES, Scene, play, tasks

FORMATS = pytest.mark.parametrize("log_format", ["json", "console"])


def log_of(scene: Scene) -> str:
    """Everything that the services wrote."""
    return "\n".join(str(line) for service in scene.ended for line in service.lines)


async def work(scene: Scene) -> None:
    """Messages of each kind, under way when the next fault comes."""
    await scene.publish("c.work", *tasks(50, publishes=True), *tasks(5, fails=1))
    await scene.publish("c.loop", *tasks(10, publishes=True))


async def stop_amid_a_cut(scene: Scene) -> None:
    """SIGTERM to a service that waits for its broker, whose connection breaks then."""
    scene.proxy.stall()
    stopping = asyncio.create_task(scene.stop_service())
    await asyncio.sleep(0.3)
    scene.proxy.reset()
    scene.proxy.heal()
    await stopping


@FORMATS
async def test_a_cut_connection_and_a_stop_leave_no_traceback(
    broker: Broker, amqp_url: str, tmp_path: Path, log_format: str
) -> None:
    async with play(broker, tmp_path, *QUEUES, url=amqp_url, log_format=log_format) as scene:
        for number, way in enumerate(Way, 1):
            scene.proxy.cut_after(way, 2000)
            await work(scene)
            await scene.proxy.wait_cut()
            await scene.service.wait_line(BACK, count=2 * number)
        scene.proxy.reset()
        await scene.service.wait_line(BACK, count=6)
        await work(scene)
        await scene.stop_service()
        await scene.start_service(*QUEUES)
        await work(scene)
        await stop_amid_a_cut(scene)
        log = log_of(scene)

    assert "Traceback" not in log
    assert "aiormq" not in log
    assert log.count(LOST) >= 6


@pytest.mark.long
@FORMATS
async def test_a_broker_that_restarts_dies_or_closes_connections_leaves_no_traceback(
    own_broker: Broker, tmp_path: Path, log_format: str
) -> None:
    async with play(own_broker, tmp_path, *QUEUES, log_format=log_format) as scene:
        await asyncio.to_thread(own_broker.sync_declarations)
        await work(scene)
        await asyncio.to_thread(own_broker.restart)
        await scene.service.wait_line(BACK, count=2)
        await work(scene)
        # The proxy goes on listening, and hangs up on whom it has accepted.
        await asyncio.to_thread(own_broker.kill)
        await scene.service.wait_line(LOST, count=4)
        await asyncio.to_thread(own_broker.start)
        await scene.service.wait_line(BACK, count=4)
        await work(scene)
        await asyncio.to_thread(own_broker.freeze)
        await scene.service.wait_line(LOST, count=6)
        await asyncio.to_thread(own_broker.thaw)
        await scene.service.wait_line(BACK, count=6)
        await scene.ctl("close_all_connections", "maintenance")
        await scene.service.wait_line(BACK, count=8)
        await scene.stop_service()
        log = log_of(scene)

    assert "Traceback" not in log
    # Who closed it, and in whose words, is told all the same.
    assert "CONNECTION_FORCED - maintenance" in log
