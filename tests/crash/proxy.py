"""A TCP proxy between a service and its broker that misbehaves on demand.

```
 service ──up──▶ proxy ──up──▶ broker
         ◀─down─       ◀─down─
```
One connection is a link of two pumps. A link that has swallowed bytes can never carry a frame again: it stays deaf
until one of its ends gives it up, and only links that are made after `heal` work.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Self
from urllib.parse import urlsplit, urlunsplit

CHUNK_BYTES: Final = 64 * 1024
#: On, and for no time at all: closing such a socket sends RST instead of FIN.
LINGER_NOT: Final = struct.pack("ii", 1, 0)


class Way(Enum):
    """The direction of bytes."""

    UP = "up"
    """From the service to the broker."""
    DOWN = "down"


BOTH: Final = (Way.UP, Way.DOWN)


@dataclass(slots=True)
class Pace:
    """How bytes pass in one direction."""

    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    """0 is as fast as it goes."""
    slice_bytes: int = CHUNK_BYTES


@dataclass(slots=True, eq=False)
class Link:
    """One connection through the proxy."""

    service: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    deaf: set[Way] = field(default_factory=set)
    passed: dict[Way, int] = field(default_factory=lambda: dict.fromkeys(Way, 0))

    def reset(self) -> None:
        """RST to both ends."""
        for writer in (self.service, self.broker):
            raw: socket.socket | None = writer.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            writer.transport.abort()


class Proxy:
    """Listens on a port of its own; `async with` opens and closes it."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pace = {way: Pace() for way in Way}
        self._drops: set[Way] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._cut: tuple[Way, int] | None = None
        self._was_cut = asyncio.Event()
        self._hangs_up = False
        self._port = 0
        self.made = 0
        """Links so far."""
        self.hung_up = 0
        """Connections that were accepted and closed at once so far."""
        self.swallowed_bytes = 0
        """Thrown away so far."""

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.refuse()
        self.heal()
        while self._tasks:
            self.reset()
            await asyncio.wait(self._tasks, timeout=0.5)

    @property
    def url(self) -> str:
        """The broker's URL by way of the proxy."""
        login = self._parts.netloc.rpartition("@")[0]
        netloc = f"{login}@127.0.0.1:{self._port}" if login else f"127.0.0.1:{self._port}"
        return urlunsplit(self._parts._replace(netloc=netloc))

    @property
    def links(self) -> int:
        """Connections that stand."""
        return len(self._links)

    @property
    def deaf_links(self) -> int:
        """Those that have swallowed something and that nobody has given up yet."""
        return sum(1 for link in self._links if link.deaf)

    # --- faults

    async def listen(self) -> None:
        """Accept connections, after `refuse` on the same port again."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=CHUNK_BYTES)
            self._port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Nobody can connect; what stands, stands."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def hang_up(self) -> None:
        """Accept, and close at once, as a load balancer does before a dead broker; what stands, stands."""
        self._hangs_up = True

    def reset(self) -> None:
        """RST to both ends of every link."""
        for link in list(self._links):
            link.reset()

    def stall(self) -> None:
        """Nothing is read any more; nothing is lost, it waits in the sockets."""
        self._flows.clear()

    def swallow(self, *ways: Way) -> None:
        """Read and throw away: a black hole for both ways, half-open for one. Nobody is told."""
        self._drops.update(ways)
        for link in self._links:
            link.deaf.update(ways)

    def slow(
        self, *, latency_s: float = 0.0, bytes_per_s: float = 0.0, slice_bytes: int = CHUNK_BYTES
    ) -> None:
        """Both ways from now on."""
        for way in Way:
            self._pace[way] = Pace(latency_s, bytes_per_s, slice_bytes)

    def cut_after(self, way: Way, count: int) -> None:
        """RST to all once so many more bytes have passed in one direction, wherever in a frame that is."""
        self._cut = (way, count)
        self._was_cut.clear()

    async def wait_cut(self) -> None:
        """Returns when `cut_after` has cut."""
        await self._was_cut.wait()

    def heal(self) -> None:
        """All of that ends, except for the links that have swallowed something."""
        self._flows.set()
        self._drops.clear()
        self._cut = None
        self._hangs_up = False
        self.slow()

    # --- inside

    async def _serve(self, service_reader: asyncio.StreamReader, service: asyncio.StreamWriter) -> None:
        if self._hangs_up:
            self.hung_up += 1
            service.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            reader, broker = await asyncio.open_connection(
                self._parts.hostname, self._parts.port, limit=CHUNK_BYTES
            )
        except OSError:
            service.transport.abort()
        else:
            await self._carry(Link(service, broker, set(self._drops)), service_reader, reader)
        finally:
            self._tasks.discard(task)

    async def _carry(
        self, link: Link, from_service: asyncio.StreamReader, broker: asyncio.StreamReader
    ) -> None:
        self._links.add(link)
        self.made += 1
        up = asyncio.create_task(self._pump(link, Way.UP, from_service, link.broker))
        down = asyncio.create_task(self._pump(link, Way.DOWN, broker, link.service))
        try:
            await asyncio.wait((up, down))
        finally:
            for pump in (up, down):
                pump.cancel()
            self._links.discard(link)
            for writer in (link.service, link.broker):
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _pump(
        self, link: Link, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await self._pass_on(link, way, reader, writer)
        except OSError:
            # A reset travels on, where anything does.
            if way not in link.deaf:
                link.reset()

    async def _pass_on(
        self, link: Link, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async for data in self._paced(way, reader):
            if way in link.deaf:
                self.swallowed_bytes += len(data)
                continue
            cut = self._cut
            if cut is not None and cut[0] is way and len(data) >= cut[1]:
                # What was written has to be on its way before the RST overtakes it.
                writer.write(data[: cut[1]])
                await writer.drain()
                self._cut = None
                self.reset()
                self._was_cut.set()
                return
            if cut is not None and cut[0] is way:
                self._cut = (way, cut[1] - len(data))
            link.passed[way] += len(data)
            writer.write(data)
            await writer.drain()
        if way not in link.deaf:
            writer.write_eof()

    async def _paced(self, way: Way, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        while True:
            await self._flows.wait()
            data = await reader.read(self._pace[way].slice_bytes)
            if not data:
                return
            await self._flows.wait()
            pace = self._pace[way]
            wait_s = pace.latency_s + (len(data) / pace.bytes_per_s if pace.bytes_per_s else 0.0)
            if wait_s:
                await asyncio.sleep(wait_s)
            yield data
