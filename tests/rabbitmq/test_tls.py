"""`amqps` works against a real certificate, and against no other than the one that it should be."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr
from yarl import URL

from penstock.app.messages import Outgoing
from penstock.app.queues import QueueDeclaration
from penstock.buses.contract import Subscription
from penstock.buses.rabbitmq import RabbitBus
from penstock.config.bus import BusSection
from penstock.errors import BusUnavailable
from tests.contract.received import Received

AUTHORITY = trustme.CA()


@asynccontextmanager
async def tls_before(url: URL, host: str) -> AsyncIterator[URL]:
    """A port that speaks TLS, with a certificate for `host`, and hands everything on to the broker."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert(host).configure_cert(context)
    connections: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broker_reader, broker_writer = await asyncio.open_connection(url.host, url.port)
        async with asyncio.TaskGroup() as both:
            both.create_task(carry(reader, broker_writer))
            both.create_task(carry(broker_reader, writer))

    def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(accept(reader, writer))
        connections.add(connection)

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0, ssl=context)
    async with server:
        yield url.with_scheme("amqps").with_host("localhost").with_port(server.sockets[0].getsockname()[1])
        if connections:
            await asyncio.wait(connections)
        for connection in connections:
            connection.result()


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    path = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return path


async def test_messages_travel_over_tls_both_ways(amqp_url: str, queue_prefix: str, authority: Path) -> None:
    queue = QueueDeclaration(name=f"{queue_prefix}work")
    body = b"x" * 300_000  # several frames, and several records of TLS
    async with tls_before(URL(amqp_url), "localhost") as url:
        bus = RabbitBus(BusSection(url=SecretStr(str(url.update_query(cafile=str(authority))))))
        await bus.connect()
        await bus.declare([queue])
        received = Received(acks=True)
        await bus.consume([Subscription(queue, 10)], received)

        assert await bus.publish([Outgoing(queue.name, body, message_id="m")], timeout_s=10) == [None]

        (delivery,) = await received.wait_for(1)
        await bus.flush()
        await bus.aclose()
    assert delivery.body == body


@pytest.mark.parametrize(
    ("host", "knows_authority", "words"),
    [
        ("localhost", False, "CERTIFICATE_VERIFY_FAILED"),
        ("broker.example", True, "CERTIFICATE_VERIFY_FAILED"),
    ],
    ids=["an unknown authority", "another's certificate"],
)
async def test_a_certificate_that_proves_nothing_is_refused(
    amqp_url: str, authority: Path, host: str, words: str, *, knows_authority: bool
) -> None:
    async with tls_before(URL(amqp_url), host) as url:
        known = url.update_query(cafile=str(authority)) if knows_authority else url
        bus = RabbitBus(BusSection(url=SecretStr(str(known))))

        with pytest.raises(BusUnavailable, match=words) as refused:
            await bus.connect()

    assert str(refused.value).startswith("TLS with the broker at localhost:")
    assert "guest:guest" not in str(refused.value)
