"""[database]: the workers' own connection and the database channel."""

from __future__ import annotations

import re
from typing import Final, Literal, Self, TypeAlias

from pydantic import Field, SecretStr, field_validator, model_validator

from penstock.config.section import Section, check_port

#: `module:attribute`, as the application's own address.
_PLACE: Final = re.compile(r"[\w.]+:\w+")

IsolationLevel: TypeAlias = Literal["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


class DatabaseSection(Section):
    """The database that handlers work with."""

    url: SecretStr | None = None
    """SQLAlchemy URL, such as `sqlite:///app.db` or `mysql+pymysql://user:password@host/name`."""

    @field_validator("url")
    @classmethod
    def _usable_port(cls, url: SecretStr | None) -> SecretStr | None:
        return None if url is None else check_port(url)

    session: str | None = None
    """`module:attribute` of a `scoped_session` of yours that the workers adopt in place of a connection of their own."""
    engine: str | None = None
    """`module:attribute` of an `Engine` of yours that the workers adopt in place of a connection of their own."""
    debug_checkouts: bool = False
    """A handler that checks a second connection out, of whatever engine, fails with both places in the code."""

    @field_validator("session", "engine")
    @classmethod
    def _a_place(cls, place: str | None) -> str | None:
        if place is not None and not _PLACE.fullmatch(place):
            msg = "write the module and the name in it, module:attribute, such as myapp.db:DBSession"
            raise ValueError(msg)
        return place

    @model_validator(mode="after")
    def _one_to_adopt(self) -> Self:
        if self.session is not None and self.engine is not None:
            msg = "database.session and database.engine are both set: a session has its engine, so name the session alone"
            raise ValueError(msg)
        return self

    idle_test_s: float = Field(default=30.0, ge=0)
    """A connection unused for so long is tested before the next message gets it."""
    connect_backoff_cap_s: float = Field(default=5.0, gt=0)
    """Longest wait between two attempts to open a connection."""
    recycle_s: float = Field(default=0.0, ge=0)
    """A worker's connection that is older is replaced before the next message; 0 is never."""
    isolation_level: IsolationLevel | None = None
    """Of every message's transaction whose handler does not say `isolation`; none leaves it to the database."""
    max_connections: int | None = Field(default=None, ge=1)
    """What all workers together may open at most, checked at the start; none: what the server allows."""
    stream_connections: int = Field(default=1, ge=0, le=16)
    """How many connections a worker may open for `ctx.stream` beside its own; 0 refuses it."""
    wait_s: float = Field(default=30.0, gt=0)
    """Database channel: longest wait for the writer, a reader or a server connection before `DatabaseBusy`."""
    transaction_idle_s: float = Field(default=5.0, gt=0)
    """Database channel: an open transaction without a statement for so long is rolled back."""
    server_connections: int = Field(default=8, ge=1, le=1000)
    """Database channel on MySQL, MariaDB and PostgreSQL: connections for all workers together."""
    readers: int = Field(default=2, ge=1, le=64)
    """Database channel on SQLite: connections that read in parallel, and as many more for results that are read slowly."""
    busy_timeout_s: float = Field(default=30.0, ge=0)
    """SQLite: how long a connection waits for another writer's lock."""
    synchronous: Literal["OFF", "NORMAL", "FULL", "EXTRA"] = "FULL"
    """SQLite: FULL survives a power cut; NORMAL may lose the last commits of it, nothing else."""
