"""A reactor that runs inside a test, and what a test asks about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import create_engine, text

from penstock.app.application import load_app
from penstock.app.payloads import make_outgoing
from penstock.buses.address import open_bus
from penstock.config import Settings, load_settings
from penstock.reactor.service import Reactor, Statistics, Stop
from tests.service.application import metadata

DEADLINE_S = 30.0
ADDRESS = "tests.service.application:app"


class Service:
    """A running reactor with its bus and database."""

    def __init__(self, reactor: Reactor, stop: Stop, settings: Settings, database: Path) -> None:
        self.reactor = reactor
        self.stop = stop
        self.settings = settings
        self.database = database
        self.running: asyncio.Task[None]
        self.lines: list[dict[str, Any]] = []
        self._more_lines = asyncio.Event()
        self._publisher = open_bus(settings.bus)

    async def publish(self, queue: str, *payloads: Any, ids: list[str] | None = None) -> None:
        """Publish payloads, confirmed; ids are m0, m1, … unless given."""
        if not self._publisher.is_connected:
            await self._publisher.connect()
        names = ids or [f"m{n}" for n in range(len(payloads))]
        messages = [
            make_outgoing(queue, payload, id=name) for name, payload in zip(names, payloads, strict=True)
        ]
        errors = await self._publisher.publish(messages, timeout_s=DEADLINE_S)
        assert errors == [None] * len(messages)

    async def until(
        self, condition: Callable[[Statistics], bool], deadline_s: float = DEADLINE_S
    ) -> Statistics:
        """Wait until the reactor's statistics say so."""
        async with asyncio.timeout(deadline_s):
            waiting = asyncio.ensure_future(self.reactor.wait_until(condition))
            await asyncio.wait((waiting, self.running), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                self.running.result()
            return await waiting

    def log(self, _logger: Any, _level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """structlog's processor: every line of the service, its workers' included."""
        self.lines.append(dict(event))
        self._more_lines.set()
        return event

    async def line(self, event: str, count: int = 1) -> dict[str, Any]:
        """Wait for the count-th line with this event."""
        async with asyncio.timeout(DEADLINE_S):
            while len(found := [line for line in self.lines if line["event"] == event]) < count:
                self._more_lines.clear()
                await self._more_lines.wait()
        return found[count - 1]

    async def settled(self, count: int) -> Statistics:
        """Wait until so many deliveries are acked or dead and nothing is out."""
        return await self.until(lambda s: s.acked + s.dead >= count and s.unsettled == 0)

    def effects(self, handler: str) -> list[tuple[str, int]]:
        """(message id, attempt) of every effect of a handler, in order."""
        return [
            (row.message_id, row.attempt) for row in self.query("WHERE handler = :h ORDER BY n", h=handler)
        ]

    def query(self, where: str, **parameters: Any) -> list[Any]:
        """Rows of the effects table."""
        engine = create_engine(f"sqlite:///{self.database}")
        try:
            with engine.connect() as connection:
                return list(connection.execute(text(f"SELECT * FROM effects {where}"), parameters))
        finally:
            engine.dispose()

    async def dead(self, queue: str) -> list[dict[str, Any]]:
        """Headers of the dead letters of a queue; they stay there."""
        if not self._publisher.is_connected:
            await self._publisher.connect()
        async with self._publisher.hold(f"{queue}.dead", limit=10_000) as letters:
            return [dict(letter.headers) async for letter in letters]

    async def aclose(self) -> None:
        """Stop it and wait for the end."""
        self.stop.request()
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self.running
        finally:
            await self._publisher.aclose()


def settings_for(bus_url: str, folder: Path, **sections: dict[str, Any]) -> Settings:
    """Settings of a service on a bus with a database in a folder."""
    flags: dict[str, dict[str, Any]] = {
        "bus": {"url": bus_url},
        "database": {"url": f"sqlite:///{folder / 'app.db'}", "synchronous": "NORMAL"},
        "workers": {"processes": 2, "kill_after_s": 0.3},
        "service": {"drain_seconds": 10},
    }
    for name, values in sections.items():
        flags.setdefault(name, {}).update(values)
    return load_settings(flags, directory=folder)


def make_database(folder: Path) -> Path:
    """The effects table in a new file."""
    path = folder / "app.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("PRAGMA journal_mode=WAL"))
        metadata.create_all(connection)
    engine.dispose()
    return path


@asynccontextmanager
async def running(
    bus_url: str,
    folder: Path,
    *,
    only: tuple[str, ...] = (),
    inline: bool = False,
    **sections: dict[str, Any],
) -> AsyncIterator[Service]:
    """A service that consumes when the block begins and has drained when it ends."""
    settings = settings_for(bus_url, folder, **sections)
    database = make_database(folder) if not (folder / "app.db").exists() else folder / "app.db"
    reactor = Reactor(load_app(ADDRESS), ADDRESS, open_bus(settings.bus), settings, only=only, inline=inline)
    service = Service(reactor, Stop(), settings, database)
    structlog.configure(processors=[service.log, structlog.dev.ConsoleRenderer(colors=False)])
    service.running = asyncio.create_task(reactor.run(service.stop))
    ready = asyncio.create_task(reactor.ready.wait())
    await asyncio.wait((ready, service.running), timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if service.running.done():
        service.running.result()
    try:
        yield service
    finally:
        if not service.running.done():
            await service.aclose()
