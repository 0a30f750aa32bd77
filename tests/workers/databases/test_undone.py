"""SQLite undoes a whole transaction with some errors; a handler that catches one must not have half a message committed."""

from __future__ import annotations

import sys
from collections.abc import Callable
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

LEGACY = "tests.workers.databases.legacy"
#: How a handler comes by its connection: declared at the handler, or named in the settings.
WAYS: dict[str, tuple[DatabaseWay, dict[str, str]]] = {
    "own": ("own", {}),
    "channel": ("channel", {}),
    "adopted session": ("own", {"session": f"{LEGACY}:DBSession"}),
    "adopted engine": ("own", {"engine": f"{LEGACY}:engine"}),
    "adopted engine that begins itself": ("own", {"engine": f"{LEGACY}:beginning"}),
}


@pytest.fixture(params=WAYS)
def file_place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    way, settings = WAYS[request.param]
    url = f"sqlite:///{tmp_path / 'app.db'}"
    monkeypatch.setenv("LEGACY_URL", url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    place = Place("sqlite", url, way=way, settings=settings)
    with_table(place)
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
    with suppress(Exception):
        cursor = ctx.connection.connection.cursor()
        cursor.execute("INSERT OR ROLLBACK INTO item VALUES (1, 'x', 0)")


@pytest.mark.parametrize(
    "undo",
    [or_rollback, many_or_rollback, trigger_in_a_savepoint, past_sqlalchemy],
    ids=lambda undo: undo.__name__,
)
def test_an_error_that_undid_all_and_was_caught_commits_nothing_half(
    file_place: Place, undo: Callable[[Context], None]
) -> None:
    if file_place.settings and undo is past_sqlalchemy:
        pytest.skip("the connection is of the application's own class: docs/database.md says so")
    with file_place.outside() as other:
        other.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON item WHEN new.name = 'refused' BEGIN SELECT RAISE(ROLLBACK, 'no'); END"
        )
        other.commit()

    def handler(_: int, ctx: Context) -> None:
        put(ctx, 60)
        undo(ctx)
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
        # A session that is adopted is what its transaction is ended on.
        ending = ctx.session if "session" in file_place.settings else ctx.connection
        with pytest.raises(TransactionUndone):
            ending.commit()
        ending.rollback()
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
