"""A database with one table, for handlers under test."""

import sqlite3
from pathlib import Path

import pytest


@pytest.fixture
def database(tmp_path: Path) -> str:
    connection = sqlite3.connect(tmp_path / "app.db")
    connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, total TEXT CHECK (total <> '0.13'))")
    connection.close()
    return f"sqlite:///{tmp_path}/app.db"
