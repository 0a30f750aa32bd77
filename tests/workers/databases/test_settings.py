"""Isolation by setting and by handler, an age, and a cap: on each database."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from penstock.app.application import App
from penstock.app.context import AsyncContext, Context
from penstock.config.database import IsolationLevel
from penstock.errors import ConfigurationError, HandlerError
from tests.servers import MariaDBServer, PostgreSQLServer, Template
from tests.workers.databases.place import Place, put, running_on, store

SEEN: list[str] = []


def look(_: int, ctx: Context) -> None:
    SEEN.append(ctx.connection.get_isolation_level())


def levels(place: Place, isolations: list[IsolationLevel | None], **settings: object) -> list[str]:
    """What one handler an isolation sees, in turn; it is the same connection all the time."""
    SEEN.clear()
    app = App()
    for number, isolation in enumerate(isolations):
        app.handler(f"q{number}", isolation=isolation)(look)
    with running_on(app, place.url, **settings) as worker:
        before = None if place.server is None else place.connections_once(1)
        for number in range(len(isolations)):
            assert worker.run(queue=f"q{number}").verdict == "acked"
        assert before is None or place.connections == before
    return list(SEEN)


def test_a_handler_says_its_isolation_and_the_next_one_has_its_own(server_place: Place) -> None:
    default = "REPEATABLE READ" if server_place.kind == "mariadb" else "READ COMMITTED"
    assert levels(server_place, ["SERIALIZABLE", None, "READ COMMITTED", "SERIALIZABLE", None]) == [
        "SERIALIZABLE",
        default,
        "READ COMMITTED",
        "SERIALIZABLE",
        default,
    ]


def test_the_setting_is_for_handlers_that_say_nothing(server_place: Place) -> None:
    assert levels(server_place, [None, "SERIALIZABLE", None], isolation_level="READ UNCOMMITTED") == [
        "READ UNCOMMITTED",
        "SERIALIZABLE",
        "READ UNCOMMITTED",
    ]


def test_sqlite_knows_serializable(place: Place) -> None:
    assert levels(place, ["SERIALIZABLE"]) == ["SERIALIZABLE"]


def test_a_level_that_the_database_does_not_know_ends_the_start_in_words(tmp_path: object) -> None:
    app = App()
    app.handler("q0", isolation="REPEATABLE READ")(look)
    plain = App()
    plain.handler("q0")(look)
    with (
        pytest.raises(
            ConfigurationError, match=r"look: isolation says 'REPEATABLE READ', which sqlite.*SERIALIZABLE"
        ),
        running_on(app, f"sqlite:///{tmp_path}/app.db"),
    ):
        pass
    with (
        pytest.raises(ConfigurationError, match=r"database\.isolation_level says 'READ COMMITTED'"),
        running_on(plain, f"sqlite:///{tmp_path}/app.db", isolation_level="READ COMMITTED"),
    ):
        pass


def test_an_isolation_that_nobody_knows_or_that_an_async_handler_wants_is_refused_where_it_is_declared() -> (
    None
):
    with pytest.raises(HandlerError, match="isolation='CHAOS' is not known"):
        App().handler("q", isolation="CHAOS")  # type: ignore[arg-type]

    async def handler(payload: int, ctx: AsyncContext) -> None: ...

    with pytest.raises(HandlerError, match=r"is async and says isolation="):
        App().handler("q", isolation="SERIALIZABLE")(handler)


def test_a_connection_is_replaced_when_it_is_old(server_place: Place) -> None:
    with server_place.worker(store, recycle_s=1e-6) as worker:
        seen = [server_place.connections_once(1)]
        for number in range(2):
            worker.run(number)
            seen.append(server_place.connections_once(1))
    assert all(len(one) == 1 for one in seen)
    assert len({number for one in seen for number in one}) == 3


def test_a_transaction_is_not_cut_for_its_age(server_place: Place) -> None:
    def handler(payload: int, ctx: Context) -> None:
        put(ctx, payload)
        before = server_place.connections
        put(ctx, payload + 1)
        assert server_place.connections == before

    with server_place.worker(handler, recycle_s=1e-6) as worker:
        assert worker.run(1).verdict == "acked"


@pytest.mark.parametrize("kind", [MariaDBServer, PostgreSQLServer])
def test_more_workers_than_the_server_has_connections_for_do_not_start(
    kind: type[MariaDBServer | PostgreSQLServer], request: pytest.FixtureRequest
) -> None:
    template: Template = request.getfixturevalue(f"_{kind.kind}_template")
    with kind(template, options={"max_connections": "10"}) as server:
        url = server.new_database()
        place = Place(kind.kind, url, server)
        with (
            pytest.raises(ConfigurationError, match=r"there are 10 \(max_connections=10") as refused,
            place.worker(store, stream_connections=8),
        ):
            pass
        assert "1 worker opens up to 9 connections" in str(refused.value)
        assert "p/w@d" not in str(refused.value)
        assert server.connections_once(url, 0) == []
        with place.worker(store, stream_connections=7) as worker:
            assert worker.run(1, queue="q0").verdict == "retried"


def test_a_user_with_a_limit_of_his_own_is_held_to_it(server_place: Place) -> None:
    if server_place.kind == "mariadb":
        server_place.running.execute("CREATE USER few@'%' IDENTIFIED BY 'few' WITH MAX_USER_CONNECTIONS 3")
        server_place.running.execute("GRANT ALL ON *.* TO few@'%'")
    else:
        server_place.running.execute("CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 3")
    url = server_place.url.replace("penstock:p%2Fw%40d", "few:few")
    try:
        with (
            pytest.raises(ConfigurationError, match="there are 3"),
            server_place.worker(store, url=url, stream_connections=1),
        ):
            pass
    finally:
        server_place.running.execute(
            "DROP USER few@'%'" if server_place.kind == "mariadb" else "DROP ROLE few"
        )


def test_a_cap_of_our_own_is_kept_where_the_server_allows_more(place: Place) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"database\.max_connections") as refused,
        place.worker(store, max_connections=3),
    ):
        pass
    words = (
        "The service does not start: set database.stream_connections to 0 if no handler calls ctx.stream, or that limit to 4 "
        "or more"
    )
    others = "" if place.server is None else ", and higher for whoever else uses the server"
    assert str(refused.value).endswith(words + others)
    with place.worker(store, max_connections=4) as worker:
        assert worker.run(1).verdict == "acked"


def test_statements_in_the_check_leave_no_transaction_behind(server_place: Place) -> None:
    with server_place.worker(store) as worker:
        raw = worker.worker._worker._database._raw  # type: ignore[union-attr]
        if server_place.kind == "postgresql":
            assert raw.info.transaction_status.name == "IDLE"
        else:
            assert server_place.running.execute(
                f"SELECT count(*) FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = {raw.thread_id()}"
            ) == [(0,)]
        with server_place.outside() as other:
            other.execute(text("SELECT 1"))
