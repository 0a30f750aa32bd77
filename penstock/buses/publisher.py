"""A bus for publishing alone: connected at the first message, by one attempt that all who wait share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TypeAlias
from urllib.parse import urlsplit

from penstock.app.messages import Outgoing
from penstock.buses.address import open_bus
from penstock.buses.contract import Bus
from penstock.config.bus import BusSection
from penstock.errors import BusUnavailable, PublishError

#: One a message, in order: None when it is confirmed.
Answers: TypeAlias = list[PublishError | None]


class Publisher:
    """Belongs to the loop of its first `publish`; connects again when the first attempt failed."""

    def __init__(self, section: BusSection) -> None:
        self._section = section
        self._bus: Bus | None = None
        self._connecting: asyncio.Task[Bus] | None = None

    async def publish(self, messages: Sequence[Outgoing], timeout_s: float) -> Answers:
        """Publish within `timeout_s`, connecting included.

        Raises `BusUnavailable` when there was no connection, `ConfigurationError` when the URL can never give one;
        nothing was published then.
        """
        if not messages:
            return []
        deadline_s = time.monotonic() + timeout_s
        bus = self._bus or await self._connected(timeout_s)
        return await bus.publish(messages, timeout_s=max(0.001, deadline_s - time.monotonic()))

    async def aclose(self) -> None:
        """Close the connection; harmless when repeated, or when there never was one."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
        bus, self._bus = self._bus, None
        if bus is not None:
            await bus.aclose()

    async def _connected(self, timeout_s: float) -> Bus:
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(), name="penstock-publisher-connect")
            self._connecting.add_done_callback(self._connecting_ended)
        connecting = self._connecting
        await asyncio.wait((connecting,), timeout=timeout_s)
        if not connecting.done():
            raise self._unavailable(f"it took longer than {timeout_s:g} s")
        if connecting.cancelled():
            raise self._unavailable("the client was closed first")
        try:
            return connecting.result()
        except BusUnavailable as error:
            # Each caller gets an exception of its own: a raised one collects its raiser's traceback.
            raise BusUnavailable(f"{error}; nothing was published") from error

    async def _connect(self) -> Bus:
        bus = open_bus(self._section)
        try:
            await bus.connect()
        except BaseException:
            await bus.aclose()
            raise
        self._bus = bus
        return bus

    def _connecting_ended(self, connecting: asyncio.Task[Bus]) -> None:
        self._connecting = None
        if not connecting.cancelled():
            # Looked at here, because everybody who waited for it may have left.
            connecting.exception()

    def _unavailable(self, why: str) -> BusUnavailable:
        return BusUnavailable(f"no connection to {place_of(self._section)}: {why}; nothing was published")


def place_of(section: BusSection) -> str:
    """The bus's address without login and options."""
    parts = urlsplit(section.url.get_secret_value())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
