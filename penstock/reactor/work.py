"""A delivery that this reactor has taken on, and the handler that serves it."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.app.handlers import AnyHandler
from penstock.buses.contract import Delivery
from penstock.channels.jobs import Job
from penstock.reactor.tally import Tally

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
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.allowed = self.prefetch

    def note_run(self, run_s: float) -> None:
        """A delivery took so long."""
        if self.run_s is None:
            self.run_s = run_s
        else:
            self.run_s += (run_s - self.run_s) * (_RISE if run_s > self.run_s else _FALL)


@dataclass(slots=True, eq=False)
class Work:
    """A delivery between consume and settle; written by the loop only."""

    delivery: Delivery
    served: Served
    is_settled: bool = False
    alone: bool = False
    """It travels in a batch of its own, because it may have killed a process before."""
    is_watched: bool = False
    """Others wait for its settlement."""
    received_s: float = field(default_factory=time.monotonic)
    """When it was taken on, monotonic."""
    ended_s: float = 0.0
    """When its run ended, monotonic; 0 before."""
    join_key: Hashable = None
    """What a redelivery of it agrees in; None without a message id."""
    _fields: Mapping[str, str | None] | None = field(default=None, init=False, repr=False)

    def note_acked(self, at_s: float) -> None:
        """Its ack has left; monotonic."""
        self.served.tally.ack_lag.observe(at_s - self.ended_s)

    @property
    def fields(self) -> Mapping[str, str | None]:
        """What every log line says of it; made once, at the first line. A redelivery that joins says the same."""
        if self._fields is None:
            self._fields = {
                "message_id": self.delivery.message_id,
                "queue": self.delivery.queue,
                "handler": self.served.handler.name,
            }
        return self._fields


def note_run(work: Work, began_s: float, ended_s: float) -> None:
    """A delivery ran in this time; both monotonic."""
    tally = work.served.tally
    tally.queue_wait.observe(began_s - work.received_s)
    tally.run_time.observe(ended_s - began_s)
    work.ended_s = ended_s


def note_batch(works: Sequence[Work], run_ns: Sequence[int], ended_s: float) -> None:
    """The first of these deliveries ran, one after the other, so long each; the last one ended at `ended_s`, monotonic."""
    began_s = ended_s - sum(run_ns) / 1e9
    for work, ran_ns in zip(works, run_ns, strict=False):
        run_s = ran_ns / 1e9
        work.served.note_run(run_s)
        note_run(work, began_s, began_s + run_s)
        began_s += run_s


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
        delivery.redelivered or delivery.history.may_have_run,
        delivery.correlation_id,
        delivery.reply_to,
        delivery.type,
        delivery.timestamp_s,
        delivery.history.commit_unknown,
    )
