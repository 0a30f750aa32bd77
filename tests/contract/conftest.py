"""Both buses, one after the other, behind the same fixtures.

`section`  the settings of an empty bus
`new_bus`  makes a connected bus on it, closed at the end of the test
`bus`      the first of them
`declared` declares a queue on `bus`, with a name of the test's own
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import pytest
from pydantic import SecretStr

from penstock.app.queues import QueueDeclaration
from penstock.buses.address import open_bus
from penstock.buses.contract import Bus
from penstock.config.bus import BusSection

NewBus: TypeAlias = Callable[[], Awaitable[Bus]]


class Declared(Protocol):
    async def __call__(self, name: str = ..., **options: Any) -> QueueDeclaration: ...


@pytest.fixture(params=["embedded", "rabbitmq"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def section(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> BusSection:
    url = f"sqlite:///{tmp_path}/bus.db" if kind == "embedded" else request.getfixturevalue("amqp_url")
    return BusSection(url=SecretStr(url))


@pytest.fixture
def unreachable(kind: str, tmp_path: Path) -> BusSection:
    """The settings of a bus that is not there."""
    # Port 1 is nobody's; a connection to it is refused at once.
    url = f"sqlite:///{tmp_path}/no/bus.db" if kind == "embedded" else "amqp://guest:S3CR3T@127.0.0.1:1/"
    return BusSection(url=SecretStr(url), connect_timeout_s=5)


@pytest.fixture
async def new_bus(section: BusSection) -> AsyncIterator[NewBus]:
    opened: list[Bus] = []

    async def new() -> Bus:
        bus = open_bus(section)
        opened.append(bus)
        await bus.connect()
        return bus

    yield new
    for bus in opened:
        await bus.aclose()


@pytest.fixture
async def bus(new_bus: NewBus) -> Bus:
    return await new_bus()


@pytest.fixture
def declared(bus: Bus, queue_prefix: str) -> Declared:
    async def declare(name: str = "work", **options: Any) -> QueueDeclaration:
        queue = QueueDeclaration(name=queue_prefix + name, **options)
        await bus.declare([queue])
        return queue

    return declare
