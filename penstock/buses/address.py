"""Which bus a URL means."""

from __future__ import annotations

from penstock.buses.contract import Bus
from penstock.config.bus import BusSection
from penstock.errors import ConfigurationError


def open_bus(section: BusSection) -> Bus:
    """The bus for `section.url`, not connected yet: RabbitMQ by `amqp(s)://`, the embedded one by `sqlite:///`.

    Raises `ConfigurationError` when the URL is neither, or names no file.
    """
    scheme = section.url.get_secret_value().partition("://")[0]
    # Imported late: a program on the embedded bus never loads aio-pika, and the other way round.
    if scheme in ("amqp", "amqps"):
        from penstock.buses.rabbitmq import RabbitBus

        return RabbitBus(section)
    if scheme == "sqlite":
        from penstock.buses.embedded import EmbeddedBus

        return EmbeddedBus(section)
    raise ConfigurationError(
        "bus.url is neither amqp://, amqps:// nor sqlite:///; the embedded bus is sqlite:///penstock.db"
    )
