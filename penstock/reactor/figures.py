"""A moment of everything that the service counts, copied on the loop so that its numbers agree with each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.buses.contract import Bus, BusStatistics
from penstock.channels.db.service import DatabaseService
from penstock.reactor.calls import Calls
from penstock.reactor.dispatch import Dispatcher
from penstock.reactor.pool import Pool
from penstock.reactor.slots import Slot
from penstock.reactor.tally import Tally
from penstock.reactor.work import Served


@dataclass(frozen=True, slots=True)
class HandlerFigures:
    """One handler's."""

    queue: str
    handler: str
    tally: Tally
    prefetch: int
    """In force now."""
    is_consuming: bool
    """The bus has confirmed its queue's consumer."""


@dataclass(frozen=True, slots=True)
class Figures:
    """All handlers', and the service's own."""

    handlers: Sequence[HandlerFigures]
    waiting: int
    """Deliveries that wait for a slot."""
    slots: Mapping[str, int]
    """How many are in which phase."""
    worker_deaths: int
    calls: Mapping[tuple[str, str], int]
    """By channel and method."""
    group_commits: Mapping[int, int]
    """Commits of the database channel's writer, by the number of statements in them."""
    is_connected: bool
    """The bus."""
    bus: BusStatistics


def figures_of(
    served: Iterable[Served],
    *,
    bus: Bus,
    dispatcher: Dispatcher,
    pool: Pool,
    calls: Calls,
    database: DatabaseService,
) -> Figures:
    """Copy them; about 2 µs a handler. Called on the loop."""
    consuming = bus.consuming()
    writer = database.statistics()
    return Figures(
        handlers=[
            HandlerFigures(
                one.handler.queue.name,
                one.handler.name,
                one.tally.copy(),
                one.allowed,
                one.handler.queue.name in consuming,
            )
            for one in served
        ],
        waiting=len(dispatcher),
        slots=Counter(phase_of(slot) for slot in pool.slots),
        worker_deaths=pool.deaths,
        calls=dict(calls.counts),
        group_commits={} if writer is None else writer.group_commits,
        is_connected=bus.is_connected,
        bus=bus.statistics(),
    )


def phase_of(slot: Slot) -> str:
    """What a slot is doing, in the flight recorder's words while it is busy and in those of its life otherwise."""
    if slot.state.value != "busy":
        return slot.state.value
    return slot.reading()[0].phase.words
