"""Which losses the message itself may be the reason of: those of a connection that lived when the handler took it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from sqlalchemy import text

from penstock.app.application import App
from penstock.app.context import AsyncContext, Context
from penstock.app.handlers import DatabaseWay
from penstock.app.outcomes import Raised
from penstock.testing.result import Result
from penstock.workers import adopted
from penstock.workers import connection as connection_module
from tests.workers.databases.place import Place, put, running_on, store

LEGACY = "tests.workers.databases.legacy"
#: Ends the connection that it is said on.
SUICIDE = {"mariadb": "KILL CONNECTION_ID()", "postgresql": "SELECT pg_terminate_backend(pg_backend_pid())"}


@pytest.fixture(params=["own", "channel"])
def way(request: pytest.FixtureRequest) -> DatabaseWay:
    found: DatabaseWay = request.param
    return found


def is_lost_amid(result: Result) -> bool:
    assert isinstance(result.outcome, Raised)
    assert not result.outcome.charged
    return result.outcome.lost_amid


def test_a_statement_that_ends_its_connection(server_place: Place) -> None:
    def on_connection(payload: int, ctx: Context) -> None:
        put(ctx, payload)
        ctx.connection.execute(text(SUICIDE[server_place.kind]))

    def on_db(payload: int, ctx: Context) -> None:
        ctx.db.fetch_all(SUICIDE[server_place.kind])

    def in_transaction(payload: int, ctx: Context) -> None:
        with ctx.db.transaction() as tx:
            tx.fetch_all(SUICIDE[server_place.kind])

    def caught(payload: int, ctx: Context) -> None:
        try:
            on_connection(payload, ctx)
        except Exception:  # noqa: BLE001
            raise ValueError("what the handler makes of it") from None

    with server_place.worker(on_connection, on_db, in_transaction, caught, store) as worker:
        assert [is_lost_amid(worker.run(1, queue)) for queue in ("q0", "q1", "q2", "q3")] == [True] * 4
        assert worker.run(5, "q4").verdict == "acked"
    assert [number for number, *_ in server_place.rows()] == [5]


def test_a_statement_of_an_async_handler_that_ends_its_connection(server_place: Place) -> None:
    app = App()

    @app.handler("q0")
    async def handler(payload: int, ctx: AsyncContext) -> None:
        await ctx.db.fetch_all(SUICIDE[server_place.kind])

    with running_on(app, server_place.url) as worker:
        assert is_lost_amid(worker.run(1))


@pytest.fixture(params=[("session", "DBSession"), ("engine", "engine")], ids=lambda names: names[0])
def adopting(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], dict[str, str]]:
    """The settings that adopt the application's own, once it is told where the database is."""

    def settings(url: str) -> dict[str, str]:
        monkeypatch.setenv("LEGACY_URL", url)
        monkeypatch.delitem(sys.modules, LEGACY, raising=False)
        setting, name = request.param
        return {setting: f"{LEGACY}:{name}"}

    return settings


@pytest.mark.parametrize("way", ["own"])
def test_a_statement_that_ends_an_adopted_connection(
    server_place: Place, adopting: Callable[[str], dict[str, str]]
) -> None:
    def handler(payload: int, ctx: Context) -> None:
        ctx.connection.execute(text(SUICIDE[server_place.kind]))

    with server_place.worker(handler, store, **adopting(server_place.url)) as worker:
        assert is_lost_amid(worker.run(1))
        assert worker.run(5, "q1").verdict == "acked"


def over_channel(payload: int, ctx: Context) -> None:
    ctx.db.fetch_all("SELECT 1")


@pytest.mark.parametrize("handler", [store, over_channel])
def test_a_server_that_cannot_be_reached_is_no_loss(
    own_place: Place, handler: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "REOPEN_WAIT_S", 0.1)
    with own_place.worker(handler) as worker:
        assert worker.run(1).verdict == "acked"
        own_place.running.stop()
        # Over the channel the first one may still find a connection that has heard of the end.
        worker.run(2)
        assert not is_lost_amid(worker.run(2))
        own_place.running.start()
        assert worker.run(3).verdict == "acked"


@pytest.mark.parametrize("way", ["own"])
def test_a_server_that_cannot_be_reached_is_no_loss_of_an_adopted_engine(
    own_place: Place, adopting: Callable[[str], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopted, "REOPEN_WAIT_S", 0.1)
    with own_place.worker(store, **adopting(own_place.url)) as worker:
        assert worker.run(1).verdict == "acked"
        own_place.running.stop()
        # This one had the connection that went with the server.
        assert is_lost_amid(worker.run(2))
        assert not is_lost_amid(worker.run(2))
        own_place.running.start()
        assert worker.run(3).verdict == "acked"
