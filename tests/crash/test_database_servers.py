"""A database server that goes, comes back, cuts and times out its connections under a service that works."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from penstock.config.database import DatabaseSection
from penstock.errors import ConfigurationError
from penstock.workers.database.kinds import channel_kind
from tests.crash.database_scene import WAYS, WORKERS, DatabaseScene, Wave, play_on
from tests.servers import Server

COUNT = 90
#: Longer than a transaction of these stands still on a busy machine.
IDLE_S = {"mariadb": 3, "postgresql": 1}
#: The others are long.
EVERYDAY = {("own", "mariadb"), ("own", "postgresql"), ("session", "postgresql")}


def marks_of(way: str, server: str) -> list[pytest.MarkDecorator]:
    return [] if (way, server) in EVERYDAY else [pytest.mark.long]


BOTH = [
    pytest.param(server, way, marks=marks_of(way, server))
    for server in ("mariadb", "postgresql")
    for way in WAYS
    if (way, server) != ("mysqldb", "postgresql")
]


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    own: Server = request.getfixturevalue(f"own_{request.param}")
    return own


@pytest.mark.parametrize(("server", "way"), BOTH, indirect=["server"])
async def test_whatever_happens_to_the_server_under_load_costs_one_uncharged_run_of_what_was_in_a_transaction(
    server: Server, way: str, amqp_url: str, tmp_path: Path
) -> None:
    skip_what_is_not_here(server, way)
    async with play_on(server, way, amqp_url, tmp_path) as scene:
        await costs_nothing(scene, await scene.wave(COUNT // 3))
        await costs_a_run_of_what_was_in_a_transaction(scene, await scene.wave(COUNT, scene.kill_server))
        await costs_a_run_of_what_was_in_a_transaction(scene, await scene.wave(COUNT, server.restart))
        scene.set_idle_limit(IDLE_S[server.kind])
        await costs_a_run_of_what_was_in_a_transaction(scene, await scene.wave(COUNT, scene.kill_connections))
        assert await scene.connections(0) == []
        scene.set_idle_limit(0)
        await costs_what_idleness_costs(scene, await scene.wave(COUNT // 3))

        rude = scene.rude_goodbyes()
        await scene.stop()
        assert await scene.connections(0) == []
        assert scene.rude_goodbyes() == rude
        assert await scene.dead_letters() == []
        assert scene.service.boots == WORKERS


@pytest.mark.parametrize("way", ["own", pytest.param("session", marks=pytest.mark.long)])
@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
async def test_a_server_that_is_away_for_longer_than_a_handler_has_time_is_charged_to_nobody(
    server: Server, way: str, amqp_url: str, tmp_path: Path
) -> None:
    async with play_on(server, way, amqp_url, tmp_path, queue="r.timed") as scene:
        server.kill()
        ids = await scene.publish(3 * WORKERS)
        # A worker's 25 attempts take two or three seconds; the handler has half a one.
        await scene.service.wait_line("database not reachable; trying again", 25 * WORKERS)
        server.start()
        await costs_what_idleness_costs(scene, await scene.ended(ids))
        await scene.stop()
        assert await scene.dead_letters() == []
        assert scene.service.boots == WORKERS


async def costs_nothing(scene: DatabaseScene, wave: Wave) -> None:
    await adds_up(scene, wave)
    assert wave.retried == []


async def costs_what_idleness_costs(scene: DatabaseScene, wave: Wave) -> None:
    if scene.way in {"session", "engine"}:
        # Nobody looks at an adopted pool's connections before they are used, unless it pings them itself.
        await costs_a_run_of_what_was_in_a_transaction(scene, wave)
    else:
        await costs_nothing(scene, wave)


async def costs_a_run_of_what_was_in_a_transaction(scene: DatabaseScene, wave: Wave) -> None:
    await adds_up(scene, wave)
    if scene.way not in {"channel", "db"}:
        # A worker has one transaction at a time. Over the loop what finds no server comes again each second.
        assert len(wave.retried) <= WORKERS
        assert all(wave.runs[id_] == 2 for id_ in wave.retried)


async def adds_up(scene: DatabaseScene, wave: Wave) -> None:
    """Every message has its effect, at its first attempt, and each worker its connection."""
    assert wave.unexplained == []
    assert {row.attempt for rows in wave.done.values() for row in rows} == {1}
    most = scene.most_connections
    found = await scene.connections(most)
    if scene.way in {"own", "mysqldb", "session", "engine"}:
        assert len(found) == most
    else:
        assert len(found) <= most


def skip_what_is_not_here(server: Server, way: str) -> None:
    if way == "mysqldb":
        pytest.importorskip(
            "MySQLdb", reason="mysqlclient is not installed: scripts/databases says what it needs"
        )
    if way == "channel":
        try:
            channel_kind(DatabaseSection(url=SecretStr(server.url)))
        except ConfigurationError as error:
            pytest.skip(str(error))
