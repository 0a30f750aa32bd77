"""SQLAlchemy over the database channel: `create_engine("sqlite+penstock://")` in a worker.

SQLAlchemy's own dialect for SQLite, on our DB-API module instead of `sqlite3`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import URL, pool
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from penstock.channels.dbapi import sqlite
from penstock.channels.dbapi.dialect_urls import check_nameless

NAME: Final = "sqlite.penstock"


class ChannelSqliteDialect(SQLiteDialect_pysqlite):
    """`sqlite+penstock://`; `immediate=True` makes every transaction wait for the writer from its first statement on.

    Without it a transaction begins as the driver begins it: with the first change. What was read before may have
    been changed by somebody else by then.
    """

    driver = "penstock"
    supports_statement_cache = True

    def __init__(self, immediate: bool = False, **options: Any) -> None:  # noqa: FBT001, FBT002 - SQLAlchemy looks for such
        super().__init__(**options)
        self._is_immediate = immediate

    @classmethod
    def import_dbapi(cls) -> Any:
        """Our module."""
        return sqlite

    @classmethod
    def _is_url_file_db(cls, url: URL) -> bool:  # noqa: ARG003 - SQLAlchemy's signature
        # It is one, though the URL does not say which.
        return True

    @classmethod
    def get_pool_class(cls, url: URL) -> type[pool.Pool]:  # noqa: ARG003 - SQLAlchemy's signature
        """One that keeps connections: they cost nothing, but what SQLAlchemy asks of a new one crosses."""
        return pool.QueuePool

    def create_connect_args(self, url: URL) -> Any:
        """None. Raises `ArgumentError` for a URL that names anything: the channel leads to `database.url`."""
        check_nameless(url)
        # The pool hands connections from thread to thread, one at a time.
        return [], {"check_same_thread": False}

    def on_connect(self) -> Callable[[Any], None]:
        """Nothing: functions do not cross, and `floor` is there; `regexp` is not."""
        return lambda _: None

    def do_begin(self, dbapi_connection: Any) -> None:
        """With `immediate`, unless AUTOCOMMIT was asked for."""
        if self._is_immediate and dbapi_connection.isolation_level is not None:
            dbapi_connection.begin()


registry.register(NAME, __name__, ChannelSqliteDialect.__name__)
