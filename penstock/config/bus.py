"""[bus]: where messages come from."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from penstock.config.section import Section, check_port


class BusSection(Section):
    """The bus: RabbitMQ by `amqp://` or `amqps://`, the embedded one by `sqlite:///`."""

    url: SecretStr = SecretStr("sqlite:///penstock.db")
    """`amqp://user:password@host:5672/vhost`, or `sqlite:///file.db` for the embedded bus."""

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: SecretStr) -> SecretStr:
        scheme = url.get_secret_value().partition("://")[0]
        if scheme not in ("amqp", "amqps", "sqlite"):
            msg = "a bus is amqp://user:password@host/vhost, amqps://… or sqlite:///file.db"
            raise ValueError(msg)
        return check_port(url)

    prefetch_total: int = Field(default=2000, ge=2, le=65535)
    """Deliveries held at once over all handlers that do not set `prefetch`."""
    heartbeat_s: int = Field(default=10, ge=2, le=600)
    """AMQP heartbeat; a silent broker is noticed after about three of them."""
    connect_timeout_s: float = Field(default=10.0, gt=0)
    """Limit of one attempt to connect."""
    reconnect_cap_s: float = Field(default=3.0, gt=0)
    """Longest wait between two attempts to reconnect; the wait is drawn from 0 to it (full jitter)."""
    confirm_timeout_s: float = Field(default=30.0, gt=0)
    """Longest wait for a publisher confirm."""
    consumer_timeout_s: float = Field(default=1800.0, gt=0)
    """The broker's own limit for an unacknowledged delivery; AMQP cannot ask for it."""
    watch_s: float = Field(default=30.0, gt=0)
    """How often each queue's consumer is compared with what the broker says; one that gets nothing is started again."""
    lease_s: float = Field(default=60.0, gt=0)
    """Embedded bus: how long a claimed delivery stays with a reactor that no longer renews it."""

    @property
    def is_embedded(self) -> bool:
        """True for the bus in an SQLite file, False for a broker."""
        return self.url.get_secret_value().startswith("sqlite:")
