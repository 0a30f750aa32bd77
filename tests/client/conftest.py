"""A bus of each kind with one queue on it, and somebody who reads that queue.

`url`     of an empty bus
`queue`   a queue that is declared on it
`reader`  sees what waits in the queue
`client`  a `Client` on it, closed at the end of the test
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import Client
from tests.client.reader import Reader


@pytest.fixture(params=["embedded", "rabbitmq"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "embedded":
        return f"sqlite:///{tmp_path}/bus.db"
    return str(request.getfixturevalue("amqp_url"))


@pytest.fixture
def queue(queue_prefix: str) -> str:
    return f"{queue_prefix}work"


@pytest.fixture
def reader(url: str, queue: str) -> Reader:
    reader = Reader(url, queue)
    # In a thread of its own, because the test may have a loop already.
    reader.run(reader.declare())
    return reader


@pytest.fixture
def client(url: str, reader: Reader) -> Iterator[Client]:
    with Client(url) as client:
        yield client


@pytest.fixture
def embedded_reader(tmp_path: Path, queue: str) -> Reader:
    """For what does not depend on the kind of bus."""
    reader = Reader(f"sqlite:///{tmp_path}/bus.db", queue)
    asyncio.run(reader.declare())
    return reader
