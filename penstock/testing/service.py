"""A whole service in this process, on an embedded bus in a temporary folder."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from msgspec.structs import replace
from pydantic import SecretStr

from penstock.app.application import App, load_app
from penstock.app.messages import Outgoing
from penstock.buses.address import open_bus
from penstock.buses.contract import Delivery
from penstock.client import AsyncClient
from penstock.config import Settings
from penstock.config.bus import BusSection
from penstock.config.database import DatabaseSection
from penstock.config.limits import LimitsSection
from penstock.config.service import ServiceSection
from penstock.config.workers import WorkersSection
from penstock.errors import HandlerError
from penstock.reactor.deadletter import again
from penstock.reactor.service import Reactor, Statistics, Stop
from penstock.testing.modules import importable
from penstock.testing.result import Sent

#: How long `RunningService.wait_for` waits, and a stop for what still runs.
PATIENCE_S: Final = 10.0


class RunningService:
    """What `embedded_service` gives: `client` publishes to it, `wait_for` waits, `dead_letters` looks."""

    def __init__(self, client: AsyncClient, reactor: Reactor, settings: Settings) -> None:
        self.client = client
        self.settings = settings
        self._reactor = reactor

    def statistics(self) -> Statistics:
        """Counts since its start."""
        return self._reactor.statistics()

    async def wait_for(self, *, acked: int = 0, retried: int = 0, dead: int = 0) -> Statistics:
        """Return once so many messages, at the least, have ended so. Raises `AssertionError` after 10 s."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._reactor.wait_until(
                    lambda now: now.acked >= acked and now.retried >= retried and now.dead >= dead
                )
        except TimeoutError:
            asked = f"acked={acked}, retried={retried}, dead={dead}"
            raise AssertionError(
                f"{asked} did not come within {PATIENCE_S:g} s: {self.statistics()}"
            ) from None

    async def dead_letters(self, queue: str) -> list[Sent]:
        """What lies in the dead-letter queue of `queue`; it stays there."""
        bus = open_bus(self.settings.bus)
        await bus.connect()
        try:
            async with bus.hold(f"{queue}.dead", limit=1000) as held:
                return [Sent(_outgoing(delivery)) async for delivery in held]
        finally:
            await bus.aclose()


@asynccontextmanager
async def embedded_service(
    app: App | str, *, database: str | None = None, processes: int = 0
) -> AsyncIterator[RunningService]:
    """A whole service in this process, on an embedded bus of its own; stopped at the end of the block.

    Plain handlers run in a thread; with `processes`, in so many worker processes, and then `app` is the address
    `module:attribute` that they import. Raises what keeps a service from starting.
    """
    if processes and not isinstance(app, str):
        raise HandlerError(
            "embedded_service(app, processes=…): worker processes import it; write 'module:attribute'"
        )
    with tempfile.TemporaryDirectory(prefix="penstock-test-") as folder, importable(app) as address:
        settings = Settings.model_construct(
            bus=BusSection(url=SecretStr(f"sqlite:///{folder}/bus.db")),
            database=DatabaseSection(url=None if database is None else SecretStr(database)),
            workers=WorkersSection(processes=max(1, processes)),
            limits=LimitsSection(),
            service=ServiceSection(drain_seconds=PATIENCE_S),
        )
        reactor = Reactor(load_app(address), address, open_bus(settings.bus), settings, inline=not processes)
        stop = Stop()
        running = asyncio.create_task(reactor.run(stop), name="penstock-embedded-service")
        ready = asyncio.create_task(reactor.ready.wait())
        try:
            await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await running
            async with AsyncClient(settings=settings) as client:
                yield RunningService(client, reactor, settings)
        finally:
            ready.cancel()
            stop.request()
            await asyncio.wait((running,))
        await running


def _outgoing(delivery: Delivery) -> Outgoing:
    message = again(delivery, routing_key=delivery.queue, headers=dict(delivery.headers))
    return replace(message, priority=delivery.priority)
