"""What handlers under test have committed."""

import sqlite3
from typing import Any


def rows(database: str) -> list[Any]:
    connection = sqlite3.connect(database.removeprefix("sqlite:///"))
    try:
        return connection.execute("SELECT id, total FROM orders ORDER BY id").fetchall()
    finally:
        connection.close()
