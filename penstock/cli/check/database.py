"""Is the database there? Asked with a connection of our own, which writes nothing."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy import Dialect, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from penstock.channels.db.sqlite.opening import find_file
from penstock.cli.check.findings import Problem
from penstock.cli.exits import Exit
from penstock.config.database import DatabaseSection
from penstock.errors import PenstockError
from penstock.workers.adopted import engine_beside, find_adopted, with_url_of
from penstock.workers.database.address import Address

#: A server that does not answer for so long is not there.
TIMEOUT_S: Final = 10


def look_at_database(section: DatabaseSection) -> tuple[str, list[Problem]]:
    """The database in words, and what is wrong with it."""
    if section.session is not None or section.engine is not None:
        return _look_at_adopted(section)
    if section.url is None:
        return "none is set: handlers that use ctx.connection, ctx.session or ctx.db would fail", []
    try:
        address = Address(section)
    except PenstockError as error:
        return "cannot be used", [Problem.of(error)]
    if address.backend == "sqlite":
        try:
            find_file(section)
        except PenstockError as error:
            return f"{address} cannot be used", [Problem.of(error)]
        return _look_at_file(address)
    return _ask(create_engine(address.url, connect_args=timeouts(address.driver)), address)


def _look_at_adopted(section: DatabaseSection) -> tuple[str, list[Problem]]:
    whose = f"adopted from {section.session or section.engine}"
    try:
        engine, _ = find_adopted(section)
        address = Address(with_url_of(engine, section))
    except PenstockError as error:
        return f"{whose}: cannot be used", [Problem.of(error)]
    # A connection of the engine's own would make the file.
    is_file = address.backend == "sqlite"
    words, problems = _look_at_file(address) if is_file else _ask(engine_beside(engine), address)
    if section.url is None:
        words += "; without database.url handlers that use ctx.db would fail"
        return f"{words} ({whose})", problems
    channel, more = look_at_database(section.model_copy(update={"session": None, "engine": None}))
    return f"{words} ({whose}); for ctx.db {channel}", problems + more


def _ask(engine: Engine, address: Address) -> tuple[str, list[Problem]]:
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            found = _server(connection.dialect)
    except DBAPIError as error:
        return f"{address}", [_unreachable(address, str(error.orig))]
    except SQLAlchemyError as error:
        return f"{address}", [_unreachable(address, str(error))]
    except TypeError as error:
        # So PyMySQL says that it does not know an option of the URL.
        return f"{address}", [_unreachable(address, str(error))]
    finally:
        engine.dispose()
    return f"{address} answers, {found}", []


def _server(dialect: Dialect) -> str:
    # SQLAlchemy's dialect of MySQL serves MariaDB too, whatever the URL says.
    name = "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name
    return " ".join([name, ".".join(str(part) for part in dialect.server_version_info or ())]).strip()


def _look_at_file(address: Address) -> tuple[str, list[Problem]]:
    name = address.url.database
    if not name or name == ":memory:" or name.startswith("file:"):
        return f"{address}, SQLite without a file of its own to look at", []
    path = Path(name).resolve()
    if not path.exists():
        if os.access(path.parent, os.W_OK | os.X_OK):
            return (
                f"{address}: the file does not exist yet; the first connection creates it, without tables",
                [],
            )
        return f"{address}", [
            _unreachable(address, f"it does not exist, and cannot be created in {path.parent}")
        ]
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            (tables,) = connection.execute(
                "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
            ).fetchone()
    except sqlite3.Error as error:
        return f"{address}", [_unreachable(address, str(error))]
    if not os.access(path, os.W_OK):
        return f"{address}", [_unreachable(address, "this user may not write the file")]
    return f"{address} can be opened, SQLite, {tables} {'table' if tables == 1 else 'tables'}", []


def _unreachable(address: Address, why: str) -> Problem:
    words = f"the database {address} cannot be used: {address.scrub(why.strip())}; handlers would wait for it"
    return Problem(words, Exit.NO)


def timeouts(driver: str) -> dict[str, int]:
    """What keeps this driver from waiting longer than `TIMEOUT_S` for a server."""
    return {"connect_timeout": TIMEOUT_S} if driver in ("pymysql", "mysqldb", "psycopg", "psycopg2") else {}
