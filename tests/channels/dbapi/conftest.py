"""A database behind the channel, and this process as a worker of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from penstock.channels.dbapi import sqlite
from tests.channels.dbapi.served import Served, served
from tests.channels.dbapi.server_kind import Kind, kind_of


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def service(database: Path) -> Iterator[Served]:
    with served(database) as made:
        yield made


@pytest.fixture
def table(service: Served) -> Served:
    with closing(sqlite.connect()) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE)")
    return service


@pytest.fixture(params=["mysql", "postgresql"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return kind_of(request)


@pytest.fixture
def on_server(kind: Kind) -> Iterator[Served]:
    kind.server.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v VARCHAR(99) UNIQUE)", url=kind.url)
    with served(kind.url, server_connections=2, wait_s=0.3) as made:
        yield made
