"""An embedded bus on a file of the test's own.

`path`     the file, which does not exist yet
`new_bus`  makes a connected bus on it, closed at the end of the test
`bus`      the first of them, with the queue `work` declared
"""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from penstock.app.messages import Outgoing
from penstock.app.queues import QueueDeclaration
from penstock.buses.embedded import EmbeddedBus
from penstock.buses.embedded.file import open_file
from tests.embedded.section import section_of

WORK = QueueDeclaration(name="work")


class NewBus(Protocol):
    async def __call__(self, *, lease_s: float = ..., free_floor_bytes: int = ...) -> EmbeddedBus: ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """A plain connection to the file, made if need be."""
    opened = open_file(path)
    yield opened
    opened.close()


@pytest.fixture
async def new_bus(path: Path) -> AsyncIterator[NewBus]:
    opened: list[EmbeddedBus] = []

    async def new(*, lease_s: float = 60.0, free_floor_bytes: int = 0) -> EmbeddedBus:
        bus = EmbeddedBus(section_of(path, lease_s=lease_s), free_floor_bytes=free_floor_bytes)
        opened.append(bus)
        await bus.connect()
        await bus.declare([WORK])
        return bus

    yield new
    for bus in opened:
        await bus.aclose()


@pytest.fixture
async def bus(new_bus: NewBus) -> EmbeddedBus:
    return await new_bus()


async def publish(bus: EmbeddedBus, *ids: str, delay_s: float = 0.0) -> None:
    messages = [Outgoing("work", b"{}", message_id=id_, delay_s=delay_s) for id_ in ids]
    assert await bus.publish(messages, timeout_s=10) == [None] * len(ids)
