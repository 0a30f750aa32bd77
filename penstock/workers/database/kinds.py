"""Which kind of database the settings name, and whether a worker's transactions can be trusted to its driver."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from penstock.channels.db.sqlite.opening import find_file
from penstock.config.database import DatabaseSection
from penstock.errors import ConfigurationError
from penstock.workers.database.address import Address
from penstock.workers.database.channel_sqlite import SqliteChannelKind
from penstock.workers.database.kind import DatabaseKind
from penstock.workers.database.psycopg2 import Psycopg2Kind
from penstock.workers.database.sqlite import SqliteKind

#: Of databases that undo a transaction with an error which the handler may catch: the driver to have.
_WATCHED: Final = {
    "mariadb": "mysql+pymysql",
    "mysql": "mysql+pymysql",
    "postgresql": "postgresql+psycopg",
}


def own_kind(section: DatabaseSection) -> DatabaseKind:
    """For the worker's own connection, or an adopted one, by its driver. Raises `ConfigurationError` for what will never work."""
    address = Address(section)
    adopted = section.session or section.engine
    if address.driver == "pysqlite":
        return SqliteKind(address, section)
    if address.driver == "pymysql":
        # Late: the driver is an extra.
        from penstock.workers.database.mysql import MySQLKind

        return MySQLKind(address, section)
    if address.driver == "mysqldb":
        from penstock.workers.database.mysqldb import MySQLdbKind

        return MySQLdbKind(address, section)
    if address.driver == "psycopg":
        from penstock.workers.database.postgresql import PostgreSQLKind

        return PostgreSQLKind(address, section)
    if address.driver == "psycopg2" and adopted is not None:
        return Psycopg2Kind(address, section)
    if address.backend in _WATCHED:
        whose = "database.url" if adopted is None else f"the engine of {adopted}"
        msg = (
            f"{whose} begins with {address.url.drivername}://, a driver that is not watched: a handler that catches an error "
            "with which the server undid its transaction would be acked with half of its rows written, or none. The service "
            f"does not start: write {_WATCHED[address.backend]}:// there"
        )
        raise ConfigurationError(msg)
    return DatabaseKind(address, section)


def channel_kind(section: DatabaseSection) -> DatabaseKind:
    """For the channel, by the database. Raises `ConfigurationError` when the channel cannot reach it."""
    address = Address(section)
    if address.backend == "sqlite":
        # Else each message would be told.
        find_file(section)
        return SqliteChannelKind(address, section)
    if address.backend in ("mysql", "mariadb"):
        _check_driver(address, "pymysql", "mysql")
        from penstock.workers.database.channel_mysql import MySQLChannelKind

        return MySQLChannelKind(address, section)
    if address.backend == "postgresql":
        _check_driver(address, "psycopg", "postgres")
        from penstock.workers.database.channel_postgresql import PostgreSQLChannelKind

        return PostgreSQLChannelKind(address, section)
    msg = (
        f'database="channel" speaks SQLite, MySQL, MariaDB and PostgreSQL, and database.url is {address}: leave it out, '
        "and the handler has the worker's own connection"
    )
    raise ConfigurationError(msg)


def _check_driver(address: Address, name: str, extra: str) -> None:
    if find_spec(name) is None:
        msg = f"database=\"channel\" needs {name} for {address}: pip install 'penstock[{extra}]'"
        raise ConfigurationError(msg)
