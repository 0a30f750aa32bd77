"""[database]: the workers' own connection and the database channel."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from penstock.config.section import Section, check_port


class DatabaseSection(Section):
    """The database that handlers work with."""

    url: SecretStr | None = None
    """SQLAlchemy URL, such as `sqlite:///app.db` or `mysql+pymysql://user:password@host/name`."""

    @field_validator("url")
    @classmethod
    def _usable_port(cls, url: SecretStr | None) -> SecretStr | None:
        return None if url is None else check_port(url)

    idle_test_s: float = Field(default=30.0, ge=0)
    """A connection unused for so long is tested before the next message gets it."""
    connect_backoff_cap_s: float = Field(default=5.0, gt=0)
    """Longest wait between two attempts to open a connection."""
    stream_connections: int = Field(default=1, ge=0, le=16)
    """How many connections a worker may open for `ctx.stream` beside its own; 0 refuses it."""
    wait_s: float = Field(default=30.0, gt=0)
    """Database channel: longest wait for the writer before `DatabaseBusy`."""
    transaction_idle_s: float = Field(default=5.0, gt=0)
    """Database channel: an open transaction without a statement for so long is rolled back."""
    server_connections: int = Field(default=8, ge=1, le=1000)
    """Database channel on MySQL, MariaDB and PostgreSQL: connections for all workers together."""
    readers: int = Field(default=2, ge=1, le=64)
    """Database channel: connections that read in parallel."""
    busy_timeout_s: float = Field(default=30.0, ge=0)
    """SQLite: how long a connection waits for another writer's lock."""
    synchronous: str = Field(default="FULL", pattern="^(OFF|NORMAL|FULL|EXTRA)$")
    """SQLite: FULL survives a power cut; NORMAL may lose the last commits of it, nothing else."""
