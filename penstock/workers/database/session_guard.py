"""Who closes an adopted session amid a message: what it wrote would be undone without a word, and the message acked.

The application's code may close a session that only read, as it always did.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session, scoped_session

from penstock.channels.db.statements import READS, verb_of
from penstock.errors import ConnectionMisused
from penstock.workers.database.message import session_words

#: Session.close() is what `with`, scoped_session.remove() and close_all_sessions() call.
_ENDS: Final = {"close": "closed", "reset": "reset", "invalidate": "invalidated"}
#: Other verbs after which nothing is lost.
_HARMLESS: Final = READS | {
    "BEGIN", "DESC", "DESCRIBE", "PRAGMA", "RELEASE", "ROLLBACK", "SAVEPOINT", "SET", "SHOW", "START", "TABLE", "USE",
}  # fmt: skip


class SessionGuard:
    """Refuses it for as long as it is open."""

    def __init__(
        self, scoped: scoped_session[Session], engine: Engine, is_in_handler: Callable[[], bool]
    ) -> None:
        """Sessions that there are already are not guarded."""
        self._scoped = scoped
        self._engine = engine
        self._is_in_handler = is_in_handler
        self._create = scoped.registry.createfunc
        #: Connections that have written since their transaction began.
        self._writing: set[int] = set()
        self._listeners: dict[str, Any] = {
            "before_cursor_execute": self._note_statement,
            "commit": self._forget,
            "rollback": self._forget,
        }
        for name, listener in self._listeners.items():
            event.listen(engine, name, listener)
        scoped.registry.createfunc = self._create_guarded

    def begin(self) -> None:
        """A message begins."""
        self._writing.clear()

    def close(self) -> None:
        """Guard no more."""
        self._scoped.registry.createfunc = self._create
        for name, listener in self._listeners.items():
            if event.contains(self._engine, name, listener):
                event.remove(self._engine, name, listener)

    def _create_guarded(self) -> Session:
        session = self._create()
        for name, what in _ENDS.items():
            # Older versions of SQLAlchemy know no reset.
            if hasattr(session, name):
                setattr(session, name, self._refusing(session, what, getattr(session, name)))
        return session

    def _refusing(self, session: Session, what: str, end: Callable[[], None]) -> Callable[[], None]:
        def refuse_or_end() -> None:
            # Amid an exception, of a `with` for example, to close is to roll back.
            is_failing = sys.exc_info()[0] is not None
            if (
                self._is_in_handler()
                and not is_failing
                and session.in_transaction()
                and self._has_written(session)
            ):
                raise ConnectionMisused(session_words(what))
            end()

        return refuse_or_end

    def _has_written(self, session: Session) -> bool:
        return bool(self._writing or session.new or session.dirty or session.deleted)

    def _note_statement(self, connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        if self._is_in_handler() and verb_of(statement) not in _HARMLESS:
            self._writing.add(id(connection.connection.dbapi_connection))

    def _forget(self, connection: Connection) -> None:
        if connection.invalidated:
            # Nobody knows any more which it was, and nothing can be lost that is not lost.
            self._writing.clear()
        else:
            self._writing.discard(id(connection.connection.dbapi_connection))
