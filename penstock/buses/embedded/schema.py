"""The tables of the embedded bus's file, and the two numbers in its header that say whose file it is.

A message is two rows. `messages` is narrow and changes with every claim; `contents` is written once, so that
claiming a message of 16 MiB does not write 16 MiB. A claim is `messages.lease_id`: whoever settles names it.
"""

from __future__ import annotations

from typing import Final

#: "PENS" in SQLite's header: the file is a bus of ours.
APPLICATION_ID: Final = 0x50454E53
#: Counts up with every change of the tables.
VERSION: Final = 1

TABLES: Final = (
    # One row: ids are ours to give out, because SQLite would use those of settled messages again, and an ack
    # that is repeated after an unknown end of its transaction would then settle another message.
    """CREATE TABLE counter (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        next_message INTEGER NOT NULL
    )""",
    "INSERT INTO counter VALUES (1, 1)",
    """CREATE TABLE clocks (
        boot TEXT NOT NULL,
        namespace TEXT NOT NULL,
        offset_ms INTEGER NOT NULL,
        seen_ms INTEGER NOT NULL,
        PRIMARY KEY (boot, namespace)
    ) WITHOUT ROWID""",
    """CREATE TABLE queues (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        max_priority INTEGER
    )""",
    """CREATE TABLE exchanges (
        name TEXT PRIMARY KEY,
        type TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE bindings (
        exchange TEXT NOT NULL REFERENCES exchanges (name),
        key TEXT NOT NULL,
        queue_id INTEGER NOT NULL REFERENCES queues (id),
        PRIMARY KEY (exchange, key, queue_id)
    ) WITHOUT ROWID""",
    # AUTOINCREMENT: the id is the fencing token of every delivery claimed under it, so none comes twice.
    """CREATE TABLE leases (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        pid INTEGER NOT NULL,
        pipe TEXT,
        length_s REAL NOT NULL,
        renewals INTEGER NOT NULL DEFAULT 0
    )""",
    """CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        queue_id INTEGER NOT NULL REFERENCES queues (id),
        rank INTEGER NOT NULL,
        position INTEGER NOT NULL,
        due_ms INTEGER,
        lease_id INTEGER REFERENCES leases (id),
        redelivered INTEGER NOT NULL DEFAULT 0,
        delivery_count INTEGER NOT NULL DEFAULT 0
    )""",
    """CREATE INDEX messages_ready ON messages (queue_id, rank, position, id)
        WHERE lease_id IS NULL AND due_ms IS NULL""",
    "CREATE INDEX messages_due ON messages (due_ms) WHERE due_ms IS NOT NULL",
    "CREATE INDEX messages_claimed ON messages (lease_id) WHERE lease_id IS NOT NULL",
    """CREATE TABLE contents (
        message INTEGER PRIMARY KEY REFERENCES messages (id) ON DELETE CASCADE,
        message_id TEXT,
        content_type TEXT,
        content_encoding TEXT,
        headers BLOB,
        correlation_id TEXT,
        reply_to TEXT,
        type TEXT,
        priority INTEGER,
        published_at_s REAL NOT NULL,
        attempts INTEGER NOT NULL,
        crashes INTEGER NOT NULL,
        first_failed_at_s REAL NOT NULL,
        body BLOB NOT NULL
    )""",
)
