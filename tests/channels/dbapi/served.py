"""The database channel with its loop in a thread, so that a test may use it as a handler does: blocking."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from penstock.channels.db.service import DatabaseService
from penstock.channels.db.stub import DatabaseStub
from penstock.channels.dbapi import sqlite
from penstock.channels.dbapi.link import attach, detach
from penstock.channels.service import Caller
from penstock.channels.serving import ChannelServer
from penstock.channels.stub import Channel
from penstock.config.database import DatabaseSection
from penstock.config.limits import LimitsSection

#: A result of so many rows of about 100 bytes.
ROWS: Final = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i, printf('%099d', i) FROM n"


class Served:
    """One service on a loop in a thread, and as many workers' ends as a test wants."""

    def __init__(
        self, database: Path | str, *, frame_bytes: int = LimitsSection().frame_bytes, **settings: Any
    ) -> None:
        self._frame_bytes = frame_bytes
        url = database if isinstance(database, str) else f"sqlite:///{database}"
        section = DatabaseSection.model_validate({"url": url, **settings})
        self.service = DatabaseService(section, frame_bytes=frame_bytes)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="loop")
        self._thread.start()
        self.servers: list[ChannelServer] = []
        self._channels: list[Channel] = []

    def worker(self, name: str = "slot 1") -> DatabaseStub:
        """A worker's end."""

        async def serve() -> socket.socket:
            ours, theirs = socket.socketpair()
            options = {"limit_bytes": self._frame_bytes, "on_ended": print, "on_line": print}
            services = {"db": self.service}
            self.servers.append(
                await ChannelServer.start(ours, services, Caller(name, is_worker=True), **options)
            )
            return theirs

        sock = asyncio.run_coroutine_threadsafe(serve(), self.loop).result()
        channel = Channel(sock, limit_bytes=self._frame_bytes)
        self._channels.append(channel)
        return DatabaseStub(channel, is_server=self.service.is_server)

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

        async def end() -> None:
            for server in self.servers:
                server.close()
                await server.eof
                await server.wait_calls_forgotten()
            await self.service.aclose()

        asyncio.run_coroutine_threadsafe(end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@contextmanager
def served(database: Path | str, **settings: Any) -> Iterator[Served]:
    """A service for a file or a URL, with this process as its first worker."""
    made = Served(database, **settings)
    stub = made.worker()
    attach(stub.link)
    try:
        yield made
    finally:
        detach(stub.link)
        made.close()


def count() -> int:
    """The rows of `t`, counted over the channel."""
    with closing(sqlite.connect()) as connection:
        (number,) = connection.execute("SELECT count(*) FROM t").fetchone()
        return int(number)
