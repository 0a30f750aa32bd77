"""The database's URL: checked once, its password kept out of every text."""

from __future__ import annotations

from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from penstock.channels.db.secrets import Scrubber, shown_url
from penstock.config.database import DatabaseSection
from penstock.errors import ConfigurationError

#: By SQLAlchemy's name of the database: what its URL should begin with.
_BETTER: Final = {
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "postgresql": "postgresql+psycopg",
    # What other programs write, and SQLAlchemy does not know.
    "postgres": "postgresql+psycopg",
}
_TESTED: Final = "sqlite://, mysql+pymysql://, mysql+mysqldb:// and postgresql+psycopg://"
#: Penstock's extra that installs a driver.
_EXTRAS: Final = {"mysql+pymysql": "mysql", "mysql+mysqldb": "mysqlclient", "postgresql+psycopg": "postgres"}


class Address:
    """Where the database is.

    Raises `ConfigurationError` for what will never work: no URL, an unknown dialect, a driver that is not
    installed or needs an event loop.
    """

    def __init__(self, section: DatabaseSection) -> None:
        if section.url is None:
            msg = (
                "this handler wants the database, but database.url is not set: set it in penstock.toml, as "
                "PENSTOCK_DATABASE__URL or with --database, for example sqlite:///app.db"
            )
            raise ConfigurationError(msg)
        self.url = _parse(section.url.get_secret_value())
        self.backend = self.url.get_backend_name()
        self.driver = _usable_driver(self.url)
        self._scrub = Scrubber(self.url)

    def __str__(self) -> str:
        return shown_url(self.url)

    def scrub(self, text: str) -> str:
        """The text without the URL's secrets."""
        return self._scrub(text)


def _parse(text: str) -> URL:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        # The text itself may be a password with a stray character beside it, so nothing of it is shown.
        msg = (
            "database.url cannot be read as an SQLAlchemy URL, such as sqlite:///app.db or "
            "mysql+pymysql://user:password@host/name; in user and password write %40 for @, %3A for : and %2F for /"
        )
        raise ConfigurationError(msg) from None


def _usable_driver(url: URL) -> str:
    name = url.drivername
    backend = url.get_backend_name()
    better = _BETTER.get(backend)
    try:
        dialect = url.get_dialect()
    except NoSuchModuleError:
        hint = f"write {better}://" if better else f"Penstock is tested with {_TESTED}"
        msg = f"database.url begins with {name}://, which SQLAlchemy does not know; {hint}"
        raise ConfigurationError(msg) from None
    if name.endswith("+penstock"):
        msg = (
            f"database.url begins with {name}://, which leads over the channel to the database that database.url names: write "
            f"that database's own URL there, {better or 'sqlite'}://…, and database=\"channel\" in a handler's declaration"
        )
        raise ConfigurationError(msg)
    if dialect.is_async:
        msg = (
            f"database.url begins with {name}://, a driver for an event loop; a worker's own connection is synchronous: "
            f"write {better or backend}://"
        )
        raise ConfigurationError(msg)
    try:
        dialect.import_dbapi()
    except ImportError as error:
        advice = _advice(name, better, missing=error.name)
        msg = f"database.url begins with {name}://, but its driver {error.name} is not installed: {advice}"
        raise ConfigurationError(msg) from None
    return dialect.driver


def _advice(name: str, better: str | None, *, missing: str | None) -> str:
    extra = _EXTRAS.get(name.replace("mariadb+", "mysql+"))
    if extra:
        return f"pip install 'penstock[{extra}]'"
    return (
        f"pip install 'penstock[{_EXTRAS[better]}]' and write {better}://" if better else f"install {missing}"
    )
