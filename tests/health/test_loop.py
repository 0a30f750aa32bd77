"""A loop that stands still is seen from outside it, and the log shows where it stands."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from penstock.health.loop_watch import BEAT_S, LoopWatch
from tests.cli.program import Folder, until
from tests.health.watched import Watched, watched


async def turned(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        # Nobody else tells what the beats and the thread have found.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(BEAT_S)


async def test_a_loop_that_turns_is_not_late() -> None:
    watch = LoopWatch(5.0)
    watch.start()
    try:
        await turned(lambda: sum(watch.lags.counts) >= 3)
        assert not watch.is_blocked
        assert watch.times_blocked == 0
    finally:
        watch.stop()
        watch.stop()


async def test_a_blocked_loop_is_told_once_with_its_stack_and_told_again_when_it_turns() -> None:
    watch = LoopWatch(0.2)
    with capture_logs() as lines:
        watch.start()
        try:
            time.sleep(1.5)  # noqa: ASYNC251 - what this is about
            assert watch.is_blocked
            await turned(lambda: len(lines) >= 2)
        finally:
            watch.stop()

    assert [line["event"].split(":")[0] for line in lines] == ["the loop is blocked", "the loop turns again"]
    assert "test_a_blocked_loop_is_told_once" in lines[0]["stack"]
    assert lines[1]["blocked_s"] >= 1.0
    assert watch.times_blocked == 1
    assert watch.lags.total >= 1.0


def test_a_handler_that_blocks_the_loop_makes_the_service_not_live_until_it_ends(folder: Folder) -> None:
    with watched(folder) as service:
        service.until_ready()
        assert service.get("/live").status == 200

        folder.penstock("publish", "blocks", '{"s": 5}')
        service.until_not_ready("the loop")
        line = json.loads(service.service.wait_line("the loop is blocked"))
        live, ready = service.get("/live"), service.get("/ready")
        during = service.metrics()
        service.service.wait_line("the loop turns again")
        until(lambda: service.get("/live").status == 200, "a live service")
        service.until_ready()
        after = service.metrics()

    assert "blocks_the_loop" in line["stack"]
    assert (live.status, live.state["state"]) == (503, "blocked")
    assert ready.status == 503
    assert "the loop has not turned for" in ready.state["why"][0]
    assert (during["penstock_live"], during["penstock_ready"]) == (0, 0)
    assert during["penstock_loop_lag_now_seconds"] > 0.5
    assert (after["penstock_live"], after["penstock_loop_blocked_total"]) == (1, 1)
    assert after["penstock_loop_lag_seconds_sum"] > 3


def test_a_call_that_keeps_the_interpreters_lock_gets_no_answer_and_its_stack_is_written(
    folder: Folder,
) -> None:
    with watched(folder) as service:
        service.until_ready()
        folder.penstock("publish", "blocks", '{"s": 4, "lock": true}')
        service.service.wait_line("Timeout (0:00:00.5")
        with pytest.raises(OSError, match="timed out"):
            service.get("/live", timeout_s=0.5)
        line = json.loads(service.service.wait_line("the whole process stood still"))
        stacks = "".join(service.service.log)
        until(lambda: service.get("/live").status == 200, "a live service")

    assert line["stood_s"] > 2
    assert "in blocks_the_loop" in stacks


def test_a_service_that_was_stopped_and_continued_is_live_again(folder: Folder) -> None:
    with watched(folder) as service:
        service.until_ready()
        _stop_for_a_while(service)
        service.service.wait_line("the whole process stood still")
        until(lambda: service.get("/live").status == 200, "a live service")
        service.until_ready()


def _stop_for_a_while(service: Watched) -> None:
    import signal

    service.service.terminate(signal.SIGSTOP)
    with pytest.raises(OSError, match="timed out"):
        service.get("/live", timeout_s=2.0)
    service.service.terminate(signal.SIGCONT)
