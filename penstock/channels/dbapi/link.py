"""The worker's one link to the loop's database, which every PEP 249 connection of the process shares."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from penstock.channels.db.calls import SERVICE
from penstock.channels.stub import Channel
from penstock.errors import ChannelClosed, ChannelError


class Session(Protocol):
    """What a connection holds on the loop's side."""

    is_abandoned: bool
    """Nobody holds its connection any more."""

    @property
    def in_transaction(self) -> bool:
        """True while a transaction is open there."""
        ...

    def forget(self) -> None:
        """What it held is gone."""
        ...

    def lose(self) -> None:
        """What it held is gone, and its holder has to hear of it."""
        ...

    def abandon(self) -> None:
        """End its transaction and close its cursors: nobody holds it any more."""
        ...


class Link:
    """Calls of the process's connections, and what is left of them when a message ends.

    `guard(writes)` is called before each statement; it may raise to refuse it.
    """

    def __init__(self, channel: Channel, *, guard: Callable[[bool], None]) -> None:
        self._channel = channel
        self._guard = guard
        self.holding: set[Session] = set()
        """Sessions with something open on the loop's side, or with a call that was cut short."""

    @property
    def limit_bytes(self) -> int:
        """What the parameters of one call may fill."""
        return self._channel.limit_bytes

    @property
    def in_transaction(self) -> bool:
        """True while any connection has one open."""
        return any(session.in_transaction for session in self.holding)

    def guard(self, *, writes: bool) -> None:
        """Raises `ConnectionMisused` when a statement would wait for the worker's own connection."""
        self._guard(writes)

    def call(self, method: str, arguments: object, result: Any) -> Any:
        """Ask the loop. Raises `ChannelClosed`, `FrameError`, `DeadlineExceeded`, `ChannelError`."""
        return self._channel.call(SERVICE, method, arguments, result)

    def end_abandoned(self) -> None:
        """Roll back what connections hold that were thrown away without `close()`, as the driver does."""
        for session in [held for held in self.holding if held.is_abandoned]:
            session.abandon()

    def reset(self, cut: Session | None = None) -> None:
        """The message is over, or a call of `cut` was cut short: everything that is open on the loop's side is rolled back."""
        # On a closed channel there is nothing left to reset: the loop has forgotten this worker already.
        with suppress(ChannelClosed):
            self._channel.call(SERVICE, "reset", None)
        for session in list(self.holding):
            if cut is None or session is cut:
                session.forget()
            else:
                session.lose()
        self.holding.clear()


_attached: list[Link] = []


def attach(link: Link) -> None:
    """From here on this process's connections go over this link."""
    _attached.append(link)


def detach(link: Link) -> None:
    """The link is closed; harmless when repeated."""
    if link in _attached:
        _attached.remove(link)


def current() -> Link:
    """The link of this process. Raises `ChannelError` outside a worker."""
    if not _attached:
        msg = (
            "there is no database channel in this process: penstock.channels.dbapi and …+penstock:// URLs work inside "
            "handlers that penstock run, or penstock.testing.Worker, has started; elsewhere use the driver itself"
        )
        raise ChannelError(msg)
    return _attached[-1]


def current_or(error: type[Exception]) -> Link:
    """The same for a driver's `connect`. Raises `error`, its InterfaceError."""
    try:
        return current()
    except ChannelError as found:
        raise error(str(found)) from found
