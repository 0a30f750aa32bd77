"""`handler.send`: the decorated function knows its queue, and the settings know the bus."""

import asyncio
from collections.abc import Iterator

import pytest

from penstock import App
from penstock.client import default_client
from penstock.errors import ClientError, Unroutable
from tests.client.reader import Reader


@pytest.fixture
def sending(embedded_reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """An application of a program whose settings name the reader's bus."""
    monkeypatch.setenv("PENSTOCK_BUS__URL", embedded_reader.url)
    yield App()
    default_client().close()


def test_a_handler_sends_to_its_own_queue(sending: App, embedded_reader: Reader) -> None:
    @sending.handler(embedded_reader.queue)
    def store(order: dict[str, int]) -> None: ...

    sent = store.send({"id": 1}, id="order-1", headers={"tenant": "north"})
    store.send({"id": 2})

    assert sent == "order-1"
    first, second = embedded_reader.run(embedded_reader.take(2))
    assert (first.body, first.message_id, first.headers["tenant"]) == (b'{"id":1}', "order-1", "north")
    assert second.body == b'{"id":2}'


def test_what_a_client_raises_a_handler_s_send_raises(sending: App) -> None:
    @sending.handler("no.such.queue")
    def store(order: dict[str, int]) -> None: ...

    with pytest.raises(Unroutable, match=r"no\.such\.queue"):
        store.send({})


def test_a_coroutine_is_told_to_use_something_else(sending: App, embedded_reader: Reader) -> None:
    @sending.handler(embedded_reader.queue)
    async def store(order: dict[str, int]) -> None:
        store.send(order)

    with pytest.raises(ClientError, match=r"ctx\.bus\.publish"):
        asyncio.run(store({}))
