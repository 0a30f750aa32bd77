"""SQLite undoes a whole transaction with some errors; a handler that catches one must not have half a message committed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from penstock.app.context import Context
from penstock.app.handlers import DatabaseWay
from penstock.app.outcomes import Raised
from penstock.errors import TransactionUndone
from tests.workers.databases.conftest import with_table
from tests.workers.databases.place import Place, put, store


@pytest.fixture(params=["own", "channel"])
def way(request: pytest.FixtureRequest) -> DatabaseWay:
    found: DatabaseWay = request.param
    return found


@pytest.fixture
def file_place(tmp_path: Path, way: DatabaseWay) -> Place:
    place = with_table(Place("sqlite", f"sqlite:///{tmp_path / 'app.db'}", way=way))
    place.fill(1)
    return place


def or_rollback(ctx: Context) -> None:
    with suppress(IntegrityError):
        ctx.connection.execute(text("INSERT OR ROLLBACK INTO item VALUES (1, 'x', 0)"))


def many_or_rollback(ctx: Context) -> None:
    with suppress(IntegrityError):
        ctx.connection.execute(
            text("INSERT OR ROLLBACK INTO item VALUES (:id, 'x', 0)"), [{"id": 50}, {"id": 1}]
        )


def trigger_in_a_savepoint(ctx: Context) -> None:
    with suppress(DBAPIError), ctx.connection.begin_nested():
        put(ctx, 2, "refused")


def past_sqlalchemy(ctx: Context) -> None:
    ctx.connection.execute(text("SELECT 1"))
    with suppress(Exception):
        cursor = ctx.connection.connection.cursor()
        cursor.execute("INSERT OR ROLLBACK INTO item VALUES (1, 'x', 0)")


@pytest.mark.parametrize(
    "undo",
    [or_rollback, many_or_rollback, trigger_in_a_savepoint, past_sqlalchemy],
    ids=lambda undo: undo.__name__,
)
def test_an_error_that_undid_all_and_was_caught_commits_nothing_half(file_place: Place, undo: object) -> None:
    with file_place.outside() as other:
        other.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON item WHEN new.name = 'refused' BEGIN SELECT RAISE(ROLLBACK, 'no'); END"
        )
        other.commit()

    def handler(_: int, ctx: Context) -> None:
        put(ctx, 60)
        undo(ctx)  # type: ignore[operator]
        put(ctx, 61)

    with file_place.worker(handler, store) as worker:
        outcome = worker.run().outcome
        assert isinstance(outcome, Raised)
        assert outcome.failure.type.endswith(TransactionUndone.__name__)
        assert worker.run(62, "q1").verdict == "acked"
    assert [number for number, *_ in file_place.rows()] == [1, 62]


def test_a_commit_in_the_middle_is_refused_and_a_rollback_begins_anew(file_place: Place) -> None:
    def handler(_: int, ctx: Context) -> None:
        put(ctx, 60)
        or_rollback(ctx)
        put(ctx, 61)
        with pytest.raises(TransactionUndone):
            ctx.connection.commit()
        ctx.connection.rollback()
        put(ctx, 62)

    with file_place.worker(handler) as worker:
        assert worker.run().verdict == "acked"
    assert [number for number, *_ in file_place.rows()] == [1, 62]


def test_an_error_that_undid_its_statement_alone_is_the_handlers_to_catch(file_place: Place) -> None:
    def handler(_: int, ctx: Context) -> None:
        put(ctx, 60)
        with suppress(IntegrityError):
            put(ctx, 1)
        with suppress(IntegrityError), ctx.connection.begin_nested():
            put(ctx, 1)
        put(ctx, 61)

    with file_place.worker(handler) as worker:
        assert worker.run().verdict == "acked"
    assert [number for number, *_ in file_place.rows()] == [1, 60, 61]
