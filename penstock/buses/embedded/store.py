"""Messages in the file: every statement that adds, claims, settles, releases or counts them.

Functions on a connection inside the caller's transaction; none begins, commits or waits. A message is *ready*
(no lease, no due time), *delayed* (a due time), or *claimed* (a lease). Order within a queue is rank, then
position, then id: rank is the priority turned round, position the moment of arrival counted in ids.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

#: Delayed messages that become ready in one transaction.
PROMOTED_AT_ONCE: Final = 1000

#: (rank, position, id): where a message stands in its queue.
Place: TypeAlias = tuple[int, int, int]
BEFORE_ALL: Final[Place] = (-256, 0, 0)

_CLAIMABLE: Final = (
    "SELECT m.id, m.rank, m.position, m.redelivered, m.delivery_count, c.message_id, c.content_type, "
    "c.content_encoding, c.headers, c.correlation_id, c.reply_to, c.type, c.priority, c.published_at_s, "
    "c.attempts, c.crashes, c.first_failed_at_s, c.body "
    "FROM messages m JOIN contents c ON c.message = m.id "
    "WHERE m.queue_id = ? AND m.lease_id IS NULL AND m.due_ms IS NULL {after}"
    "ORDER BY m.rank, m.position, m.id LIMIT ?"
)
_FROM_THE_HEAD: Final = _CLAIMABLE.format(after="")
_FROM_A_PLACE: Final = _CLAIMABLE.format(after="AND (m.rank, m.position, m.id) > (?, ?, ?) ")


class NewMessage(NamedTuple):
    """A row of `messages` before it has an id."""

    queue_id: int
    priority: int
    """Already capped by the queue's highest."""
    due_ms: int | None


class Content(NamedTuple):
    """A row of `contents`, in the order of its columns."""

    message_id: str | None
    content_type: str | None
    content_encoding: str | None
    headers: bytes | None
    """msgpack, None when there are none."""
    correlation_id: str | None
    reply_to: str | None
    type: str | None
    priority: int | None
    published_at_s: float
    attempts: int
    crashes: int
    first_failed_at_s: float
    body: bytes


class Claimed(NamedTuple):
    """A message just claimed, in the order of the query's columns."""

    id: int
    rank: int
    position: int
    redelivered: int
    delivery_count: int
    message_id: str | None
    content_type: str | None
    content_encoding: str | None
    headers: bytes | None
    correlation_id: str | None
    reply_to: str | None
    type: str | None
    priority: int | None
    published_at_s: float
    attempts: int
    crashes: int
    first_failed_at_s: float
    body: bytes

    @property
    def place(self) -> Place:
        """Where it stands in its queue."""
        return self.rank, self.position, self.id


def append(connection: sqlite3.Connection, messages: Sequence[tuple[NewMessage, Content]]) -> None:
    """Put messages into their queues, in order."""
    (first,) = connection.execute("SELECT next_message FROM counter").fetchone()
    connection.execute("UPDATE counter SET next_message = ?", (first + len(messages),))
    connection.executemany(
        "INSERT INTO messages (id, queue_id, rank, position, due_ms) VALUES (?, ?, ?, ?, ?)",
        (
            (message, new.queue_id, -new.priority, message, new.due_ms)
            for message, (new, _) in enumerate(messages, first)
        ),
    )
    connection.executemany(
        "INSERT INTO contents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ((message, *content) for message, (_, content) in enumerate(messages, first)),
    )


def claim(
    connection: sqlite3.Connection, lease_id: int, queue_id: int, limit: int, after: Place | None = None
) -> list[Claimed]:
    """Give up to `limit` ready messages of a queue to a lease, first ones first; only those behind `after`."""
    if after is None:
        rows = connection.execute(_FROM_THE_HEAD, (queue_id, limit))
    else:
        rows = connection.execute(_FROM_A_PLACE, (queue_id, *after, limit))
    claimed = [Claimed._make(row) for row in rows]
    connection.executemany(
        "UPDATE messages SET lease_id = ? WHERE id = ?", ((lease_id, message.id) for message in claimed)
    )
    return claimed


def ack(connection: sqlite3.Connection, lease_id: int, messages: Collection[int]) -> int:
    """Forget messages that this lease has claimed; returns how many those were."""
    # Their contents go with them (ON DELETE CASCADE).
    return connection.executemany(
        "DELETE FROM messages WHERE id = ? AND lease_id = ?", ((message, lease_id) for message in messages)
    ).rowcount


def requeue(
    connection: sqlite3.Connection, lease_id: int, messages: Iterable[int], *, delivered: bool
) -> set[int]:
    """Give claimed messages back to their old places; `delivered`: somebody saw them. Returns their queues."""
    queues: set[int] = set()
    for message in messages:
        row = connection.execute(
            "SELECT queue_id FROM messages WHERE id = ? AND lease_id = ?", (message, lease_id)
        ).fetchone()
        if row is not None:
            queues.add(row[0])
            connection.execute(
                "UPDATE messages SET lease_id = NULL, redelivered = redelivered OR ? WHERE id = ?",
                (delivered, message),
            )
    return queues


def release(connection: sqlite3.Connection, lease_id: int, *, counted: bool) -> set[int]:
    """Give back everything that a lease has claimed; `counted` as one more delivery. Returns the queues."""
    queues = {
        queue_id
        for (queue_id,) in connection.execute(
            "SELECT DISTINCT queue_id FROM messages WHERE lease_id = ?", (lease_id,)
        )
    }
    connection.execute(
        "UPDATE messages SET lease_id = NULL, redelivered = 1, delivery_count = delivery_count + ? "
        "WHERE lease_id = ?",
        (counted, lease_id),
    )
    return queues


def claimed_by(connection: sqlite3.Connection, lease_id: int) -> set[int]:
    """Messages that a lease has claimed."""
    rows = connection.execute("SELECT id FROM messages WHERE lease_id = ?", (lease_id,))
    return {message for (message,) in rows}


def promote(connection: sqlite3.Connection, now_ms: int) -> set[int]:
    """Make delayed messages ready that are due, earliest first; returns their queues.

    They join their queues at the end, as if published now.
    """
    due = connection.execute(
        "SELECT id, queue_id FROM messages WHERE due_ms <= ? ORDER BY due_ms, id LIMIT ?",
        (now_ms, PROMOTED_AT_ONCE),
    ).fetchall()
    if not due:
        return set()
    (first,) = connection.execute("SELECT next_message FROM counter").fetchone()
    connection.execute("UPDATE counter SET next_message = ?", (first + len(due),))
    connection.executemany(
        "UPDATE messages SET due_ms = NULL, position = ? WHERE id = ?",
        ((position, message) for position, (message, _) in enumerate(due, first)),
    )
    return {queue_id for _, queue_id in due}


def next_due_ms(connection: sqlite3.Connection) -> int | None:
    """Bus time at which the next delayed message is due."""
    row = connection.execute("SELECT min(due_ms) FROM messages WHERE due_ms IS NOT NULL").fetchone()
    due_ms: int | None = row[0]
    return due_ms


def count_ready(connection: sqlite3.Connection, queue_id: int) -> int:
    """Messages of a queue that wait for a claim."""
    (count,) = connection.execute(
        "SELECT count(*) FROM messages WHERE queue_id = ? AND lease_id IS NULL AND due_ms IS NULL",
        (queue_id,),
    ).fetchone()
    return int(count)
