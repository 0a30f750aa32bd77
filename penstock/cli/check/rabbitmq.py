"""Ask a RabbitMQ broker what is there, without declaring anything.

A queue is asked for passively first. One that exists is then declared as its handler would: for a queue that exists
this compares the arguments, and that is the only way in which AMQP tells them.
"""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Final

from aiormq.abc import AbstractConnection
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource, ChannelPreconditionFailed

from penstock.app.queues import Binding, QueueDeclaration
from penstock.buses.rabbitmq.connection import Supervised, address
from penstock.buses.rabbitmq.topology import (
    Control,
    dead_arguments,
    declaration_commands,
    difference,
    missing,
    required_permissions,
    work_arguments,
)
from penstock.cli.check.findings import BusFindings, Problem
from penstock.cli.exits import Exit
from penstock.config.bus import BusSection

WILL_BE_CREATED: Final = "will be created"


async def look_at_broker(section: BusSection, queues: Sequence[QueueDeclaration]) -> BusFindings:
    """Connect, ask, close. Raises `BusUnavailable`, `ConfigurationError`."""
    url, _ = address(section)
    virtual_host = url.path[1:] or "/"
    permissions = required_permissions(queues)
    connection = Supervised("checking", section, Random(), _nothing)
    try:
        await connection.open()
        where = f"{_server(connection.underlay)} at {url.host}, virtual host {virtual_host!r}, user {connection.login!r}"
        findings = BusFindings(where, permissions=list(permissions.items()))
        arguments = [
            virtual_host,
            connection.login,
            *(permissions[kind] for kind in ("configure", "write", "read")),
        ]
        findings.commands.append(f"rabbitmqctl set_permissions -p {shlex.join(arguments)}")
        control = Control(connection.underlay)
        for queue in queues:
            await _look_at_queue(control, queue, findings)
        await control.aclose()
    finally:
        await connection.aclose()
    return findings


async def _look_at_queue(control: Control, queue: QueueDeclaration, findings: BusFindings) -> None:
    count = await control.depth(queue.name)
    if count is not None:
        findings.queues[queue.name] = f"exists, {count:,} waiting"
        if queue.declare:
            await _compare(control, queue, queue.name, findings)
    elif queue.declare:
        findings.queues[queue.name] = WILL_BE_CREATED
    else:
        findings.queues[queue.name] = "missing"
        findings.problems.append(Problem(missing(queue), Exit.TOPOLOGY))
        findings.creating += declaration_commands(queue)
    if await control.depth(queue.dead_name) is not None:
        await _compare(control, queue, queue.dead_name, findings)
    for binding in queue.bindings:
        await _look_at_exchange(control, queue, binding, findings)


async def _compare(control: Control, queue: QueueDeclaration, name: str, findings: BusFindings) -> None:
    arguments = work_arguments(queue) if name == queue.name else dead_arguments()

    async def declare() -> None:
        channel = await control.channel()
        await channel.queue_declare(name, durable=True, arguments=arguments)

    await _try(declare, queue, findings)


async def _look_at_exchange(
    control: Control, queue: QueueDeclaration, binding: Binding, findings: BusFindings
) -> None:
    if await control.has_exchange(binding.exchange):
        if binding.declare:

            async def declare() -> None:
                channel = await control.channel()
                await channel.exchange_declare(binding.exchange, exchange_type=binding.type, durable=True)

            await _try(declare, queue, findings)
    elif not binding.declare:
        words = f"queue {queue.name!r}: exchange {binding.exchange!r} does not exist and its binding says declare=False"
        findings.problems.append(Problem(words, Exit.TOPOLOGY))
        findings.creating.append(
            f"rabbitmqadmin declare exchange name={shlex.quote(binding.exchange)} type={binding.type} durable=true"
        )


async def _try(
    declare: Callable[[], Awaitable[None]], queue: QueueDeclaration, findings: BusFindings
) -> None:
    try:
        await declare()
    except (ChannelPreconditionFailed, ChannelLockedResource) as error:
        findings.queues[queue.name] = "differs"
        findings.problems.append(Problem(difference(queue, str(error)), Exit.TOPOLOGY))
    except ChannelAccessRefused as error:
        words = (
            f"queue {queue.name!r}: the login may not declare it: {error}; the permissions it needs are below"
        )
        findings.problems.append(Problem(words, Exit.BUS_UNAVAILABLE))


def _server(connection: AbstractConnection) -> str:
    properties = connection.server_properties or {}
    return f"{_text(properties.get('product')) or 'a broker'} {_text(properties.get('version'))}".strip()


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


async def _nothing(_connection: AbstractConnection) -> None:
    """There is nothing to set up on a connection that only asks."""
