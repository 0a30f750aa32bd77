"""The figures as Prometheus has them: names, labels, text; made when somebody asks, in a registry of our own.

Labels are queue, handler, and words from short lists of ours; nothing that a message says becomes one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

from penstock.buses.contract import BusStatistics
from penstock.health.loop_watch import LoopWatch
from penstock.reactor.decide import Cause
from penstock.reactor.figures import Figures, HandlerFigures
from penstock.reactor.settle import NOT_CARRIED, UNROUTABLE
from penstock.reactor.tally import Histogram, Tally

#: Of the outcomes' types, as the architecture page has them.
OUTCOMES: Final = {
    "Raised": "raised",
    "AskedRetry": "asked for retry",
    "Rejected": "rejected",
    "Unreadable": "unreadable",
    "Died": "died",
}
RETURNED: Final = "returned"
CAUSES: Final = tuple(cause.value for cause in Cause)
UNDELIVERABLE: Final = (UNROUTABLE, NOT_CARRIED)
#: Of slots; one that is not among them is counted all the same.
PHASES: Final = ("booting", "idle", "decoding", "handler", "in transaction", "committing", "ended", "closing")
#: Upper bounds of the number of statements in one commit.
GROUP_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_GO_FLOAT: Final[Callable[[float], str]] = floatToGoString
_BY_HANDLER: Final = ("queue", "handler")


def _outcomes(tally: Tally) -> Mapping[str, int]:
    others = {kind.__name__: number for kind, number in tally.others.items()}
    # One that returned and published is of its own type's count, one that only returned is not.
    returned = tally.returned + others.get("Returned", 0)
    return {RETURNED: returned} | {words: others.get(name, 0) for name, words in OUTCOMES.items()}


_COUNTERS: Final[tuple[tuple[str, str, Callable[[Tally], int]], ...]] = (
    ("penstock_deliveries", "Deliveries taken on.", lambda tally: tally.delivered),
    (
        "penstock_redeliveries_joined",
        "Redeliveries that joined a run, or whose lost ack was repeated; not among the deliveries.",
        lambda tally: tally.joined,
    ),
    (
        "penstock_acks",
        "Deliveries that are done: handled, what they published confirmed, acked.",
        lambda tally: tally.acked,
    ),
    (
        "penstock_retries",
        "Deliveries that come again: published with a delay, confirmed, acked.",
        lambda tally: tally.retried,
    ),
    (
        "penstock_handed_back",
        "Deliveries given back to the bus, because they were not begun or could not be ended.",
        lambda tally: tally.handed_back,
    ),
    (
        "penstock_starts_counted",
        "Deliveries published again before they ran, because they may have ended a whole service.",
        lambda tally: tally.counted,
    ),
    (
        "penstock_deadline_kills",
        "Workers killed because a handler ignored its deadline.",
        lambda tally: tally.deadline_kills,
    ),
)
#: Counters with a label more, and all the words that it has.
_BY_WORD: Final[tuple[tuple[str, str, str, Sequence[str], Callable[[Tally], Mapping[str, int]]], ...]] = (
    (
        "penstock_outcomes",
        "How runs ended.",
        "outcome",
        (RETURNED, *OUTCOMES.values()),
        _outcomes,
    ),
    (
        "penstock_dead_letters",
        "Deliveries that were given up: published to the dead-letter queue, confirmed, acked.",
        "reason",
        CAUSES,
        lambda tally: tally.dead,
    ),
    (
        "penstock_undeliverable",
        "Messages that a handler published and nobody took; each is a dead letter of its own.",
        "reason",
        UNDELIVERABLE,
        lambda tally: tally.undeliverable,
    ),
)
_GAUGES: Final[tuple[tuple[str, str, Callable[[HandlerFigures], float]], ...]] = (
    ("penstock_unsettled", "Deliveries that are out and not settled.", lambda one: one.tally.unsettled),
    ("penstock_prefetch", "Deliveries that may be out at once.", lambda one: one.prefetch),
    (
        "penstock_consuming",
        "1 while the bus has confirmed the queue's consumer.",
        lambda one: one.is_consuming,
    ),
)
_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[[Tally], Histogram]], ...]] = (
    (
        "penstock_queue_wait_seconds",
        "From the delivery to the start of its handling; the wait on the broker is not in it.",
        lambda tally: tally.queue_wait,
    ),
    (
        "penstock_handler_seconds",
        "Decoding, the handler and its commit, of runs whose worker lived.",
        lambda tally: tally.run_time,
    ),
    (
        "penstock_ack_lag_seconds",
        "From the end of the handling until its ack was written: the rest of the batch, publishing, confirms.",
        lambda tally: tally.ack_lag,
    ),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one scrape shows."""

    figures: Figures | None
    """The last ones; None: the loop has never answered."""
    at_unix_s: float
    why_not_ready: tuple[str, ...]
    why_no_database: str | None = None
    has_database: bool = False


class Exposition:
    """Turns what `see` returns into text; `application` names the service."""

    def __init__(self, application: str, watch: LoopWatch) -> None:
        self._application = application
        self._watch = watch
        self._seen = Seen(None, time.time(), ())
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def write(self, seen: Seen, accept: str) -> tuple[bytes, str]:
        """The text and its content type, in the format that the `Accept` header asks for."""
        self._seen = seen
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are fixed, and to ask for them would collect everything once more."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric, for the registry."""
        yield from self._health(self._seen)
        if self._seen.figures is not None:
            yield from _of_handlers(self._seen.figures.handlers)
            yield from _of_service(self._seen.figures)
            yield from _of_bus(self._seen.figures.bus)

    def _health(self, seen: Seen) -> Iterator[Metric]:
        watch = self._watch
        about = {"version": version("penstock"), "application": self._application}
        yield InfoMetricFamily("penstock", "The service.", value=about)
        yield GaugeMetricFamily("penstock_live", "1 while the loop turns.", value=not watch.is_blocked)
        yield GaugeMetricFamily(
            "penstock_ready",
            "1 while every queue is consumed, a worker is booted and the database answers.",
            value=not seen.why_not_ready,
        )
        if seen.has_database:
            yield GaugeMetricFamily(
                "penstock_database_answers",
                "1 while the database answers the reactor's own question.",
                value=seen.why_no_database is None,
            )
        yield GaugeMetricFamily(
            "penstock_loop_lag_now_seconds", "How late the loop is at this moment.", value=watch.lag_s()
        )
        yield _histogram(
            "penstock_loop_lag_seconds", "How late the loop was, ten times a second.", watch.lags
        )
        yield CounterMetricFamily(
            "penstock_loop_blocked", "How often the loop stood longer than it may.", value=watch.times_blocked
        )
        yield GaugeMetricFamily(
            "penstock_figures_timestamp_seconds",
            "When the loop last answered; the metrics below are as they were then.",
            value=seen.at_unix_s,
        )


def _of_handlers(handlers: Iterable[HandlerFigures]) -> Iterator[Metric]:
    handlers = list(handlers)
    labels = [(one.queue, one.handler) for one in handlers]
    for name, words, count in _COUNTERS:
        counter = CounterMetricFamily(name, words, labels=_BY_HANDLER)
        for label, one in zip(labels, handlers, strict=True):
            counter.add_metric(label, count(one.tally))
        yield counter
    for name, words, by, found, counts in _BY_WORD:
        counter = CounterMetricFamily(name, words, labels=(*_BY_HANDLER, by))
        for label, one in zip(labels, handlers, strict=True):
            counted = counts(one.tally)
            for word in found:
                # From the start, at 0: of a series that begins with its first event, no increase is seen.
                counter.add_metric((*label, word), counted.get(word, 0))
        yield counter
    for name, words, value in _GAUGES:
        gauge = GaugeMetricFamily(name, words, labels=_BY_HANDLER)
        for label, one in zip(labels, handlers, strict=True):
            gauge.add_metric(label, value(one))
        yield gauge
    for name, words, find in _HISTOGRAMS:
        family = HistogramMetricFamily(name, words, labels=_BY_HANDLER)
        for label, one in zip(labels, handlers, strict=True):
            family.add_metric(label, *_buckets(find(one.tally)))
        yield family


def _of_service(figures: Figures) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "penstock_bus_connected", "1 while the bus can be used.", value=figures.is_connected
    )
    yield GaugeMetricFamily("penstock_waiting", "Deliveries that wait for a slot.", value=figures.waiting)
    slots = GaugeMetricFamily("penstock_slots", "Slots by what they are doing.", labels=("phase",))
    for phase in dict.fromkeys((*PHASES, *figures.slots)):
        slots.add_metric((phase,), figures.slots.get(phase, 0))
    yield slots
    yield CounterMetricFamily(
        "penstock_worker_deaths",
        "Workers that died unasked, killed ones included.",
        value=figures.worker_deaths,
    )
    calls = CounterMetricFamily(
        "penstock_channel_calls", "Calls of handlers over channels.", labels=("channel", "method")
    )
    for kind, number in sorted(figures.calls.items()):
        calls.add_metric(kind, number)
    yield calls
    yield _histogram(
        "penstock_group_commit_statements",
        "Statements in one commit of the database channel's writer, transactions aside.",
        _sizes(figures.group_commits),
    )


def _of_bus(bus: BusStatistics) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "penstock_publishing_blocked",
        "1 while the bus takes no messages: a memory or disk alarm of the broker, no space for the embedded bus.",
        value=bus.publishing_waits is not None,
    )
    yield CounterMetricFamily(
        "penstock_publishing_alarms", "How often the bus stopped taking messages.", value=bus.alarms
    )
    reconnects = CounterMetricFamily(
        "penstock_reconnects", "How often a connection to the broker came back.", labels=("connection",)
    )
    for connection, number in bus.reconnects.items():
        reconnects.add_metric((connection,), number)
    yield reconnects
    yield CounterMetricFamily(
        "penstock_consumers_restarted",
        "Consumers that the broker dropped while the connection stood, and that were started again.",
        value=bus.consumers_restarted,
    )
    yield GaugeMetricFamily(
        "penstock_acks_waiting", "Acks that were asked for and have not left.", value=bus.acks_waiting
    )
    yield _histogram(
        "penstock_bus_group_commit_requests",
        "Publishes and rounds of acks and claims in one commit of the embedded bus.",
        _sizes(bus.group_commits),
    )


def _sizes(commits: Mapping[int, int]) -> Histogram:
    histogram = Histogram(GROUP_SIZES)
    for size, number in commits.items():
        place = next((n for n, bound in enumerate(GROUP_SIZES) if size <= bound), len(GROUP_SIZES))
        histogram.counts[place] += number
        histogram.total += size * number
    return histogram


def _histogram(name: str, words: str, histogram: Histogram) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, words)
    family.add_metric((), *_buckets(histogram.copy()))
    return family


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        buckets.append((_GO_FLOAT(bound), total))
    return buckets, histogram.total
