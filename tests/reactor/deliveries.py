"""Deliveries for tests of the reactor's pure parts, and a settler that remembers what it was told."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from penstock.app.application import App
from penstock.app.backoff import Backoff
from penstock.app.handlers import AnyHandler
from penstock.buses.contract import Delivery, Told
from penstock.reactor.work import Served, Work


@dataclass
class Ledger:
    """A settler that writes down what happened to each tag."""

    is_gone: bool = False
    acked: list[int] = field(default_factory=list)
    requeued: list[int] = field(default_factory=list)

    def ack(self, tag: int, told: Told | None = None) -> bool:
        if told is not None:
            told.note_acked(time.monotonic())
        self.acked.append(tag)
        return not self.is_gone

    def requeue(self, tag: int) -> bool:
        self.requeued.append(tag)
        return not self.is_gone


def delivery(settler: Ledger | None = None, **options: Any) -> Delivery:
    """A delivery on queue `orders`."""
    made: dict[str, Any] = {"queue": "orders", "tag": 1, "body": b"{}", "message_id": "m1"}
    return Delivery(settler=settler or Ledger(), **{**made, **options})


def handler(queue: str = "orders", **options: Any) -> AnyHandler:
    """A handler that does nothing."""
    options.setdefault("retry", Backoff(attempts=3, first_s=1.0))

    def nothing(payload: dict[str, object]) -> None: ...

    return App().handler(queue, **options)(nothing)


def served(queue: str = "orders", *, index: int = 0, run_s: float | None = None) -> Served:
    """The handler as the reactor keeps it."""
    return Served(index, handler(queue), prefetch=16, run_s=run_s)


def work(one: Served, tag: int = 1, **options: Any) -> Work:
    """A delivery that the reactor has taken on."""
    return Work(delivery(tag=tag, queue=one.handler.queue.name, message_id=f"m{tag}", **options), one)
