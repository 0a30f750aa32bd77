"""The broker goes away, comes back, or stands still: what a client's callers see of it."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock import Client
from penstock.errors import PublishTimeout
from tests.broker import Broker
from tests.client.reader import Reader


@pytest.fixture
def broker_reader(own_broker: Broker, queue: str) -> Reader:
    reader = Reader(own_broker.url, queue)
    reader.run(reader.declare())
    # RabbitMQ writes what it knows of a new quorum queue half a second late: killed before, it boots with a queue
    # that has no leader and never will.
    own_broker.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")
    return reader


@pytest.fixture
def broker_client(own_broker: Broker, broker_reader: Reader) -> Iterator[Client]:
    with Client(own_broker.url) as client:
        yield client


def test_it_is_back_as_soon_as_the_broker_is_and_who_published_meanwhile_waited(
    own_broker: Broker,
    broker_client: Client,
    broker_reader: Reader,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker_client.publish(broker_reader.queue, {}, id="before")

    own_broker.kill()
    with ThreadPoolExecutor(1) as threads:
        meanwhile = threads.submit(broker_client.publish, broker_reader.queue, {}, id="meanwhile", timeout=60)
        own_broker.start()
        assert meanwhile.result() == "meanwhile"
    own_broker.restart()
    broker_client.publish(broker_reader.queue, {}, id="after")

    assert set(broker_reader.read_ids(3)) == {"before", "meanwhile", "after"}
    assert "connection to the broker lost" in caplog.text
    assert capfd.readouterr().out == ""


def test_many_that_were_under_way_when_the_broker_died_are_all_there_when_it_is_back(
    own_broker: Broker, broker_client: Client, broker_reader: Reader
) -> None:
    count, confirmed = 4000, 0
    messages = ((broker_reader.queue, number, {"id": f"m-{number}"}) for number in range(count))

    with ThreadPoolExecutor(1) as threads:
        for result in broker_client.publish_many(messages, timeout=60):
            assert result.error is None
            confirmed += 1
            if confirmed == 1000:
                # With a full window of unconfirmed messages behind it.
                own_broker.kill()
                threads.submit(own_broker.start)

    assert confirmed == count
    received = [delivery.message_id for delivery in broker_reader.run(broker_reader.take_all())]
    # Those that were cut off before their confirm were published again, with the same id.
    assert set(received) == {f"m-{number}" for number in range(count)}
    assert len(received) < count + 1000


def test_a_broker_that_stands_still_is_a_timeout_that_names_the_id_and_hangs_nobody(
    own_broker: Broker, broker_client: Client, broker_reader: Reader
) -> None:
    broker_client.publish(broker_reader.queue, {}, id="before")
    program = (
        "import sys\n"
        "from penstock import Client, PublishTimeout\n"
        "client = Client(sys.argv[1])\n"
        "client.publish(sys.argv[2], {}, id='other')\n"
        "print('frozen?', flush=True)\n"
        "input()\n"
        "try:\n"
        "    client.publish(sys.argv[2], {}, timeout=0.5)\n"
        "except PublishTimeout:\n"
        "    print('timeout', flush=True)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, own_broker.url, broker_reader.queue],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout is not None
    assert other.stdout.readline() == "frozen?\n"

    own_broker.freeze()
    try:
        began_s = time.monotonic()
        with pytest.raises(PublishTimeout, match=r"m-1.*probably delivered.*same id"):
            broker_client.publish(broker_reader.queue, {}, id="m-1", timeout=1)
        assert time.monotonic() - began_s < 5
        # The whole program ends, although nobody answers its goodbye.
        assert other.communicate("\n", timeout=40) == ("timeout\n", "")
        assert other.returncode == 0
        broker_client.close()
        assert time.monotonic() - began_s < 40
    finally:
        own_broker.thaw()

    with Client(own_broker.url) as again:
        again.publish(broker_reader.queue, {}, id="m-1")
    received = {delivery.message_id for delivery in broker_reader.run(broker_reader.take_all())}
    assert received >= {"before", "other", "m-1"}
