"""Group commit: many callers' statements in one transaction, each as if it had been alone.

When one of them fails, all are undone and run once more with a savepoint each, which undoes what failed; nobody has an
answer before the COMMIT. Where that would not be the same as each alone, each has its own transaction: when a statement
took the whole transaction with it (`INSERT OR ROLLBACK`, a trigger's RAISE(ROLLBACK)), when COMMIT fails, when a
statement changes the schema, and when the schema has deferred foreign keys: there one caller's violation could be healed
by the next one's row.

Everything here runs on the writer's thread and waits for nothing but the disk, and for another process's lock
for `opening.SLICE_S`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from penstock.channels.db.calls import Ran, Run, Want
from penstock.channels.db.rows import Rows, pack
from penstock.channels.db.sqlite.faults import is_broken, is_locked, translated
from penstock.channels.db.sqlite.opening import GuardedConnection
from penstock.channels.db.sqlite.stepping import run_whole
from penstock.channels.db.statements import is_grouped, may_write
from penstock.errors import DatabaseError

#: A group is committed after so long, whatever waits behind: the first of it have waited for the last.
BUDGET_S: Final = 0.05

#: How a statement ended: rows changed, rows read, what a cursor knows, or why it failed.
Outcome: TypeAlias = int | Rows | Ran | DatabaseError


class Statement(NamedTuple):
    """One caller's statement."""

    text: str
    parameters: Any
    want: Want
    asked: Run | None = None
    """As a cursor wants it run, when `want` is that."""

    @property
    def is_many(self) -> bool:
        """True when the parameters are a list of rows, each to be run: a stored value is neither list nor mapping."""
        return isinstance(self.parameters, list) and isinstance(
            next(iter(self.parameters), None), list | dict
        )


@dataclass(slots=True)
class Progress:
    """Which statement of the group is running; written by the writer's thread, read by the loop for its words."""

    index: int = 0
    since_s: float = field(default_factory=time.monotonic)

    def reach(self, index: int) -> None:
        """The statement at `index` begins."""
        self.index = index
        self.since_s = time.monotonic()


@dataclass(frozen=True, slots=True)
class Finished:
    """How a run over a group ended."""

    outcomes: list[Outcome | None]
    """One a statement, in order; None: not run, because the time was up, the file locked or replaced, or the disk failed."""
    commits: int = 0
    is_locked: bool = False
    """Another process holds the file."""
    is_broken: bool = False
    """The connection must be opened anew."""


def run_group(
    connection: GuardedConnection,
    statements: Sequence[Statement],
    *,
    limit_bytes: int,
    progress: Progress,
    budget_s: float = BUDGET_S,
) -> Finished:
    """Run statements from the front, each as if alone, in as few commits as that allows.

    Never raises for a statement; `budget_s` after the first began, no further one is. Each further way of running them has
    as long again: with what the first one left, each failure would cost the whole of it, for one statement.
    """
    each_alone = partial(
        _run_each_alone, connection, statements, limit_bytes=limit_bytes, progress=progress, budget_s=budget_s
    )
    if len(statements) == 1 or not all(is_grouped(statement.text) for statement in statements):
        return each_alone(count=len(statements))
    ran = 0
    for way in (_run, run_in_savepoint):
        ended = _run_together(
            connection, statements, way, limit_bytes=limit_bytes, progress=progress, budget_s=budget_s
        )
        if isinstance(ended, Finished):
            return ended
        ran = ended
    # What took the transaction with it took what all before it did; those behind it have not begun.
    return each_alone(count=ran)


def _run_together(
    connection: GuardedConnection,
    statements: Sequence[Statement],
    way: Callable[[GuardedConnection, Statement, int], Outcome],
    *,
    limit_bytes: int,
    progress: Progress,
    budget_s: float,
) -> Finished | int:
    """Run statements in one transaction; when that leaves nothing behind, how many must be run in another way."""
    until_s = time.monotonic() + budget_s
    if not begin(connection):
        return Finished([None] * len(statements), is_locked=True)
    outcomes: list[Outcome | None] = []
    ran = 0
    try:
        if _has_deferred_keys(connection):
            roll_back(connection)
            return len(statements)
        for ran, statement in enumerate(statements, start=1):
            progress.reach(ran - 1)
            outcomes.append(way(connection, statement, limit_bytes))
            if not connection.in_transaction or time.monotonic() > until_s:
                break
        if connection.in_transaction:
            return _commit(connection, outcomes + [None] * (len(statements) - ran))
    except Exception as error:  # noqa: BLE001 - a statement's fault is its caller's answer, found once more the other way
        roll_back(connection)
        if is_broken(error):
            # At the COMMIT it is everybody's fault, before it that of the statement which met it.
            first = 0 if len(outcomes) == ran else ran - 1
            failed: list[Outcome | None] = [None] * len(statements)
            failed[first:ran] = [translated(error, statement.text) for statement in statements[first:ran]]
            return Finished(failed, is_broken=True)
    return max(ran, 1)


def run_in_savepoint(connection: GuardedConnection, statement: Statement, limit_bytes: int) -> Outcome:
    """Run a statement inside the open transaction; what fails leaves nothing behind.

    It may have taken the transaction with it: see `in_transaction`. Raises `sqlite3.Error` when the transaction
    cannot go on.
    """
    connection.control("SAVEPOINT penstock")
    outcome: Outcome
    try:
        outcome = _run(connection, statement, limit_bytes)
    except Exception as error:
        if is_broken(error):
            raise
        if connection.in_transaction:
            connection.control("ROLLBACK TO penstock")
        outcome = translated(error, statement.text)
    if connection.in_transaction:
        connection.control("RELEASE penstock")
    return outcome


def begin(connection: GuardedConnection) -> bool:
    """Begin a transaction that may write; False when another process holds the file."""
    try:
        connection.control("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if is_locked(error):
            return False
        raise
    return True


def roll_back(connection: GuardedConnection) -> None:
    """End the transaction without a trace; harmless when there is none."""
    if connection.in_transaction:
        connection.control("ROLLBACK")


def _commit(connection: GuardedConnection, outcomes: list[Outcome | None]) -> Finished:
    if connection.is_replaced:
        return Finished([None] * len(outcomes), is_broken=True)
    connection.control("COMMIT")
    return Finished(outcomes, commits=1)


def _run_each_alone(
    connection: GuardedConnection,
    statements: Sequence[Statement],
    *,
    count: int,
    limit_bytes: int,
    progress: Progress,
    budget_s: float,
) -> Finished:
    """Run the first `count`, each in its own transaction."""
    until_s = time.monotonic() + budget_s
    outcomes: list[Outcome | None] = [None] * len(statements)
    commits = 0
    for index, statement in enumerate(statements[:count]):
        if index and time.monotonic() > until_s:
            break
        progress.reach(index)
        try:
            if not begin(connection):
                return Finished(outcomes, commits, is_locked=True)
            outcome = _run(connection, statement, limit_bytes)
            if connection.is_replaced:
                return Finished(outcomes, commits, is_broken=True)
            connection.control("COMMIT")
            outcomes[index] = outcome
            commits += 1
        except Exception as error:  # noqa: BLE001 - a statement's fault is its caller's answer
            outcomes[index] = translated(error, statement.text)
            roll_back(connection)
            if is_broken(error):
                return Finished(outcomes, commits, is_broken=True)
    return Finished(outcomes, commits)


def _run(connection: GuardedConnection, statement: Statement, limit_bytes: int) -> int | Rows | Ran:
    if connection.stop:
        raise sqlite3.OperationalError("interrupted")
    if statement.asked is not None:
        return run_whole(connection, statement.asked, limit_bytes=limit_bytes)
    cursor = connection.cursor()
    try:
        if statement.is_many:
            cursor.executemany(statement.text, statement.parameters)
        else:
            cursor.execute(statement.text, statement.parameters or ())
        rows: Rows | None = None
        if statement.want != "execute":
            rows = pack(cursor, first_only=statement.want == "fetch_one", limit_bytes=limit_bytes)
        if may_write(statement.text):
            # RETURNING counts its rows, and lets its savepoint go, only when it is read to the end.
            while cursor.fetchmany(256):
                pass
        return max(cursor.rowcount, 0) if rows is None else rows
    finally:
        # A cursor that was half read would keep the table locked.
        cursor.close()


def _has_deferred_keys(connection: GuardedConnection) -> bool:
    (version,) = connection.control("PRAGMA schema_version").fetchone()
    if version != connection.schema_version:
        found = connection.control(
            "SELECT 1 FROM sqlite_master WHERE sql LIKE '%deferred%' LIMIT 1"
        ).fetchone()
        connection.has_deferred_keys = found is not None
        connection.schema_version = version
    return connection.has_deferred_keys
