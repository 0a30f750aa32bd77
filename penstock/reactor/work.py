"""A delivery that this reactor has taken on, and the handler that serves it."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.app.handlers import AnyHandler
from penstock.buses.contract import Delivery
from penstock.channels.jobs import Job

#: Weight of a new run time when it is longer, and when it is shorter, than what is remembered: a handler that turns
#: slow must stop travelling in large batches at once.
_RISE = 0.6
_FALL = 0.1


@dataclass(slots=True, eq=False)
class Served:
    """One handler in this reactor, with what is known of its pace."""

    index: int
    handler: AnyHandler
    prefetch: int
    allowed: int = 0
    """Prefetch in force: `prefetch`, or less while the handler is slow."""
    run_s: float | None = None
    """Recent run time of one delivery; None before the first."""

    def __post_init__(self) -> None:
        self.allowed = self.prefetch

    def note_run(self, run_s: float) -> None:
        """A delivery took so long."""
        if self.run_s is None:
            self.run_s = run_s
        else:
            self.run_s += (run_s - self.run_s) * (_RISE if run_s > self.run_s else _FALL)


#: Deliveries before this one from which a message may have killed its reactor: it runs alone, so that a death tells.
SUSPECT_DELIVERIES = 3


def is_suspect(delivery: Delivery) -> bool:
    """True when a message has killed a worker, or was handed out so often that it may have killed a whole service."""
    return delivery.history.crashes > 0 or delivery.delivery_count >= SUSPECT_DELIVERIES


@dataclass(slots=True, eq=False)
class Work:
    """A delivery between consume and settle; written by the loop only."""

    delivery: Delivery
    served: Served
    is_settled: bool = False
    alone: bool = False
    """It travels in a batch of its own, because it may have killed a worker before."""
    taken_over: int = field(default=0)
    """How often a redelivery has joined it."""

    @property
    def name(self) -> str:
        """The message in words."""
        return f"message {self.delivery.message_id or '(no id)'} of queue {self.delivery.queue!r}"


def job_of(work: Work) -> Job:
    """What a worker is told of a delivery."""
    delivery = work.delivery
    return Job(
        work.served.index,
        delivery.body,
        delivery.message_id,
        delivery.content_type,
        delivery.content_encoding,
        delivery.headers,  # type: ignore[arg-type]
        delivery.history.attempts + 1,
        delivery.redelivered,
        delivery.correlation_id,
        delivery.reply_to,
        delivery.type,
        delivery.timestamp_s,
        delivery.history.commit_unknown,
    )
