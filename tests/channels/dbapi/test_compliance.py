"""The compliance suite of PEP 249 (`dbapi20`, of the package dbapi-compliance), on the channel and on the driver itself.

Both run the same tests. Where `sqlite3` departs from PEP 249 we depart with it, because programs count on it: its
`fetch…` gives None or nothing where PEP 249 wants an error, so here cursors stand that raise it.
"""

from __future__ import annotations

import sqlite3
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dbapi20
import pytest

from penstock.channels.dbapi import sqlite
from tests.channels.dbapi.served import served


class _Strict:
    """Raises where PEP 249 wants it and sqlite3 does not."""

    def fetchone(self: Any) -> Any:
        return self._checked().fetchone()

    def fetchmany(self: Any, *size: Any, **_named: Any) -> Any:
        return self._checked().fetchmany(*size)

    def fetchall(self: Any) -> Any:
        return self._checked().fetchall()

    def _checked(self: Any) -> Any:
        if self.description is None:
            raise sqlite3.ProgrammingError("no result to fetch")
        return super()


class _Cursor(_Strict, sqlite.Cursor):
    """Ours."""


class _DriversCursor(_Strict, sqlite3.Cursor):
    """The driver's."""


class _Connection(sqlite.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)


class _DriversConnection(sqlite3.Connection):
    def cursor(self, factory: Any = _DriversCursor) -> Any:
        return super().cursor(factory)


class OnChannel(dbapi20.DatabaseAPI20Test):
    driver: Any = sqlite

    @pytest.fixture(autouse=True)
    def _database(self, tmp_path: Path) -> Iterator[None]:
        self.connect_kw_args = {"factory": _Connection}
        with served(tmp_path / "app.db"):
            yield

    @unittest.skip("columns of SQLite have no type: sqlite3 says None too")
    def test_description(self) -> None: ...

    @unittest.skip("SQLite has no stored procedures; sqlite3 has no callproc either")
    def test_callproc(self) -> None: ...

    @unittest.skip("a statement of SQLite has one result; sqlite3 has no nextset either")
    def test_nextset(self) -> None: ...

    @unittest.skip("the suite leaves it to each driver; it is nothing here, as in sqlite3")
    def test_setoutputsize(self) -> None: ...

    @unittest.skip("closing twice is harmless, as in sqlite3")
    def test_non_idempotent_close(self) -> None: ...


class OnDriver(OnChannel):
    driver: Any = sqlite3

    @pytest.fixture(autouse=True)
    def _database(self, tmp_path: Path) -> Iterator[None]:
        self.connect_kw_args = {"database": tmp_path / "app.db", "factory": _DriversConnection}
        yield
        self.connect_kw_args = {}

    @unittest.skip("sqlite3 has no objects for types; ours stand there and equal nothing")
    def test_STRING(self) -> None: ...  # noqa: N802

    test_BINARY = test_NUMBER = test_DATETIME = test_ROWID = test_STRING  # noqa: N815
