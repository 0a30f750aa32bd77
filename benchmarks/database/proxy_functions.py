"""What the proxy's part runs in subprocesses."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

COUNT: Final = "SELECT count(*) FROM data WHERE b > ?"
ROWS: Final = "SELECT a, b, c FROM data WHERE a > ? LIMIT 20000"

_connection: sqlite3.Connection | None = None


def reduce_rows(connection: Any, low: int) -> float:
    total = 0.0
    for _a, b, text in connection.execute(ROWS, (low,)):
        total += b * len(text)
    return total


def open_connection(path: str) -> None:
    global _connection  # noqa: PLW0603 - a pool's initializer has no other place
    _connection = sqlite3.connect(path)


def select_one(number: int) -> int:
    assert _connection is not None
    (value,) = _connection.execute("SELECT ?", (number,)).fetchone()
    return int(value)
