"""The DB-API (PEP 249) of SQLite over the database channel: as `sqlite3`, with every statement run on the loop.

```python
from penstock.channels.dbapi import sqlite

with sqlite.connect() as connection:                      # in a handler
    connection.execute("INSERT INTO t (v) VALUES (?)", (1,))
```
Paramstyle and exceptions are those of `sqlite3`: `except sqlite3.IntegrityError` catches ours.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from sqlite3 import (
    PARSE_COLNAMES,
    PARSE_DECLTYPES,
    Binary,
    DatabaseError,
    DataError,
    Date,
    DateFromTicks,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    PrepareProtocol,
    ProgrammingError,
    Row,
    Time,
    TimeFromTicks,
    TimestampFromTicks,
    Warning,  # noqa: A004 - PEP 249's name
    adapt,
    adapters,
    complete_statement,
    register_adapter,
    sqlite_version,
    sqlite_version_info,
)
from typing import Any, Final

from penstock.channels.dbapi.link import current_or
from penstock.channels.dbapi.sqlite.connection import LEGACY_TRANSACTION_CONTROL, Connection
from penstock.channels.dbapi.sqlite.cursor import Cursor
from penstock.channels.dbapi.sqlite.session import Session

apilevel: Final = "2.0"
#: Threads may share the module and, with `check_same_thread=False`, connections: each call takes its turn.
threadsafety: Final = 2
paramstyle: Final = "qmark"


class _TypeObject:
    """PEP 249's name for a kind of column. SQLite types values and not columns: it equals no type code."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


Timestamp: Final = dt.datetime
STRING: Final = _TypeObject("STRING")
BINARY: Final = _TypeObject("BINARY")
NUMBER: Final = _TypeObject("NUMBER")
DATETIME: Final = _TypeObject("DATETIME")
ROWID: Final = _TypeObject("ROWID")


def connect(  # noqa: PLR0917 - the driver's signature
    database: str | None = None,
    timeout: float = 5.0,  # noqa: ARG001 - the channel's own limits hold: database.wait_s
    detect_types: int = 0,
    isolation_level: str | None = "",
    check_same_thread: bool = True,  # noqa: FBT001, FBT002 - the driver's signature
    factory: type[Connection] = Connection,
    cached_statements: int = 128,  # noqa: ARG001 - the loop's connections have their own
    uri: bool = False,  # noqa: ARG001, FBT001, FBT002 - there is no path to read
    *,
    autocommit: bool | int = LEGACY_TRANSACTION_CONTROL,
) -> Connection:
    """A connection to the database in `database.url`; nothing crosses before the first statement.

    Raises `InterfaceError` outside a worker, and `NotSupportedError` for another database or for `detect_types`.
    """
    if database:
        msg = (
            f"{database!r}: the channel leads to the one database in database.url, so connect() names none; for "
            "another file use sqlite3 itself"
        )
        raise sqlite3.NotSupportedError(msg)
    if detect_types:
        msg = "detect_types: declared types of columns do not cross the channel; convert the values in the handler"
        raise sqlite3.NotSupportedError(msg)
    return factory(
        Session(current_or(sqlite3.InterfaceError)),
        isolation_level=isolation_level,
        check_same_thread=check_same_thread,
        autocommit=autocommit,
    )


def register_converter(name: str, converter: Any, /) -> None:  # noqa: ARG001 - the driver's signature
    """Raises `NotSupportedError`, as `detect_types` does."""
    msg = "register_converter: declared types of columns do not cross the channel; convert the values in the handler"
    raise sqlite3.NotSupportedError(msg)


__all__ = [
    "BINARY",
    "DATETIME",
    "LEGACY_TRANSACTION_CONTROL",
    "NUMBER",
    "PARSE_COLNAMES",
    "PARSE_DECLTYPES",
    "ROWID",
    "STRING",
    "Binary",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "PrepareProtocol",
    "ProgrammingError",
    "Row",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "adapt",
    "adapters",
    "apilevel",
    "complete_statement",
    "connect",
    "paramstyle",
    "register_adapter",
    "register_converter",
    "sqlite_version",
    "sqlite_version_info",
    "threadsafety",
]
