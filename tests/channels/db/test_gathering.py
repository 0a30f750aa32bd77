"""Who is waited for before a group is written, and for how long it is tried."""

from __future__ import annotations

import asyncio
import time

import pytest

from penstock.channels.db.sqlite import gathering
from penstock.channels.db.sqlite.gathering import MOST_TRUST, TRIED_EACH, Gathering
from penstock.channels.service import Caller

ANN, BOB = Caller("slot 0"), Caller("slot 1")
LONG_S = 60.0


@pytest.fixture(autouse=True)
def waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "GATHER_S", LONG_S)


async def waits(group: Gathering) -> bool:
    """True when it does not go on at once; ended here."""
    waiting = asyncio.create_task(group.wait())
    for _ in range(3):
        await asyncio.sleep(0)
    if waiting.done():
        return False
    group.came(ANN)
    group.came(BOB)
    await waiting
    return True


async def fail_to_pay(group: Gathering, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A wait, if there is one, that nobody came to."""
    group.answered([ANN, BOB], waiting=0, took_s=0)
    began_s = time.monotonic()
    with monkeypatch.context() as soon:
        soon.setattr(gathering, "GATHER_S", 0.01)
        await group.wait()
    return time.monotonic() - began_s >= 0.01


async def test_the_next_group_waits_for_everybody_whom_the_last_one_answered() -> None:
    group = Gathering()
    group.answered([ANN, BOB], waiting=0, took_s=LONG_S)
    group.came(BOB)
    waiting = asyncio.create_task(group.wait())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    group.came(Caller("somebody else"))
    group.came(BOB)
    await asyncio.sleep(0)
    assert not waiting.done()
    group.came(ANN)
    async with asyncio.timeout(5):
        await waiting


async def test_nobody_waits_for_one_who_is_gone() -> None:
    group = Gathering()
    group.answered([ANN, BOB, BOB], waiting=0, took_s=LONG_S)
    group.came(ANN)
    waiting = asyncio.create_task(group.wait())
    await asyncio.sleep(0)
    group.forget(BOB)
    async with asyncio.timeout(5):
        await waiting


async def test_strangers_are_not_kept() -> None:
    group = Gathering()
    for number in range(100):
        stranger = Caller(f"handler {number}")
        group.came(stranger)
        group.forget(stranger)
    assert not group._missing


async def test_who_comes_late_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Gathering()
    group.answered([ANN, BOB], waiting=0, took_s=LONG_S)
    monkeypatch.setattr(gathering, "GATHER_S", 0)
    async with asyncio.timeout(5):
        await group.wait()
    assert "trust 0" in repr(group), "it was no try"


async def test_nobody_waits_for_those_who_are_there_already() -> None:
    group = Gathering()
    group.answered([ANN, BOB], waiting=0, took_s=LONG_S)
    group.came(ANN)
    group.came(BOB)
    assert not await waits(group)


async def test_two_tasks_of_one_caller_are_two() -> None:
    group = Gathering()
    group.answered([ANN, ANN], waiting=0, took_s=LONG_S)
    group.came(ANN)
    assert await waits(group)


async def test_who_writes_alone_waits_for_nobody_and_who_came_meanwhile_does() -> None:
    group = Gathering()
    assert not await waits(group)
    group.answered([ANN], waiting=0, took_s=LONG_S)
    assert not await waits(group)
    group.answered([ANN], waiting=1, took_s=LONG_S)
    assert await waits(group)


async def test_what_does_not_pay_is_tried_again_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Gathering()
    assert await fail_to_pay(group, monkeypatch)
    for _ in range(2):
        for _ in range(TRIED_EACH - 1):
            assert not await fail_to_pay(group, monkeypatch)
        assert await fail_to_pay(group, monkeypatch)
    for _ in range(TRIED_EACH - 1):
        group.answered([ANN, BOB], waiting=0, took_s=LONG_S)
        assert not await waits(group)
    # One that pays is enough to go on with it.
    for _ in range(3):
        group.answered([ANN, BOB], waiting=0, took_s=LONG_S)
        assert await waits(group)


async def test_what_has_paid_for_long_may_fail_to_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Gathering()
    for _ in range(3 * MOST_TRUST):
        group.answered([ANN, BOB], waiting=0, took_s=LONG_S)
        assert await waits(group)
    assert [await fail_to_pay(group, monkeypatch) for _ in range(MOST_TRUST + 2)] == [
        *[True] * (MOST_TRUST + 1),
        False,
    ]
