"""What the tests run in subprocesses."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

import psutil


class UnusualError(Exception):
    """Nobody else's."""


def pid(_connection: Any) -> int:
    return os.getpid()


def reduced(connection: Any, low: int) -> int:
    return sum(x for (x,) in connection.execute("SELECT x FROM t WHERE x >= ?", (low,)))


def same(_connection: Any, value: Any) -> Any:
    return value


def insert(connection: Any, x: int) -> int:
    connection.execute("INSERT INTO t (x) VALUES (?)", (x,))
    return x


def insert_and_fail(connection: Any, x: int) -> None:
    insert(connection, x)
    raise ValueError(f"no {x}")


def unusual(_connection: Any) -> None:
    raise UnusualError("quite")


def missing_file(_connection: Any) -> None:
    raise FileNotFoundError(2, "not there", "x")


def unreturnable(_connection: Any) -> Any:
    return object()


def leave_a_mess(connection: Any) -> None:
    connection.row_factory = lambda *_: "mess"
    connection.text_factory = bytes


def modules(_connection: Any) -> list[str]:
    return sorted(sys.modules)


def rss_mib(_connection: Any) -> float:
    return float(psutil.Process().memory_info().rss / 2**20)


def threads(_connection: Any) -> int:
    return threading.active_count()


def kill_self(_connection: Any) -> None:
    os.kill(os.getpid(), 9)


def sleep(_connection: Any, seconds: float) -> None:
    time.sleep(seconds)
