"""Look into the embedded bus's file, if it is there; it is neither created nor changed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from penstock.app.queues import QueueDeclaration
from penstock.buses.embedded import store, topology
from penstock.buses.embedded.file import in_words, open_file, path_of
from penstock.buses.embedded.schema import APPLICATION_ID
from penstock.cli.check.findings import BusFindings, Problem
from penstock.cli.exits import Exit
from penstock.config.bus import BusSection
from penstock.errors import BusUnavailable, TopologyMismatch

WILL_BE_CREATED = "will be created"


def look_at_file(section: BusSection, queues: Sequence[QueueDeclaration]) -> BusFindings:
    """What is in the file. Raises `BusUnavailable` when it cannot be used, `ConfigurationError`."""
    path = path_of(section.url.get_secret_value())
    if not _is_ours(path):
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise BusUnavailable(
                f"the embedded bus's file {path} does not exist, and cannot be created in {path.parent}"
            )
        findings = BusFindings(f"embedded bus {path}, which does not exist yet; the first start creates it")
        for queue in queues:
            findings.queues[queue.name] = WILL_BE_CREATED if queue.declare else "missing"
            if not queue.declare:
                words = f"queue {queue.name!r} does not exist on the bus and its handler says declare=False"
                findings.problems.append(Problem(words, Exit.TOPOLOGY))
        return findings
    findings = BusFindings(f"embedded bus {path}")
    with closing(open_file(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for queue in queues:
                _look_at_queue(connection, queue, findings)
        finally:
            # Declared as the start would, for its words, and undone.
            connection.execute("ROLLBACK")
    return findings


def _look_at_queue(connection: sqlite3.Connection, queue: QueueDeclaration, findings: BusFindings) -> None:
    found = topology.find_queue(connection, queue.name)
    if found is not None:
        findings.queues[queue.name] = f"exists, {store.count_ready(connection, found[0]):,} waiting"
    else:
        findings.queues[queue.name] = WILL_BE_CREATED if queue.declare else "missing"
    try:
        topology.declare(connection, [queue])
    except TopologyMismatch as mismatch:
        if found is not None:
            findings.queues[queue.name] = "differs"
        findings.problems += [Problem(words, Exit.TOPOLOGY) for words in mismatch.differences]


def _is_ours(path: Path) -> bool:
    """False when there is no file, or an empty one; a file of somebody else's is told by opening it."""
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            (owner,) = connection.execute("PRAGMA application_id").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise in_words(error, path) from error
    return bool(owner == APPLICATION_ID or owner or tables)
