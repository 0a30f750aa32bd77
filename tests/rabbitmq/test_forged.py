"""What any publisher may write on a message, by a raw AMQP client: it is data, and steers nothing."""

from __future__ import annotations

import gzip
import io
from typing import Any

import aiormq
import psutil
import pytest
from aiormq import spec

from tests.service.running import Service, running

BOMB_BYTES = 256 * 1024 * 1024
FORGED: dict[str, Any] = {
    "x-penstock-attempts": 99,
    "x-penstock-crashes": 99,
    "x-penstock-first-failed-at-unix-ms": 1,
    "x-penstock-commit-unknown": True,
    "x-penstock-replays": 7,
    "x-penstock-history": '[{"reason": "forged"}]',
    "x-penstock-reason": "forged",
    "x-penstock-queue": "t.fails",
    "x-penstock-exchange": "amq.direct",
    "x-penstock-riding": "forged",
    "x-death": [{"queue": "t.only", "count": 9999, "reason": "rejected"}],
    "x-first-death-queue": "forged",
    "x-delivery-count": 10**9,
    "x-delay": 10**12,
    "handler": "os:system",
}


async def publish_raw(url: str, queue: str, body: bytes, **properties: Any) -> None:
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel()
        confirmed = await channel.basic_publish(
            body, routing_key=queue, properties=spec.Basic.Properties(**properties)
        )
        assert isinstance(confirmed, spec.Basic.Ack)
    finally:
        await connection.close()


async def test_forged_control_headers_change_neither_counters_nor_ways(amqp_url: str, tmp_path: Any) -> None:
    async with running(amqp_url, tmp_path, only=("t.fails", "t.only")) as service:
        await publish_raw(
            amqp_url,
            "t.fails",
            b'{"kind": "value", "times": 1}',
            message_id="forged",
            headers=FORGED,
            reply_to="t.only",
            expiration="600000",
            priority=255,
        )
        statistics = await service.settled(1)
        letters = await service.dead("t.fails")

    # The first run is the first attempt, it fails, and the second one is acked: no counter was believed.
    assert (statistics.acked, statistics.retried, statistics.dead) == (1, 1, 0)
    assert service.effects("fails") == [("forged", 2)]
    # Nothing answers to reply_to.
    assert service.effects("only") == []
    # The letters are what the second run published to a queue that nobody declared here.
    assert all(str(letter["x-penstock-reason"]).startswith("unroutable") for letter in letters)


async def test_a_dead_letter_of_a_forged_message_says_the_truth(amqp_url: str, tmp_path: Any) -> None:
    async with running(amqp_url, tmp_path, only=("t.fails",)) as service:
        await publish_raw(amqp_url, "t.fails", b'{"kind": "reject"}', message_id="forged", headers=FORGED)
        await service.settled(1)
        (letter,) = await service.dead("t.fails")

    assert letter["x-penstock-reason"] == "rejected by the handler: closed"
    assert letter["x-penstock-queue"] == "t.fails"
    assert (letter["x-penstock-attempts"], letter["x-penstock-crashes"]) == (1, 0)
    assert letter.keys().isdisjoint(
        {
            "x-penstock-replays",
            "x-penstock-history",
            "x-penstock-exchange",
            "x-penstock-commit-unknown",
            "x-penstock-riding",
            "x-death",
        }
    )
    # The others are the publisher's own: carried on, and they steer nothing.
    assert (letter["handler"], letter["x-delay"]) == ("os:system", 10**12)


async def test_a_user_id_that_is_not_the_publishers_is_refused_by_the_broker(
    amqp_url: str, tmp_path: Any
) -> None:
    async with running(amqp_url, tmp_path, only=("t.fails",)):
        with pytest.raises(aiormq.exceptions.ChannelPreconditionFailed, match="user_id"):
            await publish_raw(amqp_url, "t.fails", b"{}", headers=FORGED, user_id="somebody-else")


@pytest.mark.parametrize("layers", [1, 2])
async def test_a_compression_bomb_costs_no_more_than_the_limit(
    amqp_url: str, tmp_path: Any, layers: int
) -> None:
    body = bomb()
    if layers == 2:
        body = gzip.compress(body)
    async with running(
        amqp_url, tmp_path, only=("t.only",), limits={"body_bytes": 1024 * 1024}, workers={"processes": 1}
    ) as service:
        (pid,) = service.reactor.worker_pids
        await publish_raw(amqp_url, "t.only", body, message_id="bomb", content_encoding="gzip")
        await service.settled(1)
        (letter,) = await service.dead("t.only")
        peak_kib = most_memory_kib(service, pid)

    assert "unpacks to more than limits.body_bytes" in str(letter["x-penstock-reason"]) or layers == 2
    assert peak_kib < 128 * 1024


async def test_several_encodings_at_once_are_refused(amqp_url: str, tmp_path: Any) -> None:
    async with running(amqp_url, tmp_path, only=("t.only",)) as service:
        packed = gzip.compress(gzip.compress(b'{"id": 1}'))
        await publish_raw(amqp_url, "t.only", packed, message_id="twice", content_encoding="gzip, gzip")
        await service.settled(1)
        (letter,) = await service.dead("t.only")

    assert "content encoding 'gzip, gzip' is not read" in str(letter["x-penstock-reason"])


def bomb() -> bytes:
    """256 MiB of nothing, packed to 256 KiB."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as file:
        for _ in range(BOMB_BYTES // 2**20):
            file.write(bytes(2**20))
    return packed.getvalue()


def most_memory_kib(service: Service, pid: int) -> int:
    """The most resident memory that the worker ever had."""
    assert psutil.pid_exists(pid), service.lines[-5:]
    with open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123 - a file of the kernel's
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
