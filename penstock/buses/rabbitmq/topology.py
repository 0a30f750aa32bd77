"""What is declared on the broker, from the handler's declaration alone; and what differs there, in words.

The broker's version changes nothing here: arguments that depended on it would be a 406 after an upgrade.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from penstock.app.queues import QueueDeclaration
from penstock.buses.rabbitmq.broken import BROKEN, broken_is_an_error
from penstock.errors import BusUnavailable, TopologyMismatch

#: AMQP channels that declare side by side; one declares a quorum queue in some milliseconds.
PARALLEL: Final = 8
#: RabbitMQ 3.10 accepts -1 and then drops a message at its first requeue; 4.x defaults to 20.
DELIVERY_LIMIT: Final = 1_000_000
_INEQUIVALENT: Final = re.compile(
    r"inequivalent arg '([^']+)' for queue '(.*)' in vhost '.*': received (.+?) but current is (.+)$"
)
_VALUE: Final = re.compile(r"the value '(.*)' of type '\w+'")


def work_arguments(queue: QueueDeclaration) -> dict[str, Any]:
    """Arguments of a work queue. Only accidents dead-letter through the broker: we publish our dead letters ourselves."""
    arguments: dict[str, Any] = {
        "x-queue-type": queue.type,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue.dead_name,
    }
    if queue.type == "quorum":
        arguments["x-delivery-limit"] = DELIVERY_LIMIT
        arguments["x-dead-letter-strategy"] = "at-least-once"
        arguments["x-overflow"] = "reject-publish"
    elif queue.max_priority is not None:
        arguments["x-max-priority"] = queue.max_priority
    return arguments


def dead_arguments() -> dict[str, Any]:
    """Arguments of a dead-letter queue."""
    return {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}


def delay_name(level_ms: int) -> str:
    """Name of the fanout exchange and of the queue behind it for one delay."""
    return f"penstock.delay.{level_ms}"


def delay_arguments(level_ms: int) -> dict[str, Any]:
    """Arguments of a delay queue: quorum and at-least-once, whatever the work queue is.

    Killing the broker while messages expired lost up to 90 % of them with classic delay queues, none with these.
    """
    return {
        "x-queue-type": "quorum",
        "x-message-ttl": level_ms,
        "x-dead-letter-exchange": "",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def difference(queue: QueueDeclaration, text: str) -> str:
    """The broker's refusal as a line for a person: queue, argument, both values, what to write instead."""
    found = _INEQUIVALENT.search(text)
    if found is None:
        return f"queue {queue.name!r}: the broker refuses the declaration: {text}; write declare=False to use it as it is"
    argument, name, declared, exists = found.groups()
    advice = "declare=False"
    if argument == "x-queue-type" and name == queue.name and "classic" in _plain(exists):
        advice = "declare=False, or type='classic'"
    return (
        f"queue {name!r}: argument {argument!r} is {_plain(exists)} on the broker, the handler declares {_plain(declared)}; "
        f"to use it as it is write @app.handler({queue.name!r}, {advice})"
    )


def missing(queue: QueueDeclaration) -> str:
    """The line for a queue that `declare=False` expects and that is not there."""
    commands = " && ".join(declaration_commands(queue))
    return f"queue {queue.name!r} does not exist and its handler says declare=False; create it: {commands}"


def declaration_commands(queue: QueueDeclaration) -> list[str]:
    """Shell commands that create what a handler with `declare=False` expects."""
    commands = [
        f'rabbitmqadmin declare queue name={queue.name} durable=true arguments=\'{{"x-queue-type": "{queue.type}"}}\''
    ]
    for binding in queue.bindings:
        commands.append(
            f"rabbitmqadmin declare exchange name={binding.exchange} type={binding.type} durable=true"
        )
        commands.append(
            f"rabbitmqadmin declare binding source={binding.exchange} destination={queue.name} routing_key='{binding.key}'"
        )
    return commands


def required_permissions(queues: Sequence[QueueDeclaration]) -> dict[str, str]:
    """Regular expressions for `rabbitmqctl set_permissions`: configure, write and read."""
    names = sorted({re.escape(queue.name) for queue in queues})
    own = "|".join([*(f"{name}(\\.dead)?" for name in names), "penstock\\.delay\\.[0-9]+"])
    exchanges = sorted({re.escape(b.exchange) for queue in queues for b in queue.bindings})
    everything = "|".join([own, *exchanges])
    return {
        "configure": f"^({everything})$",
        "write": f"^({everything}|amq\\.default)$",
        "read": f"^({everything})$",
    }


async def declare_all(connection: AbstractConnection, queues: Sequence[QueueDeclaration]) -> None:
    """Declare work queues, dead-letter queues, exchanges and bindings, several side by side.

    Raises `TopologyMismatch` with every queue that differs or is missing; `BusUnavailable` when the login may not.
    """
    waiting = list(reversed(queues))
    differences: dict[str, str] = {}

    async def some() -> None:
        control = Control(connection)
        try:
            while waiting:
                queue = waiting.pop()
                found = await declare_one(control, queue)
                if found is not None:
                    differences[queue.name] = found
        finally:
            await control.aclose()

    await asyncio.gather(*(some() for _ in range(min(PARALLEL, len(queues)))))
    if differences:
        raise TopologyMismatch([differences[queue.name] for queue in queues if queue.name in differences])


async def declare_one(control: Control, queue: QueueDeclaration) -> str | None:
    """Declare one queue and what belongs to it; returns the line that says what differs."""
    try:
        channel = await control.channel()
        # First: the work queue names it as the place for accidents.
        await channel.queue_declare(queue.dead_name, durable=True, arguments=dead_arguments())
        if not queue.declare:
            await channel.queue_declare(queue.name, passive=True)
            return None
        await channel.queue_declare(queue.name, durable=True, arguments=work_arguments(queue))
        for binding in queue.bindings:
            if binding.declare:
                await channel.exchange_declare(binding.exchange, exchange_type=binding.type, durable=True)
            await channel.queue_bind(queue.name, binding.exchange, binding.key)
    except (ChannelPreconditionFailed, ChannelLockedResource) as error:
        return difference(queue, str(error))
    except ChannelNotFoundEntity as error:
        return missing(queue) if not queue.declare else f"queue {queue.name!r}: {error}"
    except ChannelAccessRefused as error:
        msg = (
            f"the login may not declare queue {queue.name!r}: {error}; `penstock check` lists the permissions"
        )
        raise BusUnavailable(msg) from error
    return None


class Counts(NamedTuple):
    """A queue as the broker sees it."""

    ready: int
    """Messages that wait."""
    consumers: int
    """Whoever they belong to."""


class Control:
    """An AMQP channel for questions and declarations; a refusal closes it, so it is opened again when needed."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._channel: AbstractChannel | None = None

    async def channel(self) -> AbstractChannel:
        """An open AMQP channel, never the one that consumes or publishes."""
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._connection.channel(publisher_confirms=False)
        return self._channel

    async def counts(self, queue: str) -> Counts | None:
        """What the broker counts on a queue; None when it does not exist."""
        try:
            answer = await (await self.channel()).queue_declare(queue, passive=True)
        except ChannelNotFoundEntity:
            return None
        return Counts(answer.message_count or 0, answer.consumer_count or 0)

    async def depth(self, queue: str) -> int | None:
        """Messages that are ready in a queue; None when it does not exist."""
        counts = await self.counts(queue)
        return None if counts is None else counts.ready

    async def has_exchange(self, name: str) -> bool:
        """True when the exchange exists."""
        try:
            await (await self.channel()).exchange_declare(name, passive=True)
        except ChannelNotFoundEntity:
            return False
        return True

    async def declare_delay(self, level_ms: int) -> None:
        """Declare the exchange and the queue of one delay."""
        channel = await self.channel()
        name = delay_name(level_ms)
        await channel.exchange_declare(name, exchange_type="fanout", durable=True)
        await channel.queue_declare(name, durable=True, arguments=delay_arguments(level_ms))
        await channel.queue_bind(name, name, "")

    async def aclose(self) -> None:
        """Close it; harmless when repeated, or when the connection is gone."""
        channel, self._channel = self._channel, None
        if channel is not None and not channel.is_closed:
            # It may have gone with its connection.
            with contextlib.suppress(*BROKEN), broken_is_an_error():
                await channel.close()


def _plain(value: str) -> str:
    found = _VALUE.fullmatch(value.strip())
    return repr(found[1]) if found else value.strip()
