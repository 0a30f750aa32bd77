"""SQLAlchemy over the database channel: `create_engine("mysql+penstock://")`, or `mariadb+penstock://`, in a worker.

SQLAlchemy's own dialect for PyMySQL, on our DB-API module instead of `pymysql`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from sqlalchemy import URL, pool
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.mysql.mariadb import MariaDBDialect
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql

from penstock.channels.dbapi.dialect_urls import check_nameless
from penstock.channels.dbapi.server.session import is_disconnect

NAMES: Final = ("mysql.penstock", "mariadb.penstock")


class ChannelMySQLDialect(MySQLDialect_pymysql):
    """`mysql+penstock://`; an isolation level is said when a transaction begins, and costs no crossing."""

    driver = "penstock"
    supports_statement_cache = True
    supports_server_side_cursors = True

    @property
    def _sscursor(self) -> Any:
        from penstock.channels.dbapi.mysql.cursors import SSCursor

        return SSCursor

    @classmethod
    def import_dbapi(cls) -> Any:
        """Our module. Raises `ImportError` without PyMySQL."""
        from penstock.channels.dbapi import mysql

        return mysql

    def retrieve_dbapi_version(self, dbapi: Any) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """PyMySQL's: its words and types are what the loop speaks."""
        import pymysql

        return super().retrieve_dbapi_version(pymysql)  # type: ignore[arg-type]

    @classmethod
    def get_pool_class(cls, url: URL) -> type[pool.Pool]:  # noqa: ARG003 - SQLAlchemy's signature
        """One that keeps connections: they cost nothing, but what SQLAlchemy asks of a new one crosses."""
        return pool.QueuePool

    def create_connect_args(self, url: URL, _translate_args: Any = None) -> Any:
        """None. Raises `ArgumentError` for a URL that names anything: the channel leads to `database.url`."""
        check_nameless(url)
        return [], {}

    def on_connect(self) -> Any:
        """Nothing: the loop's connections speak utf8mb4."""
        return None

    def do_ping(self, dbapi_connection: Any) -> Any:
        """Ask the server for a sign of life."""
        dbapi_connection.ping()
        return True

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:  # noqa: ARG002 - SQLAlchemy's signature
        """As the loop says."""
        return is_disconnect(e)

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        """Of the transactions to come."""
        dbapi_connection.autocommit(level == "AUTOCOMMIT")
        isolation = None if level == "AUTOCOMMIT" else level
        dbapi_connection.beginning = replace(dbapi_connection.beginning, isolation=isolation)

    def reset_isolation_level(self, dbapi_conn: Any) -> None:
        """What the engine was made with, or what the server does by itself."""
        super().reset_isolation_level(dbapi_conn)  # type: ignore[no-untyped-call] # SQLAlchemy's
        if self._on_connect_isolation_level is None:
            dbapi_conn.beginning = replace(dbapi_conn.beginning, isolation=None)

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        """What was set, or else the server's."""
        return dbapi_connection.beginning.isolation or super().get_isolation_level(dbapi_connection)


class ChannelMariaDBDialect(MariaDBDialect, ChannelMySQLDialect):
    """`mariadb+penstock://`."""

    driver = "penstock"
    supports_statement_cache = True


registry.register(NAMES[0], __name__, ChannelMySQLDialect.__name__)
registry.register(NAMES[1], __name__, ChannelMariaDBDialect.__name__)
