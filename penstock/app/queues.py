"""A queue as its handler declares it; the broker's version never changes what is declared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from penstock.errors import HandlerError

QueueType: TypeAlias = Literal["quorum", "classic"]

#: RabbitMQ's short strings hold 255 bytes; ".dead" has to fit behind the name.
MAX_QUEUE_NAME_BYTES = 250


@dataclass(frozen=True, slots=True)
class Binding:
    """Routes an exchange's messages to the handler's queue.

    The exchange is declared durable as `type` unless `declare` is False.
    """

    exchange: str
    key: str = ""
    type: Literal["topic", "direct", "fanout", "headers"] = "topic"
    declare: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDeclaration:
    """Everything that decides how a work queue is declared; equal declarations give equal arguments."""

    name: str
    type: QueueType = "quorum"
    declare: bool = True
    max_priority: int | None = None
    bindings: tuple[Binding, ...] = field(default=())

    def __post_init__(self) -> None:
        size = len(self.name.encode())
        if not 0 < size <= MAX_QUEUE_NAME_BYTES:
            msg = f"queue name {self.name!r} has {size} bytes; it needs 1 to {MAX_QUEUE_NAME_BYTES}"
            raise HandlerError(msg)
        if self.type not in ("quorum", "classic"):
            msg = f"queue {self.name!r}: type={self.type!r} is not known; write 'quorum' or 'classic'"
            raise HandlerError(msg)
        if self.max_priority is not None:
            if self.type == "quorum":
                msg = (
                    f"queue {self.name!r}: quorum queues have no max_priority; "
                    "write type='classic' beside it, or leave max_priority out"
                )
                raise HandlerError(msg)
            if not 1 <= self.max_priority <= 255:
                msg = f"queue {self.name!r}: max_priority={self.max_priority} is not between 1 and 255"
                raise HandlerError(msg)

    @property
    def dead_name(self) -> str:
        """Name of the queue that this one's dead letters go to."""
        return f"{self.name}.dead"
