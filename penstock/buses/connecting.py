"""A connected bus for a program that talks to one which exists and then leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from penstock.buses.address import open_bus
from penstock.buses.contract import Bus
from penstock.config.bus import BusSection
from penstock.errors import BusUnavailable


@asynccontextmanager
async def connected(section: BusSection) -> AsyncIterator[Bus]:
    """A connected bus while the block runs. Raises `BusUnavailable`, also when the embedded bus has no file yet."""
    bus = open_bus(section)
    _check_file(section)
    try:
        await bus.connect()
        yield bus
    finally:
        await bus.aclose()


def _check_file(section: BusSection) -> None:
    url = section.url.get_secret_value()
    if not url.startswith("sqlite:"):
        return
    from penstock.buses.embedded.file import path_of

    path = path_of(url)
    if not path.exists():
        raise BusUnavailable(
            f"there is no embedded bus at {path}: no service has run on it yet. Go to the folder where the service "
            f"runs, or name its bus: --bus sqlite:///FILE or amqp://…"
        )
