"""Is the database there? Asked with a connection of our own, or the engine's, which writes nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, Dialect, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from penstock.app.handlers import AnyHandler
from penstock.cli.check.findings import Problem
from penstock.cli.exits import Exit
from penstock.config.database import DatabaseSection
from penstock.errors import PenstockError
from penstock.workers.adopted import find_adopted, with_url_of
from penstock.workers.database.address import Address
from penstock.workers.database.cap import check_cap
from penstock.workers.database.drivers import kind_of
from penstock.workers.database.kind import DatabaseKind

#: A server that does not answer for so long is not there.
TIMEOUT_S: Final = 10


def look_at_database(
    section: DatabaseSection, handlers: Sequence[AnyHandler] = (), *, workers: int = 1
) -> tuple[str, list[Problem]]:
    """The database in words, and what is wrong with it: what would end the start of so many workers with these handlers, too."""
    adopted = section.session or section.engine
    if adopted is None and section.url is None:
        return "none is set: handlers that use ctx.connection, ctx.session or ctx.db would fail", []
    whose = "" if adopted is None else f"adopted from {adopted}"
    try:
        engine = None if adopted is None else find_adopted(section)[0]
        known = section if engine is None else with_url_of(engine, section)
        address, start = Address(known), _Start.of(known, handlers, workers)
        if start is not None:
            start.check_isolation(handlers)
    except PenstockError as error:
        return f"{whose}: cannot be used" if whose else "cannot be used", [Problem.of(error)]
    if address.backend == "sqlite":
        # A connection of an engine's own would make the file.
        words, problems = _look_at_file(address)
    else:
        engine = engine or create_engine(address.url, connect_args=_timeouts(address.driver))
        words, problems = _ask(engine, address, start)
    if adopted is None:
        return words, problems
    if section.url is None:
        words += "; without database.url handlers that use ctx.db would fail"
    return f"{words} ({whose})", problems


@dataclass(frozen=True, slots=True)
class _Start:
    """What each worker asks before it takes messages, when a handler has the worker's own connection."""

    kind: DatabaseKind
    section: DatabaseSection
    workers: int

    @classmethod
    def of(cls, section: DatabaseSection, handlers: Sequence[AnyHandler], workers: int) -> _Start | None:
        """None when no worker opens a connection. Raises `ConfigurationError` for what will never work."""
        return cls(kind_of(section), section, workers) if any(map(_is_own, handlers)) else None

    def check_isolation(self, handlers: Sequence[AnyHandler]) -> None:
        """Raises `ConfigurationError` for a level that the database does not know."""
        levels = {
            f"handler {handler.name}: isolation": handler.options.isolation
            for handler in handlers
            if _is_own(handler)
        }
        for whose, level in {"database.isolation_level": self.section.isolation_level, **levels}.items():
            if level is not None:
                self.kind.check_isolation(level, whose)

    def check_connection(self, connection: Connection) -> None:
        """Raises `ConfigurationError` when the server has too few, or a message would be no transaction on this one."""
        raw: Any = connection.connection.dbapi_connection
        check_cap(self.kind, raw, self.section, self.workers)
        adopted = self.section.session or self.section.engine
        if adopted is None:
            self.kind.check_transactions(raw, "database.url")
            return
        if self.section.isolation_level is not None:
            connection.execution_options(isolation_level=self.section.isolation_level)
        with connection.begin():
            self.kind.check_transactions(raw, f"the engine of {adopted}")


def _is_own(handler: AnyHandler) -> bool:
    return not handler.is_async and handler.options.database == "own"


def _ask(engine: Engine, address: Address, start: _Start | None) -> tuple[str, list[Problem]]:
    found, problems = "", list[Problem]()
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            found = _server(connection.dialect)
            connection.rollback()
            if start is not None:
                start.check_connection(connection)
    except PenstockError as error:
        problems = [Problem.of(error)]
    except DBAPIError as error:
        return f"{address}", [_unreachable(address, str(error.orig))]
    except SQLAlchemyError as error:
        return f"{address}", [_unreachable(address, str(error))]
    finally:
        engine.dispose()
    return f"{address} answers, {found}", problems


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
    words = f"the database {address} cannot be used: {address.scrub(why)}; handlers would wait for it"
    return Problem(words, Exit.NO)


def _timeouts(driver: str) -> dict[str, int]:
    return {"connect_timeout": TIMEOUT_S} if driver in ("pymysql", "mysqldb", "psycopg", "psycopg2") else {}
