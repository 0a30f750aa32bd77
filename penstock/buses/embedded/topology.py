"""Queues, exchanges and bindings in the file: declaring, comparing, and finding where a message goes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from penstock.app.queues import Binding, QueueDeclaration
from penstock.buses.embedded.routing import KNOWN_TYPES, goes_to
from penstock.errors import TopologyMismatch, Unroutable


def declare(connection: sqlite3.Connection, queues: Sequence[QueueDeclaration]) -> None:
    """Declare them with their dead-letter queues and bindings; the caller's transaction ends it or undoes it.

    Raises `TopologyMismatch` with a line for everything that exists otherwise or is missing.
    """
    differences: list[str] = []
    for queue in queues:
        if queue.declare:
            differences += _declare_queue(connection, queue)
        else:
            differences += _missing(connection, queue)
    if differences:
        raise TopologyMismatch(differences)


def find_queue(connection: sqlite3.Connection, name: str) -> tuple[int, int] | None:
    """A queue's id and highest priority (0: it has none), or None when it was never declared."""
    row = connection.execute(
        "SELECT id, coalesce(max_priority, 0) FROM queues WHERE name = ?", (name,)
    ).fetchone()
    return None if row is None else (row[0], row[1])


def find_destinations(
    connection: sqlite3.Connection, exchange: str, routing_key: str
) -> list[tuple[int, int]]:
    """Ids and highest priorities of the queues that a publish reaches, each once.

    Raises `Unroutable` in words when there are none.
    """
    if not exchange:
        found = find_queue(connection, routing_key)
        if found is None:
            raise Unroutable(
                f"there is no queue {routing_key!r} on this bus, so the message is in nobody's queue; start the "
                "service whose handler declares it, or look for a typing error in the name"
            )
        return [found]
    row = connection.execute("SELECT type FROM exchanges WHERE name = ?", (exchange,)).fetchone()
    if row is None:
        raise Unroutable(
            f"there is no exchange {exchange!r} on this bus, so the message is in nobody's queue; start the service "
            "whose handler binds to it, or look for a typing error in the name"
        )
    bound = connection.execute(
        "SELECT b.key, q.id, coalesce(q.max_priority, 0) FROM bindings b JOIN queues q ON q.id = b.queue_id "
        "WHERE b.exchange = ? ORDER BY q.id",
        (exchange,),
    )
    reached = {queue_id: top for key, queue_id, top in bound if goes_to(row[0], key, routing_key)}
    if not reached:
        raise Unroutable(
            f"no queue is bound to exchange {exchange!r} for routing key {routing_key!r}, so the message is in "
            "nobody's queue; start the service whose handler binds it, or look for a typing error in the key"
        )
    return list(reached.items())


def _declare_queue(connection: sqlite3.Connection, queue: QueueDeclaration) -> list[str]:
    connection.execute(
        "INSERT OR IGNORE INTO queues (name, max_priority) VALUES (?, ?)", (queue.name, queue.max_priority)
    )
    connection.execute("INSERT OR IGNORE INTO queues (name) VALUES (?)", (queue.dead_name,))
    queue_id, there = connection.execute(
        "SELECT id, max_priority FROM queues WHERE name = ?", (queue.name,)
    ).fetchone()
    differences = []
    if there != queue.max_priority:
        written = (
            "leave max_priority out"
            if there is None
            else f'write type="classic", max_priority={there} in the handler'
        )
        differences.append(
            f"queue {queue.name!r}: max_priority is {there} on the bus, {queue.max_priority} in its handler; to use "
            f"it as it is, {written}"
        )
    bound = (_bind(connection, queue.name, queue_id, binding) for binding in queue.bindings)
    return differences + [difference for difference in bound if difference is not None]


def _bind(connection: sqlite3.Connection, queue: str, queue_id: int, binding: Binding) -> str | None:
    name = binding.exchange
    if binding.type not in KNOWN_TYPES:
        return (
            f"queue {queue!r}: it binds to exchange {name!r} of type {binding.type!r}, which the embedded bus does "
            'not have; write type="topic", "direct" or "fanout", or use RabbitMQ'
        )
    if binding.declare:
        connection.execute("INSERT OR IGNORE INTO exchanges (name, type) VALUES (?, ?)", (name, binding.type))
    row = connection.execute("SELECT type FROM exchanges WHERE name = ?", (name,)).fetchone()
    if row is None:
        return (
            f"queue {queue!r}: exchange {name!r} does not exist and its binding says declare=False; have its owner "
            "declare it first, or leave declare=False out"
        )
    if row[0] != binding.type and binding.declare:
        return (
            f"queue {queue!r}: exchange {name!r} is of type {row[0]!r} on the bus, {binding.type!r} in the binding; "
            f'to use it as it is, write Binding({name!r}, {binding.key!r}, type="{row[0]}")'
        )
    connection.execute(
        "INSERT OR IGNORE INTO bindings (exchange, key, queue_id) VALUES (?, ?, ?)",
        (name, binding.key, queue_id),
    )
    return None


def _missing(connection: sqlite3.Connection, queue: QueueDeclaration) -> list[str]:
    return [
        f"queue {name!r} does not exist on the bus and its handler says declare=False; leave declare=False out, or "
        "have its owner declare it first"
        for name in (queue.name, queue.dead_name)
        if find_queue(connection, name) is None
    ]
