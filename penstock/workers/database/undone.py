"""Which transactions of an adopted engine the database has undone, though the handler goes on: none is committed by halves.

```
 an error ─▶ noted on its connection ─▶ COMMIT: refused
                     └─▶ rolled back: forgotten
```
Events alone, because the connections are of the application's own class. So what a handler does past SQLAlchemy, on the
driver's own cursor, is not seen.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Engine, event

from penstock.errors import TransactionUndone
from penstock.workers.database.kind import DatabaseKind
from penstock.workers.database.sqlite import SqliteKind

#: Keys in a connection's own dictionary: the first error in its transaction, the one with which the database undid it, and
#: whether a transaction was open before the last statement.
_FIRST_ERROR: Final = "penstock first error"
_UNDONE_BY: Final = "penstock undone by"
_WAS_INSIDE: Final = "penstock was inside"


class UndoneWatch:
    """Refuses the commits of such transactions, in the middle of a handler too."""

    def __init__(self, engine: Engine, kind: DatabaseKind) -> None:
        self._engine = engine
        self._kind = kind
        self._is_sqlite = isinstance(kind, SqliteKind)
        self._listeners: dict[str, Any] = {
            "commit": self._refuse,
            "rollback": self._forget,
            "rollback_savepoint": self._forget_savepoint,
        }
        self._listeners["before_cursor_execute"] = (
            self._look_inside if self._is_sqlite else self._refuse_by_text
        )
        for name, listener in self._listeners.items():
            event.listen(engine, name, listener)

    def close(self) -> None:
        """Watch no more."""
        for name, listener in self._listeners.items():
            if event.contains(self._engine, name, listener):
                event.remove(self._engine, name, listener)

    def note(self, connection: Connection, error: BaseException, found: BaseException) -> None:
        """A statement failed, and the connection lives; `found` is the driver's own error."""
        info = connection.info
        info.setdefault(_FIRST_ERROR, error)
        if self._kind.undoes_all(found) or (self._is_sqlite and self._has_gone(connection)):
            info.setdefault(_UNDONE_BY, error)

    def _has_gone(self, connection: Connection) -> bool:
        # SQLite says with no error that it undid everything; the driver says that nothing is open any more.
        raw: Any = connection.connection.dbapi_connection
        if raw.in_transaction or not connection.info.get(_WAS_INSIDE):
            return False
        # Without a transaction further statements might each be committed by itself.
        raw.execute("BEGIN")
        return True

    def _look_inside(self, connection: Connection, *_rest: Any) -> None:
        raw: Any = connection.connection.dbapi_connection
        connection.info[_WAS_INSIDE] = raw.in_transaction

    def _refuse(self, connection: Connection) -> None:
        if not self._is_undone(connection):
            return
        error = self._reason(connection)
        raw: Any = connection.connection.dbapi_connection
        # A rollback that follows a refused commit SQLAlchemy keeps to itself.
        raw.rollback()
        self._forget(connection)
        raise TransactionUndone from error

    def _refuse_by_text(self, connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        if self._is_undone(connection) and self._kind.commits_by_text(statement):
            raise TransactionUndone from self._reason(connection)

    def _is_undone(self, connection: Connection) -> bool:
        return _UNDONE_BY in connection.info or self._kind.has_undone(connection.connection.dbapi_connection)

    def _reason(self, connection: Connection) -> BaseException | None:
        error: BaseException | None = connection.info.get(_UNDONE_BY, connection.info.get(_FIRST_ERROR))
        return error

    def _forget(self, connection: Connection) -> None:
        if connection.invalidated:
            # What was noted on it has gone with it.
            return
        connection.info.pop(_UNDONE_BY, None)
        connection.info.pop(_FIRST_ERROR, None)

    def _forget_savepoint(self, connection: Connection, _name: str, _context: None) -> None:
        if not connection.invalidated:
            # The error was undone with its savepoint; what undid everything would not be.
            connection.info.pop(_FIRST_ERROR, None)
