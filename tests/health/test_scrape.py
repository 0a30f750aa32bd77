"""What Prometheus reads of a running service agrees with what was published to it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client import REGISTRY

from penstock.app.outcomes import Outcome
from penstock.app.payloads import make_outgoing
from penstock.buses.address import open_bus
from penstock.buses.contract import Bus
from penstock.health.exposition import OUTCOMES, RETURNED
from tests.health.watched import get, named, samples
from tests.service.processes import ServiceProcess
from tests.service.running import make_database, settings_for

ONLY = ("t.store", "t.stored", "t.fails", "t.dies", "t.deadline", "t.channel")
GOOD, TWICE, REJECTED, UNREADABLE, DYING, CHANNEL = 200, 5, 3, 2, 1, 20
LABELS = {
    "queue",
    "handler",
    "outcome",
    "phase",
    "channel",
    "method",
    "connection",
    "reason",
    "le",
    "version",
    "application",
}


@asynccontextmanager
async def scraped(bus_url: str, folder: Path, *flags: str) -> AsyncIterator[tuple[int, Bus]]:
    """A service with its endpoint's port, and its bus; stopped in order at the end, killed when the test fails."""
    service = await ServiceProcess.start(bus_url, folder, *flags, "--http-port", "0")
    bus = open_bus(settings_for(bus_url, folder).bus)
    try:
        port = (await service.wait_line("probes and metrics are answered"))["port"]
        await service.wait_line("consuming")
        await bus.connect()
        yield port, bus
        assert await service.stop() == 0
    finally:
        await bus.aclose()
        if service.returncode is None:
            await service.kill()


async def publish(bus: Bus, queue: str, *payloads: Any) -> None:
    messages = [
        make_outgoing(queue, payload, id=f"{queue}-{n}-{payload}") for n, payload in enumerate(payloads)
    ]
    assert await bus.publish(messages, timeout_s=30) == [None] * len(messages)


async def test_a_scrape_agrees_with_what_was_published(
    bus_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_WORKERS__KILL_AFTER_S", "0.2")
    make_database(tmp_path)
    only = [word for queue in ONLY for word in ("--only", queue)]
    async with scraped(bus_url, tmp_path, *only) as (port, bus):
        await publish(bus, "t.store", *({"id": n} for n in range(GOOD)))
        await publish(bus, "t.store", *({"id": f"not a number {n}"} for n in range(UNREADABLE)))
        await publish(bus, "t.fails", *({"kind": "value", "times": 1} for _ in range(TWICE)))
        await publish(bus, "t.fails", *({"kind": "reject"} for _ in range(REJECTED)))
        await publish(bus, "t.dies", *({"how": "exit", "times": 1} for _ in range(DYING)))
        await publish(bus, "t.deadline", {"how": "swallows"})
        await publish(bus, "t.channel", *({} for _ in range(CHANNEL)))
        metrics = await settled(
            port,
            {
                "t.store": GOOD + UNREADABLE,
                "t.stored": GOOD + TWICE,
                "t.fails": TWICE + REJECTED,
                "t.dies": DYING,
                "t.deadline": 1,
                "t.channel": CHANNEL,
            },
        )

    def of(name: str, handler: str, **labels: str) -> float:
        own = {"queue": f"t.{handler}", "handler": f"tests.service.application.{handler}", **labels}
        return metrics[named(name, own)]

    assert of("penstock_deliveries_total", "store") == GOOD + UNREADABLE
    assert of("penstock_acks_total", "store") == GOOD
    assert of("penstock_dead_letters_total", "store", reason="unreadable") == UNREADABLE
    assert of("penstock_dead_letters_total", "store", reason="attempts") == 0
    assert of("penstock_outcomes_total", "store", outcome="unreadable") == UNREADABLE
    assert of("penstock_outcomes_total", "store", outcome="returned") == GOOD
    # Each of them published one message on, and each that failed for good published none.
    assert of("penstock_deliveries_total", "stored") == GOOD + TWICE
    assert of("penstock_acks_total", "stored") == GOOD + TWICE

    assert of("penstock_outcomes_total", "fails", outcome="raised") == TWICE
    assert of("penstock_outcomes_total", "fails", outcome="rejected") == REJECTED
    assert of("penstock_retries_total", "fails") == TWICE
    assert of("penstock_dead_letters_total", "fails", reason="rejected") == REJECTED
    assert of("penstock_deliveries_total", "fails") == 2 * TWICE + REJECTED

    assert of("penstock_outcomes_total", "dies", outcome="died") == DYING
    assert of("penstock_retries_total", "dies") == DYING
    kills = of("penstock_deadline_kills_total", "deadline")
    assert kills == of("penstock_outcomes_total", "deadline", outcome="died") >= 1
    assert metrics["penstock_worker_deaths_total"] == DYING + kills

    assert metrics['penstock_channel_calls_total{channel="db",method="begin"}'] == CHANNEL
    assert metrics['penstock_channel_calls_total{channel="db",method="commit"}'] == CHANNEL
    assert metrics['penstock_channel_calls_total{channel="db",method="execute"}'] == CHANNEL + GOOD + TWICE
    assert metrics["penstock_group_commit_statements_sum"] == GOOD + TWICE
    assert 1 <= metrics["penstock_group_commit_statements_count"] <= GOOD + TWICE

    commits = metrics["penstock_bus_group_commit_requests_count"]
    assert commits > 0 if bus_url.startswith("sqlite") else commits == 0

    assert of("penstock_handler_seconds_count", "store") == GOOD + UNREADABLE
    assert of("penstock_queue_wait_seconds_count", "store") == GOOD + UNREADABLE
    assert of("penstock_ack_lag_seconds_count", "store") == GOOD + UNREADABLE
    assert of("penstock_ack_lag_seconds_bucket", "store", le="+Inf") == GOOD + UNREADABLE
    assert 0 < of("penstock_handler_seconds_sum", "store") < 60
    assert sum(value for name, value in metrics.items() if name.startswith("penstock_slots{")) == 2
    assert metrics["penstock_loop_lag_seconds_count"] > 0
    assert metrics["process_open_fds"] > 0
    assert (metrics["penstock_live"], metrics["penstock_ready"]) == (1, 1)


async def settled(port: int, done: dict[str, int]) -> dict[str, float]:
    """Scrape until so many messages of each queue have ended, nothing is out, and the service is ready."""

    def ended(metrics: dict[str, float], queue: str) -> float:
        names = ("penstock_acks_total{", "penstock_dead_letters_total{")
        return sum(v for name, v in metrics.items() if name.startswith(names) and f'queue="{queue}"' in name)

    async with asyncio.timeout(60):
        while True:
            metrics = samples((await asyncio.to_thread(get, port, "/metrics")).body)
            # Two workers that die together leave none for a moment.
            is_busy = metrics["penstock_ready"] == 0 or any(
                value
                for name, value in metrics.items()
                if name.startswith(("penstock_unsettled{", "penstock_acks_waiting"))
            )
            if not is_busy and all(ended(metrics, queue) >= count for queue, count in done.items()):
                return metrics
            await asyncio.sleep(0.05)


async def test_labels_are_bounded_and_no_message_says_what_they_are(tmp_path: Path) -> None:
    make_database(tmp_path)
    bus_url = f"sqlite:///{tmp_path / 'bus.db'}"
    async with scraped(bus_url, tmp_path, "--only", "t.fails") as (port, bus):
        before = len(samples(await _text(port)))
        await publish(bus, "t.fails", *({"kind": "value", "n": f"S3CR3T-canary-{n}"} for n in range(5)))
        await settled(port, {"t.fails": 5})
        text = await _text(port)

    assert len(samples(text)) == before
    assert set(re.findall(r'[{,](\w+)="', text)) <= LABELS
    assert "canary" not in text


async def _text(port: int) -> str:
    return (await asyncio.to_thread(get, port, "/metrics")).body


def test_the_registry_of_everybody_is_left_alone() -> None:
    assert not [metric for metric in REGISTRY.collect() if metric.name.startswith("penstock")]


def test_every_outcome_has_its_word() -> None:
    assert {"Returned", *OUTCOMES} >= {kind.__name__ for kind in get_args(Outcome)} - {"Unstarted"}
    assert RETURNED not in OUTCOMES.values()
