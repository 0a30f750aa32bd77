"""Drivers and settings with which a message would be no transaction: none starts, or a commit that is none is refused."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from penstock.app.context import Context
from penstock.app.outcomes import Raised
from penstock.errors import ConfigurationError, TransactionUndone
from tests.workers.databases.place import Place, put, store

LEGACY = "tests.workers.databases.legacy"


@pytest.fixture(params=["session", "engine"])
def adopting(request: pytest.FixtureRequest) -> dict[str, str]:
    return {request.param: f"{LEGACY}:{'DBSession' if request.param == 'session' else 'engine'}"}


@pytest.fixture
def by_psycopg2(postgresql_place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    url = postgresql_place.url.replace("+psycopg:", "+psycopg2:")
    monkeypatch.setenv("LEGACY_URL", url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    return postgresql_place


def test_a_driver_that_is_not_watched_ends_the_start_in_words(postgresql_place: Place) -> None:
    url = postgresql_place.url.replace("+psycopg:", "+psycopg2:")
    with (
        pytest.raises(
            ConfigurationError, match=r"psycopg2://, .* does not start: write postgresql\+psycopg://"
        ),
        postgresql_place.worker(store, url=url),
    ):
        pass


def test_an_adopted_engine_on_psycopg2_takes_no_rollback_for_a_commit(
    by_psycopg2: Place, adopting: dict[str, str]
) -> None:
    def handler(number: int, ctx: Context) -> None:
        put(ctx, number)
        with suppress(IntegrityError):
            put(ctx, number)

    with by_psycopg2.worker(handler, store, **adopting) as worker:
        outcome = worker.run(1).outcome
        assert isinstance(outcome, Raised)
        assert outcome.failure.type.endswith(TransactionUndone.__name__)
        assert worker.run(2, "q1").verdict == "acked"
    assert [number for number, *_ in by_psycopg2.rows()] == [2]


def test_an_adopted_engine_on_psycopg2_goes_on_behind_a_savepoint(
    by_psycopg2: Place, adopting: dict[str, str]
) -> None:
    def handler(number: int, ctx: Context) -> None:
        put(ctx, number)
        with suppress(IntegrityError), ctx.connection.begin_nested():
            put(ctx, number)
        put(ctx, number + 1)
        assert [row.id for row in ctx.stream("SELECT id FROM item")] == []

    with by_psycopg2.worker(handler, **adopting) as worker:
        assert worker.run(1).verdict == "acked"
    assert [number for number, *_ in by_psycopg2.rows()] == [1, 2]


def test_autocommit_in_the_url_ends_the_start_in_words(server_place: Place) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"database\.url .* is set to autocommit"),
        server_place.worker(store, url=f"{server_place.url}?autocommit=true"),
    ):
        pass
    assert server_place.connections_once(0) == []


@pytest.mark.parametrize("how", ["autocommit", "autocommitting"])
def test_an_adopted_engine_that_commits_by_itself_ends_the_start_in_words(
    place: Place, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEGACY_URL", place.url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    with (
        pytest.raises(ConfigurationError, match=f"the engine of {LEGACY}:{how} .* is set to autocommit"),
        place.worker(store, engine=f"{LEGACY}:{how}"),
    ):
        pass
    if place.server is None:
        return
    # Then each message has its own level, and with it a transaction.
    with place.worker(store, engine=f"{LEGACY}:{how}", isolation_level="SERIALIZABLE") as worker:
        assert worker.run(1).verdict == "acked"
    assert len(place.rows()) == 1


def test_an_adopted_engine_that_begins_by_its_own_events_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    monkeypatch.setenv("LEGACY_URL", url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    with Place("sqlite", url).worker(store, engine=f"{LEGACY}:beginning") as worker:
        assert worker.run(1).verdict == "retried"
