"""Queues without a running service, for tests of commands that only need those."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.app.messages import Outgoing
from penstock.app.queues import QueueDeclaration
from penstock.buses.address import open_bus
from penstock.buses.contract import Delivery
from penstock.config import load_settings


def declare(url: str, *queues: str | QueueDeclaration) -> None:
    """Declare queues as a handler's start would."""

    async def work() -> None:
        bus = open_bus(load_settings({"bus": {"url": url}}).bus)
        await bus.connect()
        try:
            await bus.declare([QueueDeclaration(name=one) if isinstance(one, str) else one for one in queues])
        finally:
            await bus.aclose()

    asyncio.run(work())


def put(url: str, messages: Sequence[Outgoing]) -> None:
    """Publish messages, confirmed."""

    async def work() -> None:
        bus = open_bus(load_settings({"bus": {"url": url}}).bus)
        await bus.connect()
        try:
            assert await bus.publish(messages, timeout_s=30) == [None] * len(messages)
        finally:
            await bus.aclose()

    asyncio.run(work())


def waiting(url: str, queue: str) -> list[Delivery]:
    """What is in a queue; it stays there."""

    async def work() -> list[Delivery]:
        bus = open_bus(load_settings({"bus": {"url": url}}).bus)
        await bus.connect()
        try:
            async with bus.hold(queue, limit=100_000) as deliveries:
                return [delivery async for delivery in deliveries]
        finally:
            await bus.aclose()

    return asyncio.run(work())


def depths(url: str, *queues: str) -> list[int | None]:
    """How many messages wait; None for a queue that does not exist."""

    async def work() -> list[int | None]:
        bus = open_bus(load_settings({"bus": {"url": url}}).bus)
        await bus.connect()
        try:
            return [await bus.depth(queue) for queue in queues]
        finally:
            await bus.aclose()

    return asyncio.run(work())
