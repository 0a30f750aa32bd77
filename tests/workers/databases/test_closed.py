"""What a handler closes with its writes in it is refused: they would be undone without a word, and the message acked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from penstock.app.context import Context
from penstock.app.handlers import DatabaseWay
from penstock.errors import ConnectionMisused
from tests.workers.databases.place import Place, put, store
from tests.workers.databases.test_transactions import Item

LEGACY = "tests.workers.databases.legacy"


@pytest.fixture(params=["own", "channel", "adopted engine"])
def kept_place(request: pytest.FixtureRequest, place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Where `ctx.session` and `ctx.connection` are ours."""
    monkeypatch.setenv("LEGACY_URL", place.url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    settings = {"engine": f"{LEGACY}:engine"} if request.param == "adopted engine" else {}
    way: DatabaseWay = "channel" if request.param == "channel" else "own"
    return Place(place.kind, place.url, place.server, way, settings)


@pytest.fixture
def legacy_place(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """With the application's own scoped session."""
    monkeypatch.setenv("LEGACY_URL", place.url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    return Place(place.kind, place.url, place.server, "own", {"session": f"{LEGACY}:DBSession"})


def legacy() -> Any:
    return sys.modules[LEGACY]


def leave_block(session: Any) -> None:
    with session:
        pass


ENDS: dict[str, Callable[[Any], None]] = {
    "close": lambda session: session.close(),
    "reset": lambda session: session.reset(),
    "invalidate": lambda session: session.invalidate(),
    "with": leave_block,
}


@pytest.mark.parametrize("how", ENDS)
def test_a_session_that_is_ended_inside_its_transaction(kept_place: Place, how: str) -> None:
    def handler(_: int, ctx: Context) -> None:
        ctx.session.add(Item(id=1, name="lost"))
        ENDS[how](ctx.session)

    with kept_place.worker(handler, store) as worker:
        assert isinstance(worker.run().error, ConnectionMisused)
        assert worker.run(2, "q1").verdict == "acked"
    assert [number for number, *_ in kept_place.rows()] == [2]


@pytest.mark.parametrize("how", ENDS)
def test_a_session_that_is_ended_behind_its_commit_is_no_matter(kept_place: Place, how: str) -> None:
    def handler(_: int, ctx: Context) -> None:
        ctx.session.add(Item(id=1, name="kept"))
        ctx.session.commit()
        ENDS[how](ctx.session)
        put(ctx, 2)

    with kept_place.worker(handler) as worker:
        assert worker.run().verdict == "acked"
    assert [number for number, *_ in kept_place.rows()] == [1, 2]


@pytest.mark.parametrize("how", ["close", "with"])
def test_a_connection_that_is_closed_inside_its_transaction(kept_place: Place, how: str) -> None:
    def handler(_: int, ctx: Context) -> None:
        put(ctx, 1)
        ENDS[how](ctx.connection)

    with kept_place.worker(handler, store) as worker:
        assert isinstance(worker.run().error, ConnectionMisused)
        assert worker.run(2, "q1").verdict == "acked"
    assert [number for number, *_ in kept_place.rows()] == [2]


def remove(_: Any) -> None:
    legacy().DBSession.remove()


def add() -> None:
    legacy().DBSession.add(Item(id=1, name="lost"))


def flush() -> None:
    add()
    legacy().DBSession.flush()


def change() -> None:
    legacy().DBSession.get(Item, 100).name = "lost"


def write_text() -> None:
    legacy().store(1)


@pytest.mark.parametrize("write", [add, flush, change, write_text], ids=lambda write: write.__name__)
@pytest.mark.parametrize("how", [*ENDS, "remove"])
def test_an_adopted_session_that_is_ended_with_writes_in_it(
    legacy_place: Place, how: str, write: Callable[[], None]
) -> None:
    with legacy_place.outside() as other:
        other.execute(text("INSERT INTO item VALUES (100, 'item', 0)"))
        other.commit()

    def handler(_: int) -> None:
        write()
        {**ENDS, "remove": remove}[how](legacy().DBSession())

    with legacy_place.worker(handler, store) as worker:
        assert isinstance(worker.run().error, ConnectionMisused)
        assert worker.run(2, "q1").verdict == "acked"
    assert [row[:2] for row in legacy_place.rows()] == [(2, "item"), (100, "item")]


@pytest.mark.parametrize("how", [*ENDS, "remove"])
def test_an_adopted_session_may_be_ended_where_nothing_is_lost(legacy_place: Place, how: str) -> None:
    end = {**ENDS, "remove": remove}[how]

    def handler(_: int) -> None:
        session = legacy().DBSession
        assert session.query(Item).all() == []
        with session.begin_nested():
            session.execute(text("SELECT 1"))
        end(session())
        write_text()
        session.commit()
        end(session())
        session.add(Item(id=2, name="undone"))
        session.rollback()
        end(session())
        session.add(Item(id=3, name="kept"))

    with legacy_place.worker(handler) as worker:
        assert worker.run().verdict == "acked"
    assert [number for number, *_ in legacy_place.rows()] == [1, 3]


def test_an_adopted_session_that_an_exception_ends_tells_of_the_exception(legacy_place: Place) -> None:
    def handler(_: int) -> None:
        with legacy().DBSession() as session:
            session.add(Item(id=1, name="lost"))
            session.flush()
            raise ValueError("the reason")

    with legacy_place.worker(handler) as worker:
        assert isinstance(worker.run().error, ValueError)
    assert legacy_place.rows() == []
    # Behind the worker the application's session is as it was.
    add()
    legacy().DBSession.remove()
