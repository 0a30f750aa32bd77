"""SQLAlchemy over the database channel: `create_engine("postgresql+penstock://")` in a worker.

SQLAlchemy's own dialect for psycopg, on our DB-API module instead of `psycopg`.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Final

from sqlalchemy import URL, pool
from sqlalchemy import types as sqltypes
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import ArgumentError

from penstock.channels.dbapi.dialect_urls import check_nameless
from penstock.channels.dbapi.server.session import is_disconnect

NAME: Final = "postgresql.penstock"


class _ReadJSON:
    """Before the driver's type of SQLAlchemy's: the loop's connections read JSON before it crosses."""

    def result_processor(self, dialect: Any, coltype: object) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """What a `json_deserializer` makes of it; SQLAlchemy 2.0 would leave that to the driver's connection."""
        read = dialect._json_deserializer  # noqa: SLF001 - where SQLAlchemy keeps the option
        return None if read is None else lambda value: None if value is None else read(json.dumps(value))


_DRIVERS: Final[dict[Any, Any]] = dict(PGDialect_psycopg.colspecs)


class _JSON(_ReadJSON, _DRIVERS[JSON]):  # type: ignore[valid-type,misc]
    pass


class _JSONB(_ReadJSON, _DRIVERS[JSONB]):  # type: ignore[valid-type,misc]
    pass


class ChannelPostgreSQLDialect(PGDialect_psycopg):
    """`postgresql+penstock://`.

    HSTORE crosses as text, which SQLAlchemy's own type reads. A `json_deserializer` is given the text that Python
    writes of what psycopg has read, not the server's.
    """

    driver = "penstock"
    supports_statement_cache = True
    colspecs = {**_DRIVERS, sqltypes.JSON: _JSON, JSON: _JSON, JSONB: _JSONB}  # noqa: RUF012 - SQLAlchemy's shape
    _dialect_specific_select_one = "SELECT 1"

    def __init__(self, **options: Any) -> None:
        """Raises `ArgumentError` for what would change the loop's connections."""
        for name, harmless in _FIXED.items():
            if (given := options.pop(name, harmless)) not in (None, harmless):
                msg = f"{name}={given!r} does not go with {self.driver}: it would change the loop's connections, which are shared"
                raise ArgumentError(msg)
        # The driver's own constructor gives each connection adapters, which are the loop's here.
        super(PGDialect_psycopg, self).__init__(use_native_hstore=False, **options)  # type: ignore[no-untyped-call] # SQLAlchemy's

    @classmethod
    def import_dbapi(cls) -> Any:
        """Our module. Raises `ImportError` without psycopg."""
        from penstock.channels.dbapi import postgresql

        return postgresql

    def retrieve_dbapi_version(self, dbapi: Any) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """psycopg's: its words and types are what the loop speaks."""
        import psycopg

        return super().retrieve_dbapi_version(psycopg)  # type: ignore[no-untyped-call] # SQLAlchemy's

    @classmethod
    def get_pool_class(cls, url: URL) -> type[pool.Pool]:  # noqa: ARG003 - SQLAlchemy's signature
        """One that keeps connections: they cost nothing, but what SQLAlchemy asks of a new one crosses."""
        return pool.QueuePool

    def create_connect_args(self, url: URL) -> Any:
        """None. Raises `ArgumentError` for a URL that names anything: the channel leads to `database.url`."""
        check_nameless(url)
        return [], {}

    def on_connect(self) -> Any:
        """Nothing: what the server says unasked does not cross."""
        return None

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:  # noqa: ARG002 - SQLAlchemy's signature
        """As the loop says."""
        return is_disconnect(e)

    @property
    def _psycopg_Json(self) -> Any:  # noqa: N802 - SQLAlchemy's name
        from psycopg.types.json import Json

        return partial(Json, dumps=self._json_serializer)

    @property
    def _psycopg_Jsonb(self) -> Any:  # noqa: N802 - SQLAlchemy's name
        from psycopg.types.json import Jsonb

        return partial(Jsonb, dumps=self._json_serializer)


#: What the driver's dialect takes, and the one value that it has here.
_FIXED: Final[dict[str, Any]] = {
    "use_native_hstore": False,
    "native_inet_types": True,
    "client_encoding": "utf8",
}

registry.register(NAME, __name__, ChannelPostgreSQLDialect.__name__)
