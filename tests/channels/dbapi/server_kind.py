"""What differs between the drivers of database servers, for the tests that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import pymysql
import pytest

from penstock.channels.dbapi import mysql, postgresql
from penstock.channels.dbapi.link import Link
from penstock.channels.dbapi.mysql.session import Session as MySQLSession
from penstock.channels.dbapi.postgresql.session import Session as PostgreSQLSession
from tests.servers import Server


@dataclass(frozen=True)
class Kind:
    """One of them, and an empty database."""

    url: str
    server: Server
    module: Any
    driver: Any
    make: Callable[[Link], Any]
    numbers: str
    sleep: str
    own_id: str

    @property
    def values(self) -> list[Any]:
        """What is committed in the table."""
        return [value for (value,) in self.server.execute("SELECT v FROM t ORDER BY id", url=self.url)]


def kind_of(request: pytest.FixtureRequest) -> Kind:
    """By the fixture's parameter."""
    if request.param == "mysql":
        return Kind(
            request.getfixturevalue("mariadb_url"),
            request.getfixturevalue("mariadb"),
            mysql,
            pymysql,
            lambda link: mysql.Connection(MySQLSession(link)),
            "SELECT seq, lpad(seq, 99, '0') FROM seq_1_to_{}",
            "SELECT sleep(30)",
            "SELECT CONNECTION_ID()",
        )
    return Kind(
        request.getfixturevalue("postgresql_url"),
        request.getfixturevalue("postgresql"),
        postgresql,
        psycopg,
        lambda link: postgresql.Connection(PostgreSQLSession(link)),
        "SELECT i, lpad(i::text, 99, '0') FROM generate_series(1, {}) AS i",
        "SELECT pg_sleep(30)",
        "SELECT pg_backend_pid()",
    )
