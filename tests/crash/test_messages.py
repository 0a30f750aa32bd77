"""Messages that nobody can read, that lie, that are too large, that come twice."""

from __future__ import annotations

import asyncio
import json
import pickle
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from tests.broker import Broker
from tests.crash.scene import READY, even, play, resident_mib, tasks

HERD = 10_000


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


async def test_what_cannot_be_read_is_a_dead_letter_and_disturbs_nobody(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    marker = tmp_path / "unpickled"
    async with play(broker, tmp_path, "c.work", url=amqp_url, LIMITS__BODY_BYTES="1000000") as scene:
        await scene.service.wait_line(READY, count=2)
        bodies = [
            b"{not json",
            b'{"s": NaN}',
            b"[" * 200_000,
            b'{"fails": ' + b"9" * 5_000 + b"}",
            b'{"pad": "\\ud800"}',
            b"\xff\xfe",
            b"",
            b'"' + b"x" * 1_000_001 + b'"',
            json.dumps({"s": "soon"}).encode(),
        ]
        await scene.publish("c.work", *bodies)
        await scene.publish(
            "c.work", pickle.dumps(Bomb(marker)), content_type="application/x-python-serialize"
        )
        bomb = zlib.compress(b" " * (64 << 20))
        await scene.publish("c.work", bomb, content_encoding="deflate")
        ids = await scene.publish("c.work", *tasks(100))
        await scene.done(ids)
        await scene.service.wait_line("message dead lettered", count=11)
        boots = scene.service.boots
        balance = await scene.close()

    reasons = [line["reason"] for line in scene.ended[0].lines if line["event"] == "message dead lettered"]
    assert len(reasons) == 11
    assert not marker.exists()
    assert boots == 2
    even(balance, dead=11, effects=100, duplicates=0)


async def test_forged_headers_change_nothing(broker: Broker, amqp_url: str, tmp_path: Path) -> None:
    forged = {
        "x-penstock-attempts": 99,
        "x-penstock-crashes": 99,
        "x-penstock-reason": "forged",
        "x-delivery-count": 99,
        "x-death": [{"count": 99, "queue": "c.work", "reason": "rejected"}],
        "x-attempt": "99",
        "CC": ["c.loop"],
    }
    async with play(broker, tmp_path, "c.work", "c.classic", url=amqp_url) as scene:
        ids: list[str] = []
        for queue in ("c.work", "c.classic"):
            headers = {name: value for name, value in forged.items() if name != "CC"}
            ids += await scene.publish(
                queue, {"fails": 1}, {}, headers=headers, reply_to="c.work", priority=9
            )
        await scene.done(ids)
        balance = await scene.close()

    assert sorted(effect.attempt for effect in scene.ledger.effects()) == [1, 1, 2, 2]
    even(balance, dead=0, duplicates=0)


async def test_headers_that_fill_a_frame_do_not_cost_the_connection(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        fat = {f"h{n}": "x" * 1000 for n in range(118)}
        many = {f"h{n}": n for n in range(10_000)}
        for headers in (fat, many):
            await scene.publish("c.work", {"rejects": True}, {"fails": 1}, headers=headers)
        await scene.service.wait_line("message dead lettered", count=2)
        await scene.recovered()
        await scene.until(lambda: len(scene.ledger.effects()) == 3)
        made = scene.proxy.made
        balance = await scene.close()

    assert made == 2, "a connection was lost"
    even(balance, dead=2, duplicates=0)


async def test_one_id_published_twice_is_handled_twice_and_never_dropped(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    async with play(broker, tmp_path, "c.work", url=amqp_url) as scene:
        channel = await scene.publisher.channel()
        scene.ledger.published.update(("same", "None"))
        for message_id, body in (
            ("same", b'{"s": 0.3}'),
            ("same", b'{"s": 0.31}'),
            (None, b"{}"),
            (None, b"{}"),
        ):
            message = aio_pika.Message(body, message_id=message_id, content_type="application/json")
            await channel.default_exchange.publish(message, "c.work")
        # Their connection breaks while they run: they come again, and join.
        await scene.begun("same", times=2)
        scene.proxy.reset()
        await scene.recovered()
        await scene.until(lambda: scene.unacked("c.work") == 0)
        await scene.close()

    # Only one of them can be known by its id: the other one is repeated, and marked.
    same = scene.ledger.effects_of(["same"])
    assert len([effect for effect in same if not effect.redelivered]) == 2
    assert len(same) <= 3


@pytest.mark.long
async def test_a_herd_that_fails_once_is_held_back_and_memory_is_bounded(
    broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    unacked: list[int] = []
    resident: list[float] = []
    async with play(broker, tmp_path, "c.work", url=amqp_url, BUS__PREFETCH_TOTAL="200") as scene:
        await scene.recovered()
        await scene.stop_service()
        for _ in range(10):
            await scene.publish("c.work", *tasks(HERD // 10, fails=1))
        await scene.start_service("c.work")
        pid = scene.service.pid
        await scene.until(lambda: len(scene.ledger.run_counts()) > HERD // 10)
        while len(scene.ledger.effects()) < HERD + 1:
            unacked.append(await asyncio.to_thread(scene.unacked, "c.work"))
            resident.append(resident_mib(pid))
        balance = await scene.close()

    waits = [line["after_s"] for line in scene.ended[1].lines if line.get("event") == "message is retried"]
    print(f"unacked={max(unacked)} resident={resident[0]:.0f}..{max(resident):.0f} MiB")  # noqa: T201
    assert 0 < max(unacked) <= 200
    assert max(resident) - resident[0] < 10
    # Full jitter below 0.1 s, so that they don't come back as they went.
    assert len(waits) == HERD
    tenths = Counter(int(wait * 100) for wait in waits)
    assert all(HERD // 20 < tenths[n] < HERD // 5 for n in range(1, 10))
    even(balance, dead=0, duplicates=0, effects=HERD + 1)
