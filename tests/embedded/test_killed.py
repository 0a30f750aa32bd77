"""SIGKILL before every single change to the files, and at 200 random moments, of buses that publish, claim and settle."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from penstock.buses.contract import Subscription
from penstock.buses.embedded import EmbeddedBus
from tests.contract.received import Received, eventually
from tests.embedded.conftest import WORK
from tests.embedded.killed import BATCH, left
from tests.embedded.programs import logged
from tests.embedded.section import section_of
from tests.machine import FaultyLibc

TIMES = 200
SEED = 20_251_121
#: Opening, publishing, claiming, settling and closing change files so often, at least.
POINTS = 40


async def test_a_kill_before_any_change_to_the_files_loses_nothing_and_repeats_nothing_unmarked(
    tmp_path: Path,
) -> None:
    libc = FaultyLibc(tmp_path)

    points = _run("points", tmp_path, environment=libc.environment)

    assert points > POINTS
    await _assert_settled(tmp_path)


@pytest.mark.usefixtures("bus")  # somebody else who has the file open, so that nobody's end closes it
async def test_200_kills_at_random_moments_lose_nothing_and_repeat_nothing_unmarked(tmp_path: Path) -> None:
    assert _run("times", tmp_path, TIMES, SEED) == TIMES

    await _assert_settled(tmp_path)


def _run(what: str, folder: Path, *rest: int, environment: dict[str, str] | None = None) -> int:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.embedded.killed", what, str(folder), *map(str, rest)],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return int(ended.stdout)


async def _assert_settled(folder: Path) -> None:
    """Take what is left, and compare what was confirmed with what was done."""
    done: dict[str, list[int]] = {}
    for line in logged(folder / "effects"):
        id_, redelivered = line.split()
        done.setdefault(id_, []).append(int(redelivered))
    bus = EmbeddedBus(section_of(folder / "bus.db"))
    await bus.connect()
    try:
        await bus.declare([WORK])
        received = Received(acks=True)
        await bus.consume([Subscription(WORK, 256)], received)

        async def drained() -> bool:
            # Not its depth: what the last one had claimed counts, too.
            return left(folder / "bus.db") == 0

        await eventually(drained)
    finally:
        await bus.aclose()
    for delivery in received.deliveries:
        done.setdefault(str(delivery.message_id), []).append(int(delivery.redelivered))
    confirmed = set(logged(folder / "confirmed"))
    assert confirmed
    assert confirmed <= set(done), "confirmed, and lost"
    unmarked = {id_: marks for id_, marks in done.items() if marks.count(0) > 1}
    assert not unmarked, "handed out again as if for the first time"
    # What was not confirmed is there whole or not at all.
    sizes = Counter(id_.rpartition("-")[0] for id_ in done)
    assert set(sizes.values()) == {BATCH}
