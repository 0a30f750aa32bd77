"""The same tests on each database: a file, MariaDB, PostgreSQL.

`place`         an empty database on a server that all tests share, or a file
`server_place`  the same, servers only
`own_place`     on a server for this test alone, to be killed and restarted
`way`           how handlers have their database there; a module that tries both has a fixture of this name
"""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.app.handlers import DatabaseWay
from tests.servers import Server
from tests.workers.databases.place import TABLE, Place

SERVERS = ["mariadb", "postgresql"]


@pytest.fixture
def way() -> DatabaseWay:
    return "own"


@pytest.fixture(params=["sqlite", *SERVERS])
def place(request: pytest.FixtureRequest, tmp_path: Path, way: DatabaseWay) -> Place:
    if request.param == "sqlite":
        return with_table(Place("sqlite", f"sqlite:///{tmp_path / 'app.db'}", way=way))
    return on_server(request, way)


@pytest.fixture(params=SERVERS)
def server_place(request: pytest.FixtureRequest, way: DatabaseWay) -> Place:
    return on_server(request, way)


@pytest.fixture
def mariadb_place(mariadb: Server, mariadb_url: str) -> Place:
    return with_table(Place("mariadb", mariadb_url, mariadb))


@pytest.fixture
def postgresql_place(postgresql: Server, postgresql_url: str) -> Place:
    return with_table(Place("postgresql", postgresql_url, postgresql))


@pytest.fixture(params=SERVERS)
def own_place(request: pytest.FixtureRequest, way: DatabaseWay) -> Place:
    server: Server = request.getfixturevalue(f"own_{request.param}")
    return with_table(Place(request.param, server.new_database(), server, way))


def on_server(request: pytest.FixtureRequest, way: DatabaseWay) -> Place:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return with_table(Place(request.param, url, request.getfixturevalue(request.param), way))


def with_table(place: Place) -> Place:
    with place.outside() as other:
        other.exec_driver_sql(TABLE)
        other.commit()
    return place
