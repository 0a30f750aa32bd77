"""Which server `database.url` means, and by which asynchronous driver it is reached."""

from __future__ import annotations

from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from penstock.channels.db.secrets import shown_url
from penstock.channels.db.server.driver import Driver
from penstock.errors import ConfigurationError

_DRIVERS: Final = {
    "mysql": ("mysql+aiomysql", "mysql"),
    "mariadb": ("mariadb+aiomysql", "mysql"),
    "postgresql": ("postgresql+psycopg", "postgres"),
}


def asynchronous(written: str) -> URL:
    """The URL with the driver in it. Raises `ConfigurationError` when it is none of ours, or its driver is not installed."""
    try:
        url = make_url(written)
    except (ArgumentError, ValueError):
        msg = "database.url is not a URL; write for example postgresql://user:password@host/name"
        raise ConfigurationError(msg) from None
    driver, extra = _DRIVERS.get(url.get_backend_name(), ("", ""))
    if not driver:
        msg = f"ctx.db speaks SQLite, MySQL, MariaDB and PostgreSQL; database.url is {shown_url(url)}"
        raise ConfigurationError(msg)
    found = url.set(drivername=driver)
    try:
        found.get_dialect().import_dbapi()
    except ImportError as error:
        msg = f"ctx.db needs {error.name} for this database.url: pip install 'penstock[{extra}]'"
        raise ConfigurationError(msg) from None
    return found


def unusable_option(driver: str, error: Exception) -> ConfigurationError:
    """For a URL that its driver does not take, whatever the server says; the error names the option."""
    msg = (
        f"database.url has an option that {driver}, the driver of the database channel, does not take: "
        f"{str(error).strip()}. Take it out of the URL, or write the name that this driver has for it"
    )
    return ConfigurationError(msg)


def driver_of(url: URL) -> Driver:
    """The driver's side of it."""
    # Late: each is an extra.
    if url.get_backend_name() == "postgresql":
        from penstock.channels.db.server.postgresql import PostgreSQLDriver

        return PostgreSQLDriver()
    from penstock.channels.db.server.mysql import MySQLDriver

    return MySQLDriver(url)
