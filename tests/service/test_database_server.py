"""A database server that goes and comes back under a service that works: nothing lost, nothing twice, nobody charged."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select

from penstock.app import header_names
from penstock.errors import PenstockError
from penstock.reactor import decide
from tests.servers import Server
from tests.service.application import effects, metadata
from tests.service.running import running

COUNT = 300
#: Ends the connection that it is said on.
SUICIDE = {"mariadb": "KILL CONNECTION_ID()", "postgresql": "SELECT pg_terminate_backend(pg_backend_pid())"}


@pytest.fixture(params=["mariadb", "postgresql"])
def server(request: pytest.FixtureRequest) -> Server:
    own: Server = request.getfixturevalue(f"own_{request.param}")
    return own


def stop_in_order(server: Server) -> None:
    server.stop()


def kill(server: Server) -> None:
    server.kill()


@pytest.mark.parametrize("end", [stop_in_order, kill])
async def test_a_server_that_restarts_under_load_loses_nothing_and_charges_nobody(
    server: Server, end: object, amqp_url: str, tmp_path: Path
) -> None:
    assert callable(end)
    url = server.new_database()
    engine = create_engine(url)
    metadata.create_all(engine)
    engine.dispose()

    async with running(amqp_url, tmp_path, only=("t.once",), database={"url": url}) as service:
        assert len(server.connections(url)) <= 2
        names = [f"m{number}" for number in range(COUNT)]
        await service.publish("t.once", *({"id": number} for number in range(COUNT)), ids=names)
        await service.until(lambda s: s.acked >= 20)
        await asyncio.to_thread(end, server)
        await asyncio.to_thread(server.start)
        await service.settled(COUNT)
        assert len(server.connections(url)) <= 2

    assert await asyncio.to_thread(server.connections_once, url, 0) == []
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(select(effects.c.message_id, effects.c.attempt)).all()
    engine.dispose()
    assert sorted(row.message_id for row in rows) == sorted(names)
    assert {row.attempt for row in rows} == {1}


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
async def test_a_worker_killed_in_its_transaction_leaves_no_row_and_no_lock_on_the_server(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    engine = create_engine(url)
    metadata.create_all(engine)

    async with running(
        f"sqlite:///{tmp_path}/bus.db", tmp_path, only=("t.dies",), database={"url": url}
    ) as service:
        await service.publish("t.dies", {"how": "kill", "times": 1})
        await service.settled(1)

    with engine.connect() as connection:
        assert connection.execute(select(effects.c.attempt)).all() == [(2,)]
    engine.dispose()


@pytest.mark.parametrize("kind", list(SUICIDE))
async def test_a_message_that_ends_its_own_connection_is_a_dead_letter_after_ten_runs_and_its_attempts(
    kind: str,
    bus_url: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decide, "UNCHARGED_DELAY_S", 0.02)
    url: str = request.getfixturevalue(f"{kind}_url")

    async with running(bus_url, tmp_path, only=("t.loses",), database={"url": url}) as service:
        await service.publish("t.loses", {"statement": SUICIDE[kind]})
        await service.settled(1)
        (letter,) = await service.dead("t.loses")

    runs = [line["attempt"] for line in service.lines if line["event"] == "begun"]
    assert runs == [1] * 11 + [2, 3]
    assert "lost amid its work 13 times in a row" in str(letter[header_names.REASON])
    assert letter[header_names.ATTEMPTS] == 3


async def test_a_service_with_more_workers_than_connections_does_not_start(
    mariadb_url: str, tmp_path: Path
) -> None:
    with pytest.raises(
        PenstockError, match=r"2 workers open up to 4 connections .*there are 5 \(database.max_conn"
    ):
        async with running(
            f"sqlite:///{tmp_path}/bus.db",
            tmp_path,
            only=("t.once",),
            database={"url": mariadb_url, "max_connections": 5},
        ):
            pass
