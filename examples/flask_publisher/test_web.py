"""The web application with Flask's test client, publishing to a bus in a file."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from web import create_app

from penstock import Client
from penstock.app.queues import QueueDeclaration
from penstock.buses.address import open_bus
from penstock.config import load_settings


@pytest.fixture
def bus_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'bus.db'}"


@pytest.fixture
def web(bus_url: str) -> Iterator[FlaskClient]:
    with Client(bus_url, timeout=5) as client:
        yield create_app(client).test_client()


def on_the_bus(bus_url: str, *, declare: bool = False) -> list[tuple[str | None, bytes]]:
    """Ids and bodies of the orders that wait; the service itself would declare the queue."""

    async def look() -> list[tuple[str | None, bytes]]:
        bus = open_bus(load_settings({"bus": {"url": bus_url}}).bus)
        await bus.connect()
        try:
            if declare:
                await bus.declare([QueueDeclaration(name="orders.created")])
            async with bus.hold("orders.created", limit=10) as deliveries:
                return [(delivery.message_id, delivery.body) async for delivery in deliveries]
        finally:
            await bus.aclose()

    return asyncio.run(look())


def test_an_order_is_published_and_confirmed(web: FlaskClient, bus_url: str) -> None:
    on_the_bus(bus_url, declare=True)

    answer = web.post("/orders", data='{"id": 7, "total": "9.99", "customer": "Ada"}')

    assert (answer.status_code, answer.json) == (202, {"message": "order-7"})
    assert on_the_bus(bus_url) == [("order-7", b'{"id":7,"total":"9.99","customer":"Ada"}')]


def test_what_is_no_order_is_refused_and_not_published(web: FlaskClient, bus_url: str) -> None:
    on_the_bus(bus_url, declare=True)

    answer = web.post("/orders", data='{"id": "seven"}')

    assert answer.status_code == 400
    assert on_the_bus(bus_url) == []


def test_an_order_that_nobody_would_ever_read_is_not_taken(web: FlaskClient) -> None:
    answer = web.post("/orders", data='{"id": 7, "total": "9.99"}')

    assert answer.status_code == 503
