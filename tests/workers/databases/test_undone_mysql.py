"""InnoDB undoes a whole transaction with some errors; a handler that catches one must not have half a message committed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from penstock.app.context import Context
from penstock.app.outcomes import Raised
from penstock.errors import TransactionUndone
from tests.servers import MariaDBServer, Template
from tests.workers.databases.conftest import with_table
from tests.workers.databases.place import Place, put, store
from tests.workers.databases.test_conflicts import ADD
from tests.workers.databases.test_undone import LEGACY, WAYS


@pytest.fixture(scope="module")
def undoing_server(_mariadb_template: Template) -> Iterator[MariaDBServer]:
    options = {
        "innodb_rollback_on_timeout": "ON",
        "innodb_lock_wait_timeout": "1",
        "innodb_snapshot_isolation": "ON",
    }
    with MariaDBServer(_mariadb_template, options=options) as server:
        yield server


@pytest.fixture(params=["own", "channel", "adopted session", "adopted engine"])
def undoing_place(
    request: pytest.FixtureRequest, undoing_server: MariaDBServer, monkeypatch: pytest.MonkeyPatch
) -> Place:
    return undoing(request.param, undoing_server, undoing_server.new_database(), monkeypatch)


def undoing(name: str, server: MariaDBServer, url: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    way, settings = WAYS[name]
    monkeypatch.setenv("LEGACY_URL", url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    place = Place("mariadb", url, server, way, settings)
    with_table(place)
    place.fill(1)
    return place


def changed_since_it_was_read(place: Place, ctx: Context) -> None:
    ctx.connection.execute(text("SELECT n FROM item")).all()
    with place.outside() as other:
        other.execute(ADD, {"id": 1})
        other.commit()
    with suppress(DBAPIError):
        ctx.connection.execute(ADD, {"id": 1})


def changed_inside_a_savepoint(place: Place, ctx: Context) -> None:
    ctx.connection.execute(text("SELECT n FROM item")).all()
    with place.outside() as other:
        other.execute(ADD, {"id": 1})
        other.commit()
    with suppress(DBAPIError), ctx.connection.begin_nested():
        ctx.connection.execute(ADD, {"id": 1})


def lock_not_had_in_time(place: Place, ctx: Context) -> None:
    with place.outside() as other:
        other.execute(ADD, {"id": 1})
        with suppress(DBAPIError):
            ctx.connection.execute(ADD, {"id": 1})


@pytest.mark.parametrize(
    "undo",
    [changed_since_it_was_read, changed_inside_a_savepoint, lock_not_had_in_time],
    ids=lambda undo: undo.__name__,
)
def test_an_error_that_undid_all_and_was_caught_commits_nothing_half(
    undoing_place: Place, undo: Callable[[Place, Context], None]
) -> None:
    runs: list[int] = []

    def handler(_: int, ctx: Context) -> None:
        runs.append(1)
        put(ctx, 60)
        if len(runs) == 1:
            undo(undoing_place, ctx)
        put(ctx, 61)

    with undoing_place.worker(handler, store) as worker:
        first = worker.run()
        if undoing_place.way == "own":
            # As after the error itself, had the handler let it through: it runs again at once.
            assert (first.verdict, len(runs)) == ("acked", 2)
        else:
            assert first.verdict == "retried"
        assert worker.run(62, "q1").verdict == "acked"
    written = [60, 61] if undoing_place.way == "own" else []
    assert [number for number, *_ in undoing_place.rows()] == [1, *written, 62]


def test_a_full_lock_table_undid_all_too(undoing_place: Place) -> None:
    if undoing_place.way == "channel":
        pytest.skip("it asks the server itself, which has undone nothing here")

    def handler(_: int, ctx: Context) -> None:
        put(ctx, 60)
        with suppress(DBAPIError):
            # Nothing is quick that really fills it.
            ctx.connection.exec_driver_sql("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1206")
        put(ctx, 61)

    with undoing_place.worker(handler) as worker:
        outcome = worker.run().outcome
    assert isinstance(outcome, Raised)
    assert outcome.failure.type.endswith(TransactionUndone.__name__)
    assert [number for number, *_ in undoing_place.rows()] == [1]


@pytest.mark.parametrize("name", ["own", "adopted engine"])
def test_a_lock_not_had_in_time_undoes_its_statement_alone_where_the_server_is_as_usual(
    mariadb_place: Place, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(mariadb_place.server, MariaDBServer)
    place = undoing(name, mariadb_place.server, mariadb_place.server.new_database(), monkeypatch)

    def handler(_: int, ctx: Context) -> None:
        ctx.connection.execute(text("SET SESSION innodb_lock_wait_timeout = 1"))
        put(ctx, 60)
        lock_not_had_in_time(place, ctx)
        put(ctx, 61)

    with place.worker(handler) as worker:
        assert worker.run().verdict == "acked"
    assert [number for number, *_ in place.rows()] == [1, 60, 61]
