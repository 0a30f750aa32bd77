"""What the channel says of itself, on every database."""

from __future__ import annotations

from penstock.errors import ChannelClosed, ChannelError, DatabaseError


def stopping(what: str = "nothing of the statement was run") -> ChannelClosed:
    """For who calls after the end; `what` became of the call."""
    return ChannelClosed(f"the service is stopping and the database channel with it; {what}")


def withdrawn() -> ChannelError:
    """For who waits when its message is over: nobody reads the answer."""
    return ChannelError("the call was withdrawn: its message is over")


def over() -> DatabaseError:
    """For rows asked of a cursor that is closed."""
    msg = (
        "the rest of the result is gone: its transaction ended, or its connection was lost, before it was read; fetch "
        "all rows before commit() and rollback()"
    )
    return DatabaseError(msg, "OperationalError")
