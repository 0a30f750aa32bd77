"""The ledger finds what it is there to find."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.crash.ledger import Disturbance, Ledger, Rest
from tests.crash.scene import make_database


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    make_database(tmp_path)
    books = Ledger(tmp_path)
    yield books
    books.aclose()


def confirm(ledger: Ledger, *ids: str) -> None:
    ledger.published.update(ids)
    ledger.confirm("q", ids)


def do(ledger: Ledger, id_: str, *, attempt: int = 1, redelivered: bool = False, pid: int = 1) -> None:
    with closing(sqlite3.connect(ledger.database)) as connection, connection:
        connection.execute(
            "INSERT INTO effects (message_id, queue, attempt, redelivered, pid, at_s) VALUES (?, 'q', ?, ?, ?, ?)",
            (id_, attempt, redelivered, pid, time.monotonic()),
        )


def test_books_that_agree(ledger: Ledger) -> None:
    confirm(ledger, "a", "b")
    do(ledger, "a")

    balance = ledger.close(Rest(dead={"b": "rejected"}, dead_count=1, out=Counter({("x", "a"): 1})))

    assert balance.is_even
    assert balance.line(0.5) == (
        "published=2 confirmed=2 effects=1 dead=1 lost=0 stuck=0 duplicates=0 unexplained=0 max_recovery_s=0.50"
    )


def test_what_is_nowhere_is_lost(ledger: Ledger) -> None:
    confirm(ledger, "a", "b")
    do(ledger, "a")

    assert ledger.close(Rest()).lost == ["b"]


def test_what_is_still_queued_is_stuck(ledger: Ledger) -> None:
    confirm(ledger, "a")

    balance = ledger.close(Rest(queued=["a"]))

    assert (balance.lost, balance.stuck) == ([], ["a"])


def test_what_was_never_confirmed_may_be_missing_and_may_be_there(ledger: Ledger) -> None:
    ledger.published.update(("a", "b"))
    do(ledger, "a")

    assert ledger.close(Rest()).is_even


def test_a_second_effect_has_to_be_redelivered(ledger: Ledger) -> None:
    confirm(ledger, "a", "b")
    do(ledger, "a")
    do(ledger, "a", redelivered=True)
    do(ledger, "b")
    do(ledger, "b")

    balance = ledger.close(Rest())

    assert balance.duplicates == 2
    assert [line[0] for line in balance.unexplained] == ["b"]


@pytest.mark.parametrize("severs", [True, False])
def test_a_second_effect_behind_a_delay_queue_needs_a_fault_that_takes_confirms_away(
    ledger: Ledger, severs: bool
) -> None:
    confirm(ledger, "a")
    do(ledger, "a", attempt=2)
    do(ledger, "a", attempt=2)
    now_s = time.monotonic()
    ledger.disturbances.append(Disturbance("broker killed", now_s - 5, now_s - 1, severs))

    assert ledger.close(Rest()).is_even == severs


@pytest.mark.parametrize("victim", [1, 2])
def test_a_second_effect_may_follow_a_worker_that_was_killed_after_its_commit(
    ledger: Ledger, victim: int
) -> None:
    confirm(ledger, "a")
    do(ledger, "a", pid=1)
    ledger.killed(victim)
    do(ledger, "a", pid=3, attempt=2)

    assert ledger.close(Rest()).is_even == (victim == 1)


def test_effects_of_nobody_and_messages_of_nothing_are_found(ledger: Ledger) -> None:
    do(ledger, "ghost")

    balance = ledger.close(Rest(out=Counter({("x", "other"): 1})))

    assert balance.unexplained == [
        "ghost: nobody published it",
        "other: published something, and has no effect",
    ]
