"""A handler that forks has one worker afterwards, as before."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.workers.execute import FORKED_EXIT_CODE
from tests.service.running import running


@pytest.mark.parametrize("raises", [False, True])
async def test_a_forked_child_that_comes_back_from_the_handler_is_ended_and_settles_nothing(
    raises: bool, tmp_path: Path
) -> None:
    async with running(f"sqlite:///{tmp_path}/bus.db", tmp_path, only=("t.forks",)) as service:
        await service.publish("t.forks", {"raises": raises}, {"raises": raises})
        statistics = await service.settled(2)

    assert (statistics.acked, statistics.worker_deaths) == (2, 0)
    codes = [line["code"] for line in service.lines if line["event"] == "the child has ended"]
    assert codes == [FORKED_EXIT_CODE] * 2
    assert sorted(service.effects("forks")) == [("m0", 1), ("m1", 1)]
