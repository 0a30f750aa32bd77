"""Which drivers a worker's transactions can be trusted to, and what is known about each."""

from __future__ import annotations

from typing import Final

from penstock.config.database import DatabaseSection
from penstock.errors import ConfigurationError
from penstock.workers.database.address import Address
from penstock.workers.database.kind import DatabaseKind
from penstock.workers.database.psycopg2 import Psycopg2Kind
from penstock.workers.database.sqlite import SqliteKind

#: Of databases that undo a transaction with an error which the handler may catch: the driver to have.
_WATCHED: Final = {
    "mariadb": "mysql+pymysql",
    "mysql": "mysql+pymysql",
    "postgresql": "postgresql+psycopg",
}


def kind_of(section: DatabaseSection) -> DatabaseKind:
    """What is known about the database that the settings name. Raises `ConfigurationError` for what will never work."""
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
