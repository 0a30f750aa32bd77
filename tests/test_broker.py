"""The tests' own broker keeps its promises: alone, restartable, and gone afterwards."""

import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import psutil

from tests.broker import PORTS, Broker, answers_amqp, free_ports
from tests.choose_broker import new_broker
from tests.leaks import Belongings

ROOT = Path(__file__).resolve().parent.parent


async def test_every_test_has_an_empty_virtual_host(amqp_url: str, queue_prefix: str) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        amqp_channel = await connection.channel()
        queue = await amqp_channel.declare_queue(f"{queue_prefix}here", durable=True)
        await amqp_channel.default_exchange.publish(aio_pika.Message(b"word"), queue.name)
        message = await queue.get(timeout=5)
        assert message.body == b"word"
        await message.ack()


async def test_what_was_confirmed_survives_a_killed_broker(own_broker: Broker) -> None:
    # Given a confirmed message in a quorum queue
    connection = await aio_pika.connect(own_broker.url)
    async with connection:
        amqp_channel = await connection.channel()
        await amqp_channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        await amqp_channel.default_exchange.publish(
            aio_pika.Message(b"word", delivery_mode=aio_pika.DeliveryMode.PERSISTENT), "kept"
        )
    own_broker.sync_declarations()
    # When the broker dies without a word and comes back
    own_broker.kill()
    assert not answers_amqp(own_broker.host, own_broker.port)
    own_broker.start()
    # Then the message is there, on the same port
    async with await aio_pika.connect(own_broker.url) as again:
        amqp_channel = await again.channel()
        queue = await amqp_channel.get_queue("kept")
        message = await queue.get(timeout=10)
        assert message.body == b"word"
        await message.ack()
    assert "kept" in own_broker.ctl("list_queues", "name")


def test_closing_leaves_nothing_behind() -> None:
    before = Belongings()
    others = psutil.Process().children()
    with new_broker() as broker:
        assert answers_amqp(broker.host, broker.port)
        parents = [process for process in psutil.Process().children() if process not in others]
        family = parents + [child for parent in parents for child in parent.children(recursive=True)]
        assert family
    assert not before.left_behind()
    assert alive_after(10, family) == []
    assert not answers_amqp(broker.host, broker.port)


def test_a_broker_dies_with_the_process_that_started_it() -> None:
    # Given a broker in another process
    with subprocess.Popen(
        [sys.executable, "-m", "tests.broker"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            url = urlsplit(program.stdout.readline().strip())
            assert url.hostname is not None
            assert url.port is not None
            assert answers_amqp(url.hostname, url.port)
            family = psutil.Process(program.pid).children(recursive=True)
        finally:
            # When that process is killed
            program.kill()
    # Then all of the broker goes too
    assert alive_after(30, family) == []
    assert not answers_amqp(url.hostname, url.port)


def test_ports_are_outside_the_range_of_outgoing_connections() -> None:
    first, second, third = free_ports(3)
    assert len({first, second, third}) == 3
    assert all(port in PORTS for port in (first, second, third))


def alive_after(patience_s: float, family: list[psutil.Process]) -> list[psutil.Process]:
    """Those of them that do not end in that time."""
    deadline = time.monotonic() + patience_s
    while (left := [process for process in family if not has_ended(process)]) and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.05)
    return left


def has_ended(process: psutil.Process) -> bool:
    try:
        # A zombie has ended, and nobody has collected it yet.
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
