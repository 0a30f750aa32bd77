"""An engine or scoped session that the application has already, `penstock.session`, and who checks out a second connection."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.pool import NullPool

import penstock
from penstock.app.context import Context
from penstock.app.outcomes import Raised
from penstock.errors import ConfigurationError, ConnectionMisused, TransactionUndone
from penstock.workers import adopted
from tests.workers.databases.place import Place, put, store
from tests.workers.databases.test_conflicts import ADD, meet, opponent
from tests.workers.databases.test_lost import kill_every_connection
from tests.workers.databases.test_transactions import Item

LEGACY = "tests.workers.databases.legacy"


@pytest.fixture
def legacy(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setenv("LEGACY_URL", place.url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    from importlib import import_module

    module = import_module(LEGACY)
    yield module
    module.engine.dispose()
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)


@pytest.fixture(params=["session", "engine"])
def adopting(request: pytest.FixtureRequest) -> dict[str, str]:
    return {request.param: f"{LEGACY}:{'DBSession' if request.param == 'session' else 'engine'}"}


def test_a_scoped_session_is_one_transaction_a_message_and_closed_at_the_stop(
    place: Place, legacy: ModuleType
) -> None:
    def handler(payload: int, ctx: Context) -> None:
        legacy.store(payload)
        assert ctx.session is legacy.DBSession()
        put(ctx, payload + 1)
        if payload == 10:
            raise ValueError("no")

    with place.worker(handler, session=f"{LEGACY}:DBSession") as worker:
        assert [worker.run(number).verdict for number in (1, 10, 20)] == ["acked", "retried", "acked"]
        if place.server is not None:
            assert len(place.connections_once(1)) == 1
    assert [(number, name) for number, name, _ in place.rows()] == [
        (1, "legacy"), (2, "item"), (20, "legacy"), (21, "item"),
    ]  # fmt: skip
    if place.server is not None:
        assert place.connections_once(0) == []


def test_an_adopted_engine_gives_connection_and_session_of_one_transaction(
    place: Place, legacy: ModuleType
) -> None:
    def handler(payload: int, ctx: Context) -> None:
        assert ctx.connection.engine is legacy.engine
        put(ctx, payload)
        ctx.session.add(Item(id=payload + 1, name="session"))
        if payload == 10:
            ctx.session.flush()
            raise ValueError("no")

    with place.worker(handler, engine=f"{LEGACY}:engine") as worker:
        assert [worker.run(number).verdict for number in (1, 10, 20)] == ["acked", "retried", "acked"]
    assert [number for number, *_ in place.rows()] == [1, 2, 20, 21]
    if place.server is not None:
        assert place.connections_once(0) == []


def test_what_is_not_flushed_is_committed_and_what_a_hook_left_is_not(
    place: Place, legacy: ModuleType
) -> None:
    def handler(payload: int) -> None:
        legacy.DBSession.add(Item(id=payload, name="new"))

    with place.worker(handler, session=f"{LEGACY}:DBSession") as worker:
        legacy.store(99)
        assert worker.run(1).verdict == "acked"
    assert [number for number, *_ in place.rows()] == [1]


def test_a_lost_connection_is_not_charged(
    server_place: Place, adopting: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEGACY_URL", server_place.url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    killed: list[int] = []

    def handler(payload: int, ctx: Context) -> None:
        put(ctx, payload)
        if not killed:
            killed.append(1)
            kill_every_connection(server_place)
        put(ctx, payload + 1)

    with server_place.worker(handler, **adopting) as worker:
        outcome = worker.run(1).outcome
        assert isinstance(outcome, Raised)
        assert not outcome.charged
        assert worker.run(1).verdict == "acked"
    assert [number for number, *_ in server_place.rows()] == [1, 2]


def test_a_swallowed_error_commits_nothing_half(
    postgresql_place: Place, adopting: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEGACY_URL", postgresql_place.url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    postgresql_place.fill(1)

    def handler(_: int, ctx: Context) -> None:
        put(ctx, 2)
        with suppress(IntegrityError):
            put(ctx, 1)

    with postgresql_place.worker(handler, store, **adopting) as worker:
        outcome = worker.run().outcome
        assert isinstance(outcome, Raised)
        assert outcome.failure.type.endswith(TransactionUndone.__name__)
        assert worker.run(3, "q1").verdict == "acked"
    assert [number for number, *_ in postgresql_place.rows()] == [1, 3]


def use_another(connection: Connection) -> None:
    with connection.engine.connect() as beside:
        beside.execute(text("SELECT 1"))
    with suppress(DBAPIError):
        connection.execute(ADD, {"id": 3})


def commit_by_text(connection: Connection) -> None:
    with suppress(DBAPIError):
        connection.execute(ADD, {"id": 3})
    with suppress(TransactionUndone):
        connection.execute(text("/* so */ COMMIT"))


@pytest.mark.parametrize("go_on", [use_another, commit_by_text])
def test_a_swallowed_deadlock_commits_nothing_half_whatever_the_handler_does(
    server_place: Place,
    adopting: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    go_on: Callable[[Connection], None],
) -> None:
    monkeypatch.setenv("LEGACY_URL", server_place.url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    runs: list[int] = []
    with opponent(server_place) as other:

        def handler(_: int, ctx: Context) -> None:
            runs.append(1)
            if len(runs) == 1:
                with suppress(DBAPIError):
                    meet(other, server_place, ctx)
                go_on(ctx.connection)

        with server_place.worker(handler, **adopting) as worker:
            assert worker.run().verdict == "acked"
    assert len(runs) == 2
    assert server_place.rows()[2][2] == 0


@pytest.mark.parametrize("isolation", [{}, {"isolation_level": "READ COMMITTED"}])
def test_a_server_that_is_away_is_charged_to_nobody(
    own_place: Place, adopting: dict[str, str], isolation: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert own_place.server is not None
    monkeypatch.setenv("LEGACY_URL", own_place.url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    monkeypatch.setattr(adopted, "REOPEN_WAIT_S", 0.3)

    with own_place.worker(store, **adopting, **isolation) as worker:
        own_place.server.stop()
        for _ in range(2):
            outcome = worker.run(1).outcome
            assert isinstance(outcome, Raised)
            assert not outcome.charged
        own_place.server.start()
        assert worker.run(1).verdict == "acked"
    assert [number for number, *_ in own_place.rows()] == [1]


def test_its_isolation_is_the_handlers(
    server_place: Place, adopting: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEGACY_URL", server_place.url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    seen: list[str] = []

    def handler(_: int, ctx: Context) -> None:
        seen.append(ctx.session.connection().get_isolation_level())

    with server_place.worker(handler, isolation_level="SERIALIZABLE", **adopting) as worker:
        assert worker.run().verdict == "acked"
    assert seen == ["SERIALIZABLE"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"session": "nowhere.at:all"}, "No module named 'nowhere'"),
        ({"session": f"{LEGACY}:engine"}, "has to be a SQLAlchemy scoped_session"),
        ({"engine": f"{LEGACY}:NOTHING"}, "that is str, and has to be a SQLAlchemy Engine"),
        ({"engine": f"{LEGACY}:absent"}, "there is nothing of that name"),
        ({"session": f"{LEGACY}:unbound"}, "bound to no engine"),
        ({"session": "tests.workers.databases.broken:DBSession"}, "raised KeyError: 'NOBODY_SET_THIS'"),
    ],
)
def test_what_cannot_be_adopted_ends_the_start_in_words(
    place: Place, legacy: ModuleType, settings: dict[str, str], words: str
) -> None:
    assert legacy.NOTHING
    with pytest.raises(ConfigurationError, match=words), place.worker(store, **settings):
        pass


def test_a_session_and_an_engine_are_one_too_many() -> None:
    from penstock.config.database import DatabaseSection

    with pytest.raises(ValueError, match="name the session alone"):
        DatabaseSection(session="a:b", engine="a:c")


def test_penstock_session_is_the_session_of_the_message_that_runs(place: Place) -> None:
    def deep_down(number: int) -> None:
        penstock.session.add(Item(id=number, name="deep"))
        assert len(list(penstock.session)) == 1
        assert penstock.session.new

    def handler(payload: int, ctx: Context) -> None:
        deep_down(payload)
        assert penstock.session.get_bind() is ctx.session.get_bind()
        if payload == 2:
            raise ValueError("no")

    with place.worker(handler) as worker:
        assert [worker.run(number).verdict for number in (1, 2, 3)] == ["acked", "retried", "acked"]
        with pytest.raises(ConnectionMisused, match="where no message runs"):
            penstock.session.flush()
    assert [number for number, *_ in place.rows()] == [1, 3]


def test_penstock_session_is_not_for_other_threads(place: Place) -> None:
    caught: list[BaseException] = []

    def elsewhere() -> None:
        try:
            penstock.session.flush()
        except ConnectionMisused as error:
            caught.append(error)

    def handler(_: int) -> None:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    with place.worker(handler) as worker:
        worker.run()
    assert len(caught) == 1


def second_by_an_engine_of_its_own(place: Place) -> None:
    engine = create_engine(place.url, poolclass=NullPool)
    with engine.connect() as other:
        other.execute(text("SELECT 1"))


def test_whoever_checks_a_second_connection_out_is_shown_with_both_stacks(place: Place) -> None:
    def touch_first(ctx: Context) -> None:
        ctx.connection.execute(text("SELECT 1"))

    def handler(_: int, ctx: Context) -> None:
        touch_first(ctx)
        second_by_an_engine_of_its_own(place)

    with place.worker(handler, store, debug_checkouts=True) as worker:
        error = worker.run().error
        assert worker.run(1, "q1").verdict == "acked"
    assert isinstance(error, ConnectionMisused)
    first, second = str(error).split("The second:")
    assert "in touch_first" in first
    assert "in second_by_an_engine_of_its_own" in second
    assert "in test_whoever_checks" not in str(error)
    with place.worker(handler) as worker:
        assert worker.run().verdict == "acked"


def test_a_handler_that_has_not_used_its_own_yet_is_shown_all_the_same(place: Place) -> None:
    def handler(_: int) -> None:
        second_by_an_engine_of_its_own(place)

    with place.worker(handler, debug_checkouts=True) as worker:
        assert "the worker's own, which it holds since it began" in str(worker.run().error)
        # Between messages nobody is watched.
        second_by_an_engine_of_its_own(place)


def test_streams_and_a_connection_that_is_replaced_are_no_second_ones(server_place: Place) -> None:
    def handler(payload: int, ctx: Context) -> None:
        put(ctx, payload)
        list(ctx.stream("SELECT 1"))

    with server_place.worker(handler, debug_checkouts=True, recycle_s=1e-6) as worker:
        assert [worker.run(number).verdict for number in (1, 2)] == ["acked", "acked"]


def test_an_adopted_engine_has_one_connection_a_message_too(
    server_place: Place, adopting: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEGACY_URL", server_place.url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)

    def handler(payload: int, ctx: Context) -> None:
        put(ctx, payload)
        legacy: Any = sys.modules[LEGACY]
        if payload == 2:
            with legacy.engine.begin() as other:
                other.execute(text("SELECT 1"))

    with server_place.worker(handler, debug_checkouts=True, **adopting) as worker:
        assert worker.run(1).verdict == "acked"
        error = worker.run(2).error
        assert worker.run(3).verdict == "acked"
    assert isinstance(error, ConnectionMisused)
    assert str(error).count("in handler") == 2
    assert [number for number, *_ in server_place.rows()] == [1, 3]


def test_a_second_connection_is_shown_when_the_first_was_taken_to_set_an_isolation_level(
    server_place: Place, adopting: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEGACY_URL", server_place.url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)

    def handler(payload: int, ctx: Context) -> None:
        put(ctx, payload)
        if payload == 2:
            second_by_an_engine_of_its_own(server_place)

    with server_place.worker(
        handler, debug_checkouts=True, isolation_level="SERIALIZABLE", **adopting
    ) as worker:
        assert worker.run(1).verdict == "acked"
        error = worker.run(2).error
        assert worker.run(3).verdict == "acked"
    assert isinstance(error, ConnectionMisused)
    first, second = str(error).split("The second:")
    assert ("for its isolation level" if "session" in adopting else "in handler") in first
    assert "in second_by_an_engine_of_its_own" in second
    assert [number for number, *_ in server_place.rows()] == [1, 3]


def test_a_stream_beside_an_adopted_engine_connects_as_the_engine_does(
    place: Place, adopting: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.fill(3)
    url = make_url(place.url)
    monkeypatch.setenv("LEGACY_URL", str(url.set(password=None)))
    if place.server is not None:
        monkeypatch.setenv("LEGACY_PASSWORD", str(url.password))
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    seen: list[int] = []

    def connections(count: int) -> int:
        return count if place.server is None else len(place.connections_once(count))

    def handler(payload: int, ctx: Context) -> None:
        put(ctx, payload)
        with ctx.stream("SELECT id FROM item ORDER BY id") as rows:
            seen.extend([next(rows).id, connections(2)])

    with place.worker(handler, debug_checkouts=True, **adopting) as worker:
        for number in (10, 11):
            assert worker.run(number).verdict == "acked"
            assert connections(1) == 1
    assert seen == [1, 2, 1, 2]
    assert connections(0) == 0
