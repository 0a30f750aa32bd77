"""What the tests run in subprocesses."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from contextlib import closing, suppress
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


def zeros(_connection: Any, length: int) -> bytes:
    return bytes(length)


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


def insert_and_return(connection: Any, x: int, length: int) -> bytes:
    insert(connection, x)
    return bytes(length)


def insert_and_return_an_object(connection: Any, x: int) -> Any:
    insert(connection, x)
    return object()


def insert_and_close(connection: Any, x: int) -> int:
    with closing(connection):
        return insert(connection, x)


def read_and_close(connection: Any) -> int:
    with closing(connection):
        return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])


def read_and_close_past_us(connection: Any) -> int:
    found = read_and_close(connection)
    sqlite3.Connection.close(connection)
    return found


def insert_and_close_past_us(connection: Any, x: int) -> None:
    insert(connection, x)
    sqlite3.Connection.close(connection)


def leave_attributes(connection: Any) -> None:
    connection.row_factory = lambda *_: "mess"
    connection.text_factory = bytes


def leave_function(connection: Any) -> None:
    connection.create_function("upper", 1, lambda _text: "mess")


def leave_level(connection: Any) -> None:
    connection.isolation_level = "DEFERRED"


def leave_collation(connection: Any) -> None:
    connection.create_collation("mess", lambda _one, _other: 0)


def leave_no_authorizer(connection: Any) -> None:
    connection.set_authorizer(None)


def identity(connection: Any) -> int:
    return id(connection)


def execute(connection: Any, *statements: str) -> Any:
    """On any driver; what the last one gives."""
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    return cursor.fetchone()


def insert_and_close_on_server(connection: Any) -> None:
    execute(connection, "INSERT INTO t VALUES (7)", "SELECT 1")
    connection.close()


def close_on_server(connection: Any) -> int:
    connection.close()
    return 1


def set_attribute(connection: Any, name: str, value: Any) -> None:
    execute(connection, "SELECT 1")
    connection.rollback()
    setattr(connection, name, value)


def catch(connection: Any, *statements: str) -> None:
    """Catches whatever a statement raises, and goes on."""
    cursor = connection.cursor()
    for statement in statements:
        with suppress(Exception):
            cursor.execute(statement)


def catch_and_commit(connection: Any, *statements: str) -> None:
    """Catches whatever a statement raises, and commits."""
    catch(connection, *statements)
    connection.commit()


def catch_by_shortcut(connection: Any, *statements: str) -> None:
    """The same without a cursor."""
    for statement in statements:
        with suppress(Exception):
            connection.execute(statement)


def catch_and_begin_again(connection: Any, first: str, second: str) -> None:
    catch(connection, *first.split(";"))
    connection.rollback()
    connection.cursor().execute(second)


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
