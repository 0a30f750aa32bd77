"""What has to be done to its end is, however often its waiter is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from penstock.reactor.finishing import to_its_end


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_waiter_hears_of_it_when_the_work_has_ended(fails: bool) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()
    ended: list[str] = []

    async def work() -> None:
        begun.set()
        await may_end.wait()
        ended.append("to its end")
        if fails:
            raise ZeroDivisionError

    waiter = asyncio.create_task(to_its_end(work()))
    await begun.wait()
    for _ in range(3):
        waiter.cancel()
        await asyncio.sleep(0)
    assert not waiter.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError) as raised:
        await waiter
    assert ended == ["to its end"]
    assert isinstance(raised.value.__cause__, ZeroDivisionError) is fails


async def test_without_a_cancellation_it_returns_or_raises_as_the_work() -> None:
    async def work(divisor: int) -> int:
        return 4 // divisor

    assert await to_its_end(work(2)) == 2
    with pytest.raises(ZeroDivisionError):
        await to_its_end(work(0))
