"""Penstock: messages from a bus, handlers in worker processes, one persistent database connection each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.app.application import App, Router
    from penstock.app.backoff import Backoff
    from penstock.app.context import AsyncContext, Context
    from penstock.app.current import session
    from penstock.app.outcomes import Reject, Retry
    from penstock.app.queues import Binding
    from penstock.client import AsyncClient, Client
    from penstock.dead.letters import DeadLetter, DeadLetters
    from penstock.errors import (
        BusError,
        BusUnavailable,
        ChannelClosed,
        ChannelError,
        ClientError,
        ConfigurationError,
        ConnectionMisused,
        DatabaseBusy,
        DatabaseError,
        DatabaseLost,
        DatabaseUnavailable,
        DeadlineExceeded,
        HandlerError,
        NotCarried,
        PayloadError,
        PenstockError,
        ProxyError,
        PublishError,
        PublishTimeout,
        TopologyMismatch,
        TransactionUndone,
        Unroutable,
    )
    from penstock.proxy.sqlproxy import SQLProxy
    from penstock.threads.connections import close_connection, close_connections, get_connection

    __version__: str

__all__ = [  # noqa: RUF022 - in groups, as a reader looks for them
    # Handlers
    "App",
    "Router",
    "Binding",
    "Backoff",
    "Context",
    "AsyncContext",
    "Retry",
    "Reject",
    "session",
    # Publishing
    "Client",
    "AsyncClient",
    # Dead letters
    "DeadLetters",
    "DeadLetter",
    # Your own threads
    "SQLProxy",
    "get_connection",
    "close_connection",
    "close_connections",
    # Errors
    "PenstockError",
    "ConfigurationError",
    "HandlerError",
    "PayloadError",
    "DeadlineExceeded",
    "BusError",
    "BusUnavailable",
    "TopologyMismatch",
    "PublishError",
    "Unroutable",
    "PublishTimeout",
    "NotCarried",
    "ClientError",
    "ChannelError",
    "ChannelClosed",
    "DatabaseError",
    "DatabaseBusy",
    "DatabaseLost",
    "DatabaseUnavailable",
    "TransactionUndone",
    "ConnectionMisused",
    "ProxyError",
    # Package
    "__version__",
]

_PLACES = {
    "App": "penstock.app.application",
    "Router": "penstock.app.application",
    "Binding": "penstock.app.queues",
    "Backoff": "penstock.app.backoff",
    "Context": "penstock.app.context",
    "AsyncContext": "penstock.app.context",
    "session": "penstock.app.current",
    "Retry": "penstock.app.outcomes",
    "Reject": "penstock.app.outcomes",
    "Client": "penstock.client",
    "AsyncClient": "penstock.client",
    "DeadLetters": "penstock.dead.letters",
    "DeadLetter": "penstock.dead.letters",
    "SQLProxy": "penstock.proxy.sqlproxy",
    "get_connection": "penstock.threads.connections",
    "close_connection": "penstock.threads.connections",
    "close_connections": "penstock.threads.connections",
}


# Hidden from type checkers, who would take every name for one that is there.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # Loaded at the first use, so that a worker never loads the client, and a publisher never the rest.
        if name == "__version__":
            from importlib.metadata import version

            value: Any = version("penstock")
        elif name in __all__:
            value = getattr(import_module(_PLACES.get(name, "penstock.errors")), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
