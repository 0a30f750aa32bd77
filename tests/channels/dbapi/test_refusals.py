"""What of a driver does not cross the channel: one way of saying so for all three packages."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

import psycopg
import pymysql
import pytest

from penstock.channels.dbapi import mysql, postgresql, sqlite
from penstock.channels.dbapi.mysql.refusals import REFUSALS as REFUSALS_OF_MYSQL
from penstock.channels.dbapi.postgresql.refusals import REFUSALS as REFUSALS_OF_POSTGRESQL
from penstock.channels.dbapi.refusals import Refusals
from penstock.channels.dbapi.sqlite.refusals import REFUSALS as REFUSALS_OF_SQLITE


@dataclass(frozen=True)
class Package:
    """One of ours, and the driver that it speaks as."""

    ours: Any
    driver: Any
    refusals: Refusals

    def objects(self) -> list[Any]:
        """A connection that nobody asks, and a cursor of it."""
        connection = self.ours.Connection(None)
        return [connection, self.ours.Cursor(connection)]


PACKAGES = {
    "sqlite": Package(sqlite, sqlite3, REFUSALS_OF_SQLITE),
    "mysql": Package(mysql, pymysql, REFUSALS_OF_MYSQL),
    "postgresql": Package(postgresql, psycopg, REFUSALS_OF_POSTGRESQL),
}
NAMES = [(kind, name) for kind, package in PACKAGES.items() for name in sorted(package.refusals.names)]


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_a_name_is_looked_up_in_vain_and_says_why(kind: str, name: str) -> None:
    package = PACKAGES[kind]
    # sqlite3's cursors have nothing that does not cross.
    for one in package.objects()[: 1 if kind == "sqlite" else 2]:
        assert not hasattr(one, name)
        assert getattr(one, name, None) is None
        with pytest.raises(
            package.driver.NotSupportedError, match=f"^{name} does not cross the database channel: ..."
        ) as raised:
            getattr(one, name)
        assert isinstance(raised.value, AttributeError)


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_name_that_nobody_knows_is_nobody_s(kind: str) -> None:
    for one in PACKAGES[kind].objects():
        with pytest.raises(AttributeError, match="has no attribute 'nothing_of_the_kind'") as raised:
            _ = one.nothing_of_the_kind
        assert not isinstance(raised.value, PACKAGES[kind].driver.NotSupportedError)


def test_a_connection_of_sqlite_s_is_not_called() -> None:
    with pytest.raises(sqlite3.NotSupportedError, match="execute it"):
        sqlite.Connection(None)("SELECT 1")  # type: ignore[arg-type] # it is not asked
