"""How the handling of one delivery ended: a value, never an exception in flight.

Workers (and the loop, for coroutines) make these; `penstock.reactor.decide` reads them; nothing else does.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from penstock.app.messages import MAX_DELAY_S, Outgoing


class Failure(Struct, frozen=True, array_like=True):
    """An exception as plain data, because exceptions do not survive pickling (gh-103061)."""

    type: str
    text: str
    traceback: str = ""


class Returned(Struct, frozen=True, array_like=True, tag=True):
    """The handler returned and its transaction is committed; what it published may leave now."""

    published: tuple[Outgoing, ...] = ()


class Raised(Struct, frozen=True, array_like=True, tag=True):
    """The handler raised; its transaction is rolled back."""

    failure: Failure
    charged: bool = True
    """False when the fault was not the message's: a lost database, a stopping channel."""
    commit_unknown: bool = False
    """The connection broke while it committed: the transaction may be durable all the same."""
    lost_amid: bool = False
    """Not charged, for a connection that lived when the handler took it and was lost in its hands: so only some times in a row."""


class AskedRetry(Struct, frozen=True, array_like=True, tag=True):
    """The handler raised `Retry`; `delay_s` None means: as its policy says."""

    delay_s: float | None
    reason: str


class Rejected(Struct, frozen=True, array_like=True, tag=True):
    """The handler raised `Reject`."""

    reason: str


class Unreadable(Struct, frozen=True, array_like=True, tag=True):
    """The body could not be decoded or validated; another run would end the same."""

    reason: str
    failure: Failure | None = None


class Died(Struct, frozen=True, array_like=True, tag=True):
    """The worker process died in this message's hands, or was killed at its hard deadline."""

    how: str
    """Words: signal or exit code, or the deadline."""
    phase: str
    commit_unknown: bool = False
    """It was committing: the transaction may be durable all the same."""
    peak_bytes: int = 0
    """The most resident memory that was seen of the process; 0 when nobody knows."""
    stack: str = ""
    """The Python stack at its end, as faulthandler writes it; empty when it left none."""


Outcome: TypeAlias = Returned | Raised | AskedRetry | Rejected | Unreadable | Died

DONE = Returned()


class Retry(Exception):  # noqa: N818 - the word a handler says
    """Raise it in a handler to have the message again later.

    `delay` in seconds; None leaves it to the handler's backoff. It counts as one of the policy's attempts.
    """

    def __init__(self, reason: str = "the handler asked for a retry", *, delay: float | None = None) -> None:
        if delay is not None and not 0 <= delay <= MAX_DELAY_S:
            msg = f"Retry(delay={delay!r}): a delay is a number of seconds, from 0 to {MAX_DELAY_S:.0f} (12 days)"
            raise ValueError(msg)
        super().__init__(reason)
        self.reason = reason
        self.delay = delay


class Reject(Exception):  # noqa: N818 - the word a handler says
    """Raise it in a handler to put the message into the dead-letter queue with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
