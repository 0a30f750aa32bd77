"""The DB-API (PEP 249) of PostgreSQL over the database channel: as psycopg 3, with every statement run on the loop.

```python
from penstock.channels.dbapi import postgresql

with postgresql.connect() as connection:                      # in a handler; the block commits
    connection.execute("INSERT INTO t (v) VALUES (%s)", (1,))
```
Paramstyle and exceptions are those of psycopg: `except psycopg.errors.UniqueViolation` catches ours.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import (
    BINARY,
    DATETIME,
    NUMBER,
    ROWID,
    STRING,
    Binary,
    DatabaseError,
    DataError,
    Date,
    DateFromTicks,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    IsolationLevel,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Rollback,
    Time,
    TimeFromTicks,
    Timestamp,
    TimestampFromTicks,
    Warning,  # noqa: A004 - PEP 249's name
    errors,
    rows,
    sql,
)

from penstock.channels.dbapi.link import current_or
from penstock.channels.dbapi.postgresql.connection import Connection
from penstock.channels.dbapi.postgresql.cursor import Cursor
from penstock.channels.dbapi.postgresql.result import Column
from penstock.channels.dbapi.postgresql.session import Session
from penstock.channels.dbapi.postgresql.transaction import Transaction

apilevel: Final = "2.0"
#: Threads may share the module and connections: each call takes its turn.
threadsafety: Final = 2
paramstyle: Final = "pyformat"


def connect(
    conninfo: str = "",
    *,
    autocommit: bool = False,
    row_factory: Any = None,
    cursor_factory: type[Cursor] = Cursor,
    **options: Any,
) -> Connection:
    """A connection to the database in `database.url`; nothing crosses before the first statement.

    Raises `InterfaceError` outside a worker, and `NotSupportedError` for psycopg's other options: they are the loop's.
    """
    if conninfo or options:
        named = ", ".join(filter(None, ["conninfo" if conninfo else "", *sorted(options)]))
        msg = (
            f"{named}: the channel leads to the one database in database.url, whose options are written there, so "
            "connect() takes autocommit, row_factory and cursor_factory only"
        )
        raise psycopg.NotSupportedError(msg)
    return Connection(
        Session(current_or(psycopg.InterfaceError)),
        autocommit=autocommit,
        row_factory=row_factory,
        cursor_factory=cursor_factory,
    )


__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "Column",
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
    "IsolationLevel",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Rollback",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Transaction",
    "Warning",
    "apilevel",
    "connect",
    "errors",
    "paramstyle",
    "rows",
    "sql",
    "threadsafety",
]
