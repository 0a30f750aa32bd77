"""The compliance suite of PEP 249 on the drivers of database servers, over the channel and by themselves: both run the same tests."""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import dbapi20
import psycopg
import pymysql
import pytest
from sqlalchemy import make_url

from penstock.channels.dbapi import mysql, postgresql
from tests.channels.dbapi.served import served
from tests.servers import Server, database_on


@pytest.fixture(scope="module")
def on_mariadb(mariadb: Server) -> Iterator[str]:
    with database_on(mariadb) as url:
        yield url


@pytest.fixture(scope="module")
def on_postgresql(postgresql: Server) -> Iterator[str]:
    with database_on(postgresql) as url:
        yield url


class _Strict:
    """Raises where PEP 249 wants it and PyMySQL gives None or nothing: fetching what no query gave."""

    def fetchone(self: Any) -> Any:
        return self._checked().fetchone()

    def fetchmany(self: Any, *size: Any) -> Any:
        return self._checked().fetchmany(*size)

    def fetchall(self: Any) -> Any:
        return self._checked().fetchall()

    def _checked(self: Any) -> Any:
        if self.description is None:
            raise pymysql.ProgrammingError("no result to fetch")
        return super()


class _Cursor(_Strict, mysql.Cursor):
    """Ours."""


class _DriversCursor(_Strict, pymysql.cursors.Cursor):
    """The driver's."""


class _OnMySQL:
    lower_func = "penstock_lower"

    def tearDown(self: Any) -> None:
        with closing(self._connect()) as connection:
            for name in ("booze", "barflys"):
                with suppress(pymysql.Error):
                    connection.cursor().execute(f"drop table {self.table_prefix}{name}")

    @unittest.skip(
        "PyMySQL's callproc gives back what it was given, a procedure's result is fetched: tried beside"
    )
    def test_callproc(self) -> None: ...

    @unittest.skip("the suite leaves it to each driver; several results are tried beside")
    def test_nextset(self) -> None: ...

    @unittest.skip("the suite leaves it to each driver; it is nothing here, as in PyMySQL")
    def test_setoutputsize(self) -> None: ...


class OnMySQLOverChannel(_OnMySQL, dbapi20.DatabaseAPI20Test):
    driver: Any = mysql

    @pytest.fixture(autouse=True)
    def _database(self, on_mariadb: str) -> Iterator[None]:
        self.connect_kw_args = {"cursorclass": _Cursor}
        with served(on_mariadb):
            yield


class OnPyMySQL(_OnMySQL, dbapi20.DatabaseAPI20Test):
    driver: Any = pymysql

    @pytest.fixture(autouse=True)
    def _database(self, on_mariadb: str) -> None:
        url = make_url(on_mariadb)
        self.connect_kw_args = {
            "host": url.host,
            "port": url.port,
            "user": url.username,
            "password": url.password,
            "database": url.database,
            "cursorclass": _DriversCursor,
        }

    @unittest.skip("PyMySQL's is called setoutputsizes; ours has both names")
    def test_setoutputsize_basic(self) -> None: ...


class _OnPostgreSQL:
    def tearDown(self: Any) -> None:
        with closing(self._connect()) as connection:
            connection.autocommit = True
            for name in ("booze", "barflys"):
                connection.execute(f"drop table if exists {self.table_prefix}{name}")

    @unittest.skip("psycopg has no callproc")
    def test_callproc(self) -> None: ...

    @unittest.skip("the suite leaves it to each driver; several results are tried beside")
    def test_nextset(self) -> None: ...

    @unittest.skip("the suite leaves it to each driver; it is nothing here, as in psycopg")
    def test_setoutputsize(self) -> None: ...

    @unittest.skip("closing twice is harmless, as in psycopg")
    def test_non_idempotent_close(self) -> None: ...


class OnPostgreSQLOverChannel(_OnPostgreSQL, dbapi20.DatabaseAPI20Test):
    driver: Any = postgresql

    @pytest.fixture(autouse=True)
    def _database(self, on_postgresql: str) -> Iterator[None]:
        with served(on_postgresql):
            yield


# Two of the suite's tests leave their connections to the collector, of which psycopg warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class OnPsycopg(_OnPostgreSQL, dbapi20.DatabaseAPI20Test):
    driver: Any = psycopg

    @pytest.fixture(autouse=True)
    def _database(self, on_postgresql: str) -> None:
        self.connect_args: Any = (
            make_url(on_postgresql).set(drivername="postgresql").render_as_string(hide_password=False),
        )
