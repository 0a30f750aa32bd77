"""Both ends of the channels as they really stand: a service on the loop, stubs in threads, a socket pair between."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from penstock.channels.db.local import LocalDatabase
from penstock.channels.db.preparing import Preparer
from penstock.channels.db.service import DatabaseService
from penstock.channels.service import Caller, Service
from penstock.channels.serving import ChannelServer
from penstock.channels.stub import Channel
from penstock.config.database import DatabaseSection
from penstock.config.limits import LimitsSection

LIMIT_BYTES = 1 << 20
#: As large as it is without a setting.
FRAME_BYTES = LimitsSection().frame_bytes

MakeService: TypeAlias = Callable[..., DatabaseService]


class Workshop:
    """Worker ends that are served on the running loop; all closed at the end of the test."""

    def __init__(self) -> None:
        self.servers: list[ChannelServer] = []
        self._channels: list[Channel] = []

    async def socket_to(
        self, services: dict[str, Service], name: str, *, limit_bytes: int = LIMIT_BYTES
    ) -> socket.socket:
        """A worker's end, as it would be inherited by a process."""
        ours, theirs = socket.socketpair()
        self.servers.append(
            await ChannelServer.start(
                ours,
                services,
                Caller(name),
                limit_bytes=limit_bytes,
                on_ended=_unexpected,
                on_line=_unexpected,
            )
        )
        return theirs

    async def channel_to(
        self, services: dict[str, Service], name: str = "slot 1", *, limit_bytes: int = LIMIT_BYTES
    ) -> Channel:
        """A worker's end with its stub's channel on it."""
        sock = await self.socket_to(services, name, limit_bytes=limit_bytes)
        channel = Channel(sock, limit_bytes=limit_bytes)
        self._channels.append(channel)
        return channel

    async def aclose(self) -> None:
        for channel in self._channels:
            channel.close()
        for server in self.servers:
            server.close()
            await server.eof
            await server.wait_calls_forgotten()


def _unexpected(message: object) -> None:
    raise AssertionError(message)


@pytest.fixture
async def workshop() -> AsyncIterator[Workshop]:
    shop = Workshop()
    yield shop
    await shop.aclose()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
async def make_service(database: Path) -> AsyncIterator[MakeService]:
    """Services on one file, with settings of the test's choice."""
    made: list[DatabaseService] = []

    def make(*, frame_bytes: int = FRAME_BYTES, **settings: Any) -> DatabaseService:
        section = DatabaseSection.model_validate({"url": f"sqlite:///{database}", **settings})
        made.append(DatabaseService(section, frame_bytes=frame_bytes))
        return made[-1]

    yield make
    for service in made:
        await service.aclose()


@pytest.fixture
async def service(make_service: MakeService) -> DatabaseService:
    """A service with one table: `t(id, v UNIQUE)`."""
    service = make_service()
    await service.start()
    await local(service).execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE)")
    return service


def local(service: DatabaseService, name: str = "handler") -> LocalDatabase:
    """An async handler's database, of a caller of its own."""
    return local_of(service, Caller(name))


def local_of(service: DatabaseService, caller: Caller) -> LocalDatabase:
    """The database of that caller."""
    return LocalDatabase(service, caller, Preparer(is_server=service.is_server))


async def until(condition: Callable[[], object], *, pause_s: float = 0.001) -> None:
    """Returns when the condition holds, for what tells nobody when it changes; `pause_s=0` looks every turn."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(pause_s)
