"""Queues whose broker says nothing to a consumer, on a connection of their own.

A quorum queue without a leader (its nodes are down, or one was killed while the queue was made) lets a consumer wait for
65 s; then RabbitMQ closes the connection, and with it whatever else is consumed there. So these wait here, each on an
AMQP channel of its own, and begin as soon as they have a leader.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

import structlog
from aiormq.abc import AbstractConnection

from penstock.buses.contract import Sink, Subscription
from penstock.buses.rabbitmq.connection import CLOSE_S, Supervised
from penstock.buses.rabbitmq.consumers import Consumers
from penstock.config.bus import BusSection

#: A queue in trouble may take the connection down at once, again and again: that is not tried more often, or logged.
RECONNECT_CAP_S: Final = 10.0
#: The wait has grown to that after so many: here it is the queue that cuts the connection, and not the network.
MOST_SHORT_LIVED: Final = 7

_log = structlog.get_logger("penstock.buses.rabbitmq")


class Aside:
    """The connection for silent queues; opened with the first of them."""

    def __init__(self, section: BusSection, sink: Sink, random: Random) -> None:
        patient = section.model_copy(
            update={"reconnect_cap_s": max(section.reconnect_cap_s, RECONNECT_CAP_S)}
        )
        self._connection = Supervised(
            "consuming aside", patient, random, self._on_up, most_short_lived=MOST_SHORT_LIVED
        )
        self.consumers = Consumers([], sink, self._connection.login, random, watch_s=section.watch_s)
        self._starting: set[asyncio.Task[None]] = set()

    @property
    def is_up(self) -> bool:
        """True while its connection can be used; it is not opened before it is needed."""
        return self._connection.is_up

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and opened again."""
        return self._connection.reconnects

    def take_over(self, subscription: Subscription) -> None:
        """Wait for this queue, and consume it when it answers."""
        _log.error(
            "the broker does not let a queue be consumed: it is waited for on a connection of its own, the other queues "
            "go on; a quorum queue without a leader does so: start its nodes, or delete the queue",
            queue=subscription.queue.name,
        )
        self.consumers.add(subscription)
        if self.consumers.is_stopping:
            return
        if self._connection.is_up:
            self._start(self._connection.underlay)
        else:
            self._connection.open_soon()

    async def aclose(self) -> None:
        """Close the connection; harmless when repeated or never opened."""
        await self._connection.aclose()
        if self._starting:
            # What waited for an answer ends with its connection.
            await asyncio.wait(self._starting, timeout=CLOSE_S)

    async def _on_up(self, connection: AbstractConnection) -> None:
        self._start(connection)

    def _start(self, connection: AbstractConnection) -> None:
        # Not awaited: one that stays silent must not keep the connection from being watched.
        task = asyncio.create_task(
            self.consumers.start(connection, self._connection.wire), name="penstock-silent"
        )
        self._starting.add(task)
        task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The supervisor has been told of it by the connection's end, and starts us again.
            _log.debug("a silent queue's connection broke", error=f"{type(error).__name__}: {error}")
