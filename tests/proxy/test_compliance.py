"""The compliance suite of PEP 249 (`dbapi20`, of the package dbapi-compliance) on the proxy's connections.

On SQLite, whose statements go to different subprocesses, and on a driver by its name, whose transactions stay on one.
"""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dbapi20
import pytest

from penstock import SQLProxy


class OnSqlite(dbapi20.DatabaseAPI20Test):
    driver: Any = None
    driver_name = "sqlite3"

    @pytest.fixture(autouse=True)
    def _proxy(self, tmp_path: Path) -> Iterator[None]:
        with SQLProxy(tmp_path / "app.db", driver=self.driver_name, processes=2) as proxy:
            self.driver = proxy
            yield

    @unittest.skip("columns of SQLite have no type: sqlite3 says None too")
    def test_description(self) -> None: ...

    @unittest.skip("SQLite has no stored procedures; sqlite3 has no callproc either")
    def test_callproc(self) -> None: ...

    @unittest.skip("a statement of SQLite has one result; sqlite3 has no nextset either")
    def test_nextset(self) -> None: ...

    @unittest.skip("the suite leaves it to each driver; it is nothing here, as in sqlite3")
    def test_setoutputsize(self) -> None: ...


class OnADriverByName(OnSqlite):
    driver_name = "sqlite3.dbapi2"
