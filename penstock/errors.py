"""Every exception that Penstock raises on purpose; one root, worded for the person who reads it."""

from __future__ import annotations


class PenstockError(Exception):
    """Root of everything that Penstock raises on purpose."""


class ConfigurationError(PenstockError):
    """Raised at start when a setting, a flag or the application's address cannot be used."""


class HandlerError(PenstockError):
    """Raised while handlers are being declared or included, before anything runs."""


class PayloadError(PenstockError):
    """Raised when a payload cannot be written as JSON, or a body cannot be read as the annotation says.

    `reason` is the text that goes into the dead letter.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DeadlineExceeded(PenstockError):  # noqa: N818 - reads as the event it is, as asyncio's TimeoutError does
    """Raised inside a handler when its `timeout` has passed; never inside a commit or a frame."""


class BusError(PenstockError):
    """Root of what goes wrong between Penstock and the bus."""


class BusUnavailable(BusError):  # noqa: N818
    """Raised when the bus cannot be reached, refuses the login, or does not know the virtual host."""


class TopologyMismatch(BusError):  # noqa: N818
    """Raised before consuming when queues exist with other arguments than their handlers declare.

    `differences` holds one line for each queue and argument: both values and the line to write instead.
    """

    def __init__(self, differences: list[str]) -> None:
        super().__init__("\n".join(differences))
        self.differences = differences


class PublishError(BusError):
    """Raised when a message was not accepted by the bus; the message is in nobody's queue."""


class Unroutable(PublishError):  # noqa: N818
    """Raised when no queue is bound where a message was published to; nobody would ever read it."""


class NotCarried(PublishError):  # noqa: N818
    """Raised when the bus can never carry a message as it is: a property or a header that AMQP cannot write."""


class PublishTimeout(PublishError):  # noqa: N818
    """Raised when no publisher confirm came in time: probably delivered, repeat it with the same id."""


class ClientError(PenstockError):
    """Raised when a client is used where it cannot work: closed, on another loop, or blocking in a loop's thread."""


class ChannelError(PenstockError):
    """Raised in a handler when a call over a communication channel failed on the loop's side."""


class ChannelClosed(ChannelError):  # noqa: N818
    """Raised when the loop's end of the channel is gone: the reactor is stopping or has died."""


class FrameError(ChannelError):
    """Raised when a frame is too long, of another version, or not what its type says.

    `is_unsent`: it was too long to be sent, so the other side has not heard of it.
    """

    def __init__(self, text: str, *, is_unsent: bool = False) -> None:
        super().__init__(text)
        self.is_unsent = is_unsent


class DatabaseError(ChannelError):
    """Raised when the database refused a statement that went over the database channel.

    `kind` is the driver's exception type (`IntegrityError`, ...), so that a handler can tell them apart.
    """

    def __init__(self, text: str, kind: str = "DatabaseError") -> None:
        super().__init__(text)
        self.kind = kind


class DatabaseBusy(DatabaseError):  # noqa: N818
    """Raised when a statement waited longer than `database.wait_s` for the writer, and names who holds it.

    On a database server: for a connection, or when the server is not there.
    """


class DatabaseLost(DatabaseBusy):
    """Raised when the connection to the database server was lost under a statement of `ctx.db`: its transaction is gone."""


class DatabaseUnavailable(PenstockError):  # noqa: N818
    """Raised in a handler when the worker's own connection is lost and cannot be opened again in time.

    The message is not charged for it: it comes again.
    """


class TransactionUndone(PenstockError):  # noqa: N818
    """Raised at a commit when the database had undone the transaction and the handler caught the error that said so.

    Nothing was committed. The cause is that error; a deadlock runs the handler again, anything else is its failure.
    """

    def __init__(
        self,
        text: str = "the database undid this message's transaction after an error that the handler caught; nothing was "
        "committed. Let the error through, or put the statement that may fail into a savepoint: "
        "with ctx.connection.begin_nested()",
    ) -> None:
        super().__init__(text)


class ConnectionMisused(PenstockError):  # noqa: N818
    """Raised in a handler that closes `ctx.connection`, keeps it for another message, wants a second one, or
    writes to one SQLite file through `ctx.connection` and `ctx.db` in one message.
    """


class ProxyError(PenstockError):
    """Raised by `SQLProxy.run` when the function raised something that is neither Python's own nor the driver's.

    `type` is that exception's name with its module; the subprocess's traceback is a note on this one.
    """

    def __init__(self, text: str, type: str = "") -> None:  # noqa: A002 - as everywhere where an exception is told in words
        super().__init__(text)
        self.type = type
