"""What the workers would refuse of the database at their start: asked as they ask, on a connection that is closed at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from pydantic import SecretStr
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import PoolProxiedConnection

from penstock.app.handlers import AnyHandler
from penstock.channels.db.sqlite.opening import find_file
from penstock.cli.check.database import timeouts
from penstock.cli.check.findings import Problem
from penstock.cli.exits import Exit
from penstock.config import Settings
from penstock.config.database import DatabaseSection
from penstock.errors import ConfigurationError, PenstockError
from penstock.workers.adopted import find_adopted, with_url_of
from penstock.workers.database.address import Address
from penstock.workers.database.cap import check_cap
from penstock.workers.database.kind import DatabaseKind
from penstock.workers.database.kinds import own_kind


def refusals_of_workers(settings: Settings, handlers: Sequence[AnyHandler]) -> list[Problem]:
    """Why no worker of these handlers would start; empty when it would, or when the database cannot be asked."""
    section = settings.database
    plain = [handler for handler in handlers if not handler.is_async]
    own = [handler for handler in plain if handler.options.database == "own"]
    try:
        if own and (section.url is not None or section.session is not None or section.engine is not None):
            _start(section, own, settings.workers.processes)
        if len(own) < len(plain) and section.url is not None:
            _check_channel(section)
    except PenstockError as error:
        # As the workers' own words end `penstock run`.
        return [Problem(str(error), Exit.WORKERS)]
    return []


def _start(section: DatabaseSection, handlers: Sequence[AnyHandler], workers: int) -> None:
    adopted = None
    if section.session is not None or section.engine is not None:
        adopted, _ = find_adopted(section)
        kind = own_kind(with_url_of(adopted, section))
    else:
        kind = own_kind(_with_timeout(section))
    if section.isolation_level is not None:
        kind.check_isolation(section.isolation_level, "database.isolation_level")
    for handler in handlers:
        if handler.options.isolation is not None:
            kind.check_isolation(handler.options.isolation, f"handler {handler.name}: isolation")
    if kind.path is not None:
        # To open the file might create it.
        check_cap(kind, None, section, workers)
        return
    engine = adopted or kind.engine
    try:
        held = _connect(kind, adopted)
        if held is not None:
            check_cap(kind, held.dbapi_connection, section, workers)
            if adopted is None:
                kind.check_transactions(held.dbapi_connection, "database.url")
            held.close()
        if held is not None and adopted is not None:
            _check_adopted(kind, adopted, section)
    finally:
        engine.dispose()


def _check_channel(section: DatabaseSection) -> None:
    if section.url is not None and section.url.get_secret_value().startswith("sqlite"):
        find_file(section)


def _connect(kind: DatabaseKind, adopted: Engine | None) -> PoolProxiedConnection | None:
    """None when the server is away: the workers would wait for it, and the look at the database says so."""
    try:
        return kind.connect() if adopted is None else adopted.raw_connection()
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - told apart below, as a worker does
        if kind.is_unreachable(error):
            return None
        words = f"{type(error).__name__}: {kind.words_of(error)}"
        msg = f"the database {kind.address} cannot be opened with these settings: {words}"
        raise ConfigurationError(msg) from None


def _check_adopted(kind: DatabaseKind, engine: Engine, section: DatabaseSection) -> None:
    # The engine's own events may set what its driver does not.
    with suppress(DBAPIError), engine.connect() as connection:
        if section.isolation_level is not None:
            connection.execution_options(isolation_level=section.isolation_level)
        with connection.begin():
            raw = connection.connection.dbapi_connection
            kind.check_transactions(raw, f"the engine of {section.session or section.engine}")


def _with_timeout(section: DatabaseSection) -> DatabaseSection:
    address = Address(section)
    wanted = {
        name: str(value) for name, value in timeouts(address.driver).items() if name not in address.url.query
    }
    url = address.url.update_query_dict(wanted)
    return section.model_copy(update={"url": SecretStr(url.render_as_string(hide_password=False))})
