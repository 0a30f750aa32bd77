"""A running service while its broker misbehaves: nothing is lost, nothing runs twice, nobody restarts it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr

from penstock.app.messages import Outgoing
from penstock.app.queues import QueueDeclaration
from penstock.buses.address import open_bus
from penstock.config.bus import BusSection
from penstock.errors import TopologyMismatch
from tests.broker import Broker
from tests.service.running import Service, running

MANY = 200
#: So that a test does not wait for its turn to reconnect.
QUICKLY_BACK = {"reconnect_cap_s": 0.2}

LOST = "connection to the broker lost: it is opened again; what runs goes on, what is published waits for it"
CLOSED = (
    "the broker closed a consuming AMQP channel: it is opened again; what runs goes on, "
    "the broker hands the unsettled messages out again"
)
CANCELLED = (
    "the broker cancelled a consumer, its queue was deleted or moved: the queue is declared and consumed again; "
    "what runs goes on, messages that were in a deleted queue are gone"
)


async def ctl(broker: Broker, *words: str) -> str:
    """The broker's own command line, while the loop goes on."""
    return await asyncio.to_thread(broker.ctl, *words)


async def depths(url: str, *queues: str) -> list[int | None]:
    """Messages that a broker still has, asked after the service has ended: unsettled ones are among them."""
    bus = open_bus(BusSection(url=SecretStr(url)))
    await bus.connect()
    try:
        return [await bus.depth(queue) for queue in queues]
    finally:
        await bus.aclose()


async def begun(service: Service, *until: Path) -> None:
    """Slow messages slow0, slow1, …, each in a worker by now, and there until its file is."""
    await service.publish(
        "t.waits", *({"until": str(path)} for path in until), ids=[f"slow{n}" for n in range(len(until))]
    )
    await service.line("begun", count=len(until))


def once(ids: Sequence[str]) -> list[tuple[str, int]]:
    """One effect each, of the first attempt."""
    return sorted((id_, 1) for id_ in ids)


async def test_a_service_outlives_its_closed_connections(own_broker: Broker, tmp_path: Path) -> None:
    url = own_broker.url
    async with running(url, tmp_path, only=("t.waits", "t.only"), bus=QUICKLY_BACK) as service:
        await begun(service, end := tmp_path / "end")
        await service.publish("t.only", *({"id": n} for n in range(MANY)))

        await ctl(own_broker, "close_all_connections", "maintenance")

        # The message that runs is handed out again while it runs.
        await service.line("connection to the broker is back", count=2)
        assert service.effects("waits") == []
        await service.publish("t.only", {"id": 0}, ids=["after"])
        end.touch()
        await service.until(lambda s: s.unsettled == 0 and s.acked > MANY + 1)

    assert sorted(service.effects("only")) == once([*(f"m{n}" for n in range(MANY)), "after"])
    assert service.effects("waits") == once(["slow0"])
    assert await depths(url, "t.waits", "t.only", "t.waits.dead", "t.only.dead") == [0, 0, 0, 0]


async def test_a_queue_that_is_deleted_under_its_consumer_comes_back(
    own_broker: Broker, tmp_path: Path
) -> None:
    async with running(own_broker.url, tmp_path, only=("t.waits", "t.only")) as service:
        await begun(service, end := tmp_path / "end")

        await ctl(own_broker, "delete_queue", "t.only")

        assert (await service.line(CANCELLED))["queue"] == "t.only"
        await until_consumed(own_broker, "t.only")
        await service.publish("t.only", {"id": 1})
        end.touch()
        await service.until(lambda s: s.unsettled == 0 and s.acked == 2)

    # Its neighbour on the same AMQP channel did not notice.
    assert service.effects("waits") == once(["slow0"])
    assert service.effects("only") == once(["m0"])
    assert CLOSED not in [line["event"] for line in service.lines]


async def until_consumed(broker: Broker, queue: str) -> None:
    """The broker announces a new consumer to nobody, so it is asked."""
    async with asyncio.timeout(15):
        while f"{queue}\t1" not in await ctl(broker, "list_queues", "name", "consumers"):
            pass


async def test_a_message_that_runs_beyond_the_consumer_timeout_runs_once(
    own_broker: Broker, tmp_path: Path
) -> None:
    await ctl(
        own_broker,
        "eval",
        "application:set_env(rabbit,consumer_timeout,2000),"
        "application:set_env(rabbit,channel_tick_interval,500).",
    )
    async with running(own_broker.url, tmp_path, only=("t.waits", "t.only")) as service:
        await begun(service, end := tmp_path / "end")

        line = await service.line(CLOSED)
        assert sorted(line["queues"]) == ["t.only", "t.waits"]
        assert "timeout" in line["why"]
        # The other queue on that AMQP channel is consumed again before the slow message has ended.
        await service.publish("t.only", {"id": 1})
        await service.until(lambda s: s.acked == 1)
        assert service.effects("waits") == []
        end.touch()
        await service.until(lambda s: s.unsettled == 0 and s.acked >= 2)

    assert service.effects("waits") == once(["slow0"])
    assert service.effects("only") == once(["m0"])
    assert await depths(own_broker.url, "t.waits", "t.only") == [0, 0]


async def test_a_service_outlives_its_killed_broker(own_broker: Broker, tmp_path: Path) -> None:
    url = own_broker.url
    async with running(url, tmp_path, only=("t.waits", "t.only"), bus=QUICKLY_BACK) as service:
        await asyncio.to_thread(own_broker.sync_declarations)
        # One ends while there is no broker to take its ack, the other after it is back.
        ends = [tmp_path / "end0", tmp_path / "end1"]
        await begun(service, *ends)

        await asyncio.to_thread(own_broker.kill)
        await service.line(LOST, count=2)
        ends[0].touch()
        waiting = asyncio.create_task(service.publish("t.only", *({"id": n} for n in range(MANY))))
        await asyncio.to_thread(own_broker.start)
        await waiting
        await service.line("connection to the broker is back", count=2)
        assert service.effects("waits") == once(["slow0"])
        ends[1].touch()
        await service.until(lambda s: s.unsettled == 0 and s.acked >= MANY + 2)

    assert sorted(service.effects("waits")) == once(["slow0", "slow1"])
    # A publish whose confirm went down with the broker is repeated, so these may be there twice.
    assert set(service.effects("only")) == set(once([f"m{n}" for n in range(MANY)]))
    assert await depths(url, "t.waits", "t.only", "t.waits.dead", "t.only.dead") == [0, 0, 0, 0]


async def test_a_service_starts_with_all_its_queues_or_reports_all_that_differ(
    amqp_url: str, tmp_path: Path
) -> None:
    bus = open_bus(BusSection(url=SecretStr(amqp_url)))
    await bus.connect()
    await bus.declare([QueueDeclaration(name=name, type="classic") for name in ("t.only", "t.waits")])
    await bus.declare([QueueDeclaration(name="t.idles")])
    waiting = [Outgoing(queue, b'{"id": 1}', message_id=queue) for queue in ("t.only", "t.idles")]
    assert await bus.publish(waiting, timeout_s=10) == [None, None]

    with pytest.raises(TopologyMismatch) as mismatch:
        async with running(amqp_url, tmp_path, only=("t.only", "t.waits", "t.idles")):
            pytest.fail("it consumes")

    differing = [line.split(":")[0] for line in mismatch.value.differences]
    assert sorted(differing) == ["queue 't.only'", "queue 't.waits'"]
    # Which argument of several it names is the broker's choice.
    assert all("on the broker, the handler declares" in line for line in mismatch.value.differences)
    assert [await bus.depth(message.routing_key) for message in waiting] == [1, 1]
    async with bus.hold("t.idles", limit=1) as held:
        assert [message.redelivered async for message in held] == [False]
    await bus.aclose()
