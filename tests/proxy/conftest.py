from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from penstock import SQLProxy


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one table of 1,000 numbers."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x)")
        connection.executemany("INSERT INTO t (x) VALUES (?)", ((x,) for x in range(1000)))
    return path


@pytest.fixture
def proxy(path: Path) -> Iterator[SQLProxy]:
    with SQLProxy(path, processes=2, wait_s=20) as proxy:
        yield proxy
