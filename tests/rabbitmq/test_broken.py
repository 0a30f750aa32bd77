"""Whose cancellation it is: aiormq's is an error of the call, our own goes on."""

import asyncio

import pytest

from penstock.buses.rabbitmq.broken import BROKEN, broken_is_an_error


async def call(waits_on: asyncio.Future[None]) -> None:
    with broken_is_an_error():
        await waits_on


async def test_a_call_that_aiormq_cancelled_is_broken() -> None:
    waits_on = asyncio.get_running_loop().create_future()
    calling = asyncio.create_task(call(waits_on))
    await asyncio.sleep(0)

    waits_on.cancel()

    with pytest.raises(BROKEN, match="closed"):
        await calling


async def test_our_own_cancellation_goes_on() -> None:
    calling = asyncio.create_task(call(asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)

    calling.cancel()
    await asyncio.wait((calling,))

    assert calling.cancelled()


async def test_our_own_time_limit_is_a_time_limit() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await call(asyncio.get_running_loop().create_future())
