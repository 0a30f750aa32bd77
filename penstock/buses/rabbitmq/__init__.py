"""RabbitMQ as a bus: over aio-pika, with supervision, settling and confirms of our own."""

from penstock.buses.rabbitmq.bus import RabbitBus

__all__ = ["RabbitBus"]
