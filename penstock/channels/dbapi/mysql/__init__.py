"""The DB-API (PEP 249) of MySQL and MariaDB over the database channel: as PyMySQL, with every statement run on the loop.

```python
from penstock.channels.dbapi import mysql

with mysql.connect() as connection, connection.cursor() as cursor:       # in a handler
    cursor.execute("INSERT INTO t (v) VALUES (%s)", (1,))
    connection.commit()
```
Paramstyle and exceptions are those of PyMySQL: `except pymysql.err.IntegrityError` catches ours.
"""

from __future__ import annotations

from typing import Any, Final

from pymysql import (
    BINARY,
    DATE,
    DATETIME,
    FIELD_TYPE,
    NULL,
    NUMBER,
    ROWID,
    STRING,
    TIME,
    TIMESTAMP,
    Binary,
    DatabaseError,
    DataError,
    Date,
    DateFromTicks,
    DBAPISet,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    MySQLError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Time,
    TimeFromTicks,
    Timestamp,
    TimestampFromTicks,
    Warning,  # noqa: A004 - PEP 249's name
    constants,
    converters,
    err,
)

from penstock.channels.dbapi.link import current_or
from penstock.channels.dbapi.mysql import cursors
from penstock.channels.dbapi.mysql.connection import Connection
from penstock.channels.dbapi.mysql.cursors import Cursor
from penstock.channels.dbapi.mysql.session import Session

apilevel: Final = "2.0"
#: Threads may share the module and connections: each call takes its turn.
threadsafety: Final = 2
paramstyle: Final = "pyformat"


def connect(
    *, autocommit: bool | None = False, cursorclass: type[Cursor] = Cursor, **options: Any
) -> Connection:
    """A connection to the database in `database.url`; nothing crosses before the first statement.

    Raises `InterfaceError` outside a worker, and `NotSupportedError` for PyMySQL's other options: they are the loop's.
    """
    if options:
        msg = (
            f"{', '.join(sorted(options))}: the channel leads to the one database in database.url, whose options are "
            "written there, so connect() takes autocommit and cursorclass only"
        )
        raise err.NotSupportedError(msg)
    return Connection(Session(current_or(err.InterfaceError)), autocommit=autocommit, cursorclass=cursorclass)


Connect: Final = connect

__all__ = [
    "BINARY",
    "DATE",
    "DATETIME",
    "FIELD_TYPE",
    "NULL",
    "NUMBER",
    "ROWID",
    "STRING",
    "TIME",
    "TIMESTAMP",
    "Binary",
    "Connect",
    "Connection",
    "Cursor",
    "DBAPISet",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "MySQLError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "apilevel",
    "connect",
    "constants",
    "converters",
    "cursors",
    "err",
    "paramstyle",
    "threadsafety",
]
