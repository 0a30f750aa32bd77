"""`Client.publish`: confirmed, or an error that says what has become of the message."""

import asyncio
import gc
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import BaseModel

from penstock import Client
from penstock import client as client_module
from penstock.buses import publisher_thread
from penstock.config import load_settings
from penstock.errors import (
    BusUnavailable,
    ClientError,
    ConfigurationError,
    PayloadError,
    Unroutable,
)
from tests.client.reader import Reader


class Order(BaseModel):
    id: int
    total: Decimal


def test_a_model_arrives_as_json_with_its_id_and_headers(client: Client, reader: Reader) -> None:
    sent = client.publish(
        reader.queue,
        Order(id=1, total=Decimal("9.99")),
        id="order-1",
        headers={"tenant": "north"},
        correlation_id="c-1",
        reply_to="answers",
    )

    assert sent == "order-1"
    (delivery,) = reader.run(reader.take(1))
    assert json.loads(delivery.body) == {"id": 1, "total": "9.99"}
    assert delivery.content_type == "application/json"
    assert (delivery.message_id, delivery.headers["tenant"]) == ("order-1", "north")
    assert (delivery.correlation_id, delivery.reply_to) == ("c-1", "answers")


def test_each_message_without_an_id_gets_its_own(client: Client, reader: Reader) -> None:
    ids = [client.publish(reader.queue, {"number": number}) for number in range(3)]

    assert len(set(ids)) == 3
    assert reader.read_ids(3) == ids


def test_an_unroutable_message_is_an_error_that_names_the_queue(client: Client) -> None:
    with pytest.raises(Unroutable, match=r"no\.such\.queue"):
        client.publish("no.such.queue", {})


def test_a_message_that_nobody_can_write_is_not_published(client: Client, reader: Reader) -> None:
    with pytest.raises(PayloadError, match="nothing was published"):
        client.publish(reader.queue, object())

    assert reader.read(0) == []


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_is_a_positive_number(embedded_reader: Reader, timeout: float) -> None:
    with Client(embedded_reader.url) as client, pytest.raises(PayloadError, match="positive"):
        client.publish(embedded_reader.queue, {}, timeout=timeout)


def test_eight_threads_share_one_client_and_its_connection(client: Client, reader: Reader) -> None:
    def publish(thread: int) -> list[str]:
        return [client.publish(reader.queue, {"thread": thread, "number": number}) for number in range(25)]

    with ThreadPoolExecutor(8) as threads:
        ids = [one for published in threads.map(publish, range(8)) for one in published]

    assert sum(thread.name == "penstock-client" for thread in threading.enumerate()) == 1
    assert sorted(str(one) for one in reader.read_ids(200)) == sorted(ids)


def test_an_event_loops_thread_is_refused_before_it_stands_still(embedded_reader: Reader) -> None:
    async def publish(client: Client) -> None:
        client.publish(embedded_reader.queue, {})

    with Client(embedded_reader.url) as client:
        with pytest.raises(ClientError, match="AsyncClient"):
            asyncio.run(publish(client))

        asyncio.run(asyncio.to_thread(client.publish, embedded_reader.queue, {}))

    assert embedded_reader.read(1) == [{}]


def test_a_closed_client_says_so_and_closes_twice(embedded_reader: Reader) -> None:
    client = Client(embedded_reader.url)
    client.publish(embedded_reader.queue, {})
    client.close()
    client.close()

    with pytest.raises(ClientError, match="closed"):
        client.publish(embedded_reader.queue, {})


def test_a_client_that_nobody_holds_closes_by_itself(embedded_reader: Reader) -> None:
    Client(embedded_reader.url).publish(embedded_reader.queue, {})
    gc.collect()

    for thread in threading.enumerate():
        if thread.name == "penstock-client":
            thread.join(10)
    assert not publisher_thread._alive


def test_repr_tells_the_state_and_no_password(embedded_reader: Reader) -> None:
    client = Client("amqp://user:S3CR3T-canary@broker:5672/shop?heartbeat=5")
    assert repr(client) == "<Client amqp://broker:5672/shop [idle]>"
    with Client(embedded_reader.url) as client:
        client.publish(embedded_reader.queue, {})
        assert repr(client) == f"<Client {embedded_reader.url} [open]>"
    assert repr(client) == f"<Client {embedded_reader.url} [closed]>"


def test_a_url_that_is_no_bus_is_refused_without_its_password() -> None:
    with pytest.raises(ConfigurationError, match="amqp://") as refused:
        Client("http://user:S3CR3T-canary@broker/")

    assert "S3CR3T" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["amqp://guest:S3CR3T-canary@127.0.0.1:1/", "sqlite:////no/such/folder/bus.db"]
)
def test_a_bus_that_is_not_there_is_said_at_once_and_tried_again(url: str) -> None:
    with Client(url, timeout=20) as client:
        for _ in range(2):
            with pytest.raises(BusUnavailable, match="nothing was published") as unavailable:
                client.publish("work", {})
            assert "S3CR3T" not in str(unavailable.value)


def test_without_a_url_the_settings_say_which_bus(
    embedded_reader: Reader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "penstock.toml").write_text(f'[bus]\nurl = "{embedded_reader.url}"\nconfirm_timeout_s = 7\n')

    with Client() as client, Client(settings=load_settings()) as same:
        client.publish(embedded_reader.queue, {"from": "file"})
        same.publish(embedded_reader.queue, {"from": "settings"})
        assert client._timeout_s == same._timeout_s == 7

    assert embedded_reader.read(2) == [{"from": "file"}, {"from": "settings"}]


def test_the_default_client_is_one_a_process_until_it_is_closed(
    embedded_reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_BUS__URL", embedded_reader.url)

    first = client_module.default_client()
    assert client_module.default_client() is first
    first.close()
    second = client_module.default_client()
    try:
        second.publish(embedded_reader.queue, {})
    finally:
        second.close()

    assert embedded_reader.read(1) == [{}]


def test_publishing_loads_no_handler_no_reactor_and_no_worker(embedded_reader: Reader) -> None:
    program = """
import json, sys
from penstock import Client
Client(sys.argv[1]).publish(sys.argv[2], {})
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, embedded_reader.url, embedded_reader.queue],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    loaded = json.loads(done.stdout)
    rooms = {f"penstock.{room}" for room in ("reactor", "workers", "channels", "cli", "testing")}
    assert not {".".join(name.split(".")[:2]) for name in loaded} & {
        *rooms,
        "aio_pika",
        "aiormq",
        "sqlalchemy",
    }
