"""`penstock.session`: the session of the message that runs here, for code that is called without a context."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from penstock.app.context import WorkerDatabase
from penstock.errors import ConnectionMisused

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: The database of the message that runs in this thread; None between messages.
running_database: ContextVar[WorkerDatabase | None] = ContextVar("running_database", default=None)


class SessionProxy:
    """Stands for `ctx.session` of whatever message runs in this thread."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # What inspects any object asks for these, wherever it meets one.
            raise AttributeError(name)
        return getattr(_session(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_session(), name, value)

    def __contains__(self, item: object) -> bool:
        return item in _session()

    def __iter__(self) -> Iterator[object]:
        return iter(_session())

    def __repr__(self) -> str:
        return f"<penstock.session {'in a message' if running_database.get() else 'outside of any message'}>"


def _session() -> Session:
    database = running_database.get()
    if database is None:
        msg = (
            "penstock.session is used where no message runs: it is there inside a plain handler and what that calls, in the "
            "handler's own thread; not in an async handler, a hook, a thread of yours, or while a module is imported"
        )
        raise ConnectionMisused(msg)
    return database.session


session = cast("Session", SessionProxy())
