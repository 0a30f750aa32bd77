"""A statement that MySQL finds too long costs its own message, charged and in words: the server ends the connection for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from penstock.app.context import Context
from penstock.app.handlers import DatabaseWay
from penstock.app.outcomes import Raised
from penstock.workers.database import mysql
from tests.workers.databases.place import Place, put, store

LEGACY = "tests.workers.databases.legacy"
WAYS: dict[str, tuple[DatabaseWay, dict[str, str]]] = {
    "own": ("own", {}),
    "channel": ("channel", {}),
    "adopted session": ("own", {"session": f"{LEGACY}:DBSession"}),
    "adopted engine": ("own", {"engine": f"{LEGACY}:engine"}),
}


@pytest.fixture
def frugal_place(mariadb_place: Place) -> Iterator[Place]:
    """Its server takes less than any client would send."""
    [(usual,)] = mariadb_place.running.execute("SELECT @@global.max_allowed_packet")
    mariadb_place.running.execute(f"SET GLOBAL max_allowed_packet = {2**20}")
    yield mariadb_place
    mariadb_place.running.execute(f"SET GLOBAL max_allowed_packet = {usual}")


@pytest.mark.parametrize("given", WAYS)
@pytest.mark.parametrize("length", [2**20, 3 * 2**20, 17 * 2**20])
def test_it_is_charged_to_its_message_alone(
    frugal_place: Place, given: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handler(_: int, ctx: Context) -> None:
        put(ctx, 1)
        ctx.connection.execute(text("SELECT length(:long)"), {"long": "x" * length})

    way, settings = WAYS[given]
    monkeypatch.setenv("LEGACY_URL", frugal_place.url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    place = replace(frugal_place, way=way, settings=settings)
    with place.worker(handler, store) as worker:
        outcome = worker.run().outcome
        assert isinstance(outcome, Raised)
        assert "max_allowed_packet" in str(outcome) or "limits.frame_bytes" in str(outcome)
        assert outcome.charged
        assert worker.run(2, "q1").verdict == "acked"
    assert [number for number, *_ in place.rows()] == [2]


@pytest.mark.parametrize("given", ["own", "adopted session", "adopted engine"])
def test_what_only_the_server_finds_too_long_is_charged_whatever_the_handler_catches(
    frugal_place: Place, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if we had not been told, or something between us and the server took less.
    monkeypatch.setattr(mysql, "check_length", lambda *_: None)

    caught: list[DBAPIError] = []

    def handler(_: int, ctx: Context) -> None:
        put(ctx, 1)
        try:
            ctx.connection.execute(text("SELECT length(:long)"), {"long": "x" * 2**20})
        except DBAPIError as error:
            caught.append(error)
        put(ctx, 2)

    way, settings = WAYS[given]
    monkeypatch.setenv("LEGACY_URL", frugal_place.url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    place = replace(frugal_place, way=way, settings=settings)
    with place.worker(handler, store) as worker:
        outcome = worker.run().outcome
        assert isinstance(outcome, Raised)
        assert len(caught) == 1
        assert outcome.charged
        assert worker.run(3, "q1").verdict == "acked"
    assert [number for number, *_ in place.rows()] == [3]
