"""Deadlock, serialization failure, lock not had in time: the handler runs again in its worker, and nobody is charged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from penstock.app.context import Context
from penstock.app.handlers import DatabaseWay
from penstock.app.outcomes import Raised
from penstock.workers.conflicts import MOST_RERUNS
from tests.workers.databases.place import Place

ADD = text("UPDATE item SET n = n + 1 WHERE id = :id")
#: MariaDB gives up the transaction that changed less, PostgreSQL the one that looks first.
HEAVY = text("UPDATE item SET n = n + 100 WHERE id > 10")


@pytest.fixture(params=["own", "channel"])
def way(request: pytest.FixtureRequest) -> DatabaseWay:
    found: DatabaseWay = request.param
    return found


class Opponent:
    """Another program that updates the same two rows in the opposite order, heavier, so that the worker loses."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._thread: threading.Thread | None = None

    def take_second(self) -> None:
        self._connection.execute(HEAVY)
        self._connection.execute(ADD, {"id": 2})

    def want_first(self) -> None:
        """In a thread: waits for the row that the worker has, then commits."""
        self._thread = threading.Thread(target=self._finish)
        self._thread.start()

    def _finish(self) -> None:
        self._connection.execute(ADD, {"id": 1})
        self._connection.commit()

    def ended(self) -> None:
        if self._thread is not None:
            self._thread.join()


@contextmanager
def opponent(place: Place) -> Iterator[Opponent]:
    place.fill(40)
    with place.outside() as other:
        if place.kind == "postgresql":
            other.execute(text("SET deadlock_timeout = '20s'"))
        found = Opponent(other)
        yield found
        found.ended()


def meet(opponent: Opponent, place: Place, ctx: Context) -> None:
    """Deadlock with the opponent; raises it."""
    if place.kind == "postgresql":
        ctx.connection.execute(text("SET LOCAL deadlock_timeout = '50ms'"))
    opponent.take_second()
    ctx.connection.execute(ADD, {"id": 1})
    opponent.want_first()
    wait_until_blocked(place)
    ctx.connection.execute(ADD, {"id": 2})


def wait_until_blocked(place: Place) -> None:
    """Returns when somebody waits for a row lock."""
    query = (
        "SELECT count(*) FROM information_schema.innodb_lock_waits"
        if place.kind == "mariadb"
        else "SELECT count(*) FROM pg_locks WHERE NOT granted"
    )
    deadline_s = time.monotonic() + 20
    while place.running.execute(query) == [(0,)]:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_the_loser_of_a_deadlock_runs_again_and_both_updates_are_there(server_place: Place) -> None:
    runs: list[int] = []
    with opponent(server_place) as other:

        def handler(_: int, ctx: Context) -> None:
            runs.append(ctx.message.attempt)
            if len(runs) == 1:
                meet(other, server_place, ctx)
            else:
                other.ended()
                ctx.connection.execute(ADD, {"id": 1})
                ctx.connection.execute(ADD, {"id": 2})
            ctx.bus.publish("told", {"runs": len(runs)})

        with server_place.worker(handler) as worker:
            result = worker.run()
    assert result.verdict == "acked"
    assert runs == [1, 1]
    assert [sent.payload for sent in result.published] == [{"runs": 2}]
    assert [n for number, _, n in server_place.rows() if number in (1, 2)] == [2, 2]


@pytest.mark.parametrize("ending", ["", "/* so */ commit", "CREATE TABLE more (id INTEGER)"])
def test_a_deadlock_that_the_handler_swallows_commits_nothing_half(server_place: Place, ending: str) -> None:
    runs: list[int] = []
    with opponent(server_place) as other:

        def handler(_: int, ctx: Context) -> None:
            runs.append(1)
            if len(runs) == 1:
                with suppress(DBAPIError):
                    meet(other, server_place, ctx)
                with suppress(DBAPIError):
                    ctx.connection.execute(ADD, {"id": 3})
                if ending:
                    with suppress(DBAPIError):
                        ctx.connection.exec_driver_sql(ending)
                    with suppress(DBAPIError):
                        ctx.connection.execute(ADD, {"id": 3})

        with server_place.worker(handler) as worker:
            result = worker.run()
    assert result.verdict == "acked"
    assert len(runs) == 2
    assert server_place.rows()[2][2] == 0


def lock_timeout(place: Place, ctx: Context) -> None:
    with place.outside() as other:
        other.execute(ADD, {"id": 1})
        if place.kind == "mariadb":
            ctx.connection.execute(text("SET innodb_lock_wait_timeout = 1"))
        else:
            ctx.connection.execute(text("SET LOCAL lock_timeout = '50ms'"))
        ctx.connection.execute(ADD, {"id": 1})


def serialization_failure(place: Place, ctx: Context) -> None:
    ctx.connection.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
    ctx.connection.execute(text("SELECT n FROM item WHERE id = 1"))
    with place.outside() as other:
        other.execute(ADD, {"id": 1})
        other.commit()
    ctx.connection.execute(ADD, {"id": 1})


def write_skew_found_at_the_commit(place: Place, ctx: Context) -> None:
    ctx.connection.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
    ctx.connection.execute(text("SELECT n FROM item"))
    with place.outside() as other:
        other.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        other.execute(text("SELECT n FROM item"))
        ctx.connection.execute(ADD, {"id": 2})
        other.execute(ADD, {"id": 1})
        other.commit()


CONFLICTS: list[Callable[[Place, Context], None]] = [
    lock_timeout,
    serialization_failure,
    write_skew_found_at_the_commit,
]


@pytest.mark.parametrize("conflict", CONFLICTS)
def test_a_conflict_costs_a_run_and_no_attempt(
    server_place: Place, conflict: Callable[[Place, Context], None]
) -> None:
    if server_place.kind == "mariadb" and conflict is not lock_timeout:
        pytest.skip(
            "InnoDB knows no serialization failure: it locks what was read, and what conflicts is a deadlock"
        )
    server_place.fill(2)
    runs: list[list[str]] = []

    def handler(payload: list[str], ctx: Context) -> None:
        runs.append(list(payload))
        payload.append("changed")
        if len(runs) == 1:
            conflict(server_place, ctx)

    with server_place.worker(handler) as worker:
        assert worker.run(["as sent"]).verdict == "acked"
    assert runs == [["as sent"]] * 2


def test_a_conflict_without_end_is_charged_after_three_further_runs(server_place: Place) -> None:
    server_place.fill(1)
    runs: list[int] = []

    def handler(_: int, ctx: Context) -> None:
        runs.append(1)
        lock_timeout(server_place, ctx)

    with server_place.worker(handler) as worker:
        outcome = worker.run().outcome
    assert isinstance(outcome, Raised)
    assert outcome.charged
    assert not outcome.commit_unknown
    assert len(runs) == 1 + MOST_RERUNS
