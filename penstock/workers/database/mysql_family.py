"""MySQL and MariaDB, whatever the driver: their error codes, their limits, what a message leaves on their connections."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection

from penstock.workers.database.kind import WatchingKind

#: Deadlock: InnoDB has rolled back the whole transaction, and the next statement begins another one.
DEADLOCK: Final = 1213
#: Lock wait timeout, deadlock, changed since it was read (MariaDB's snapshot isolation), NOWAIT.
_CONFLICT_CODES: Final = frozenset({1205, DEADLOCK, 1020, 3572})
#: Said by MySQL of a server that is stopping, and of a session that was killed; SQLAlchemy knows the others.
_LOST_CODES: Final = frozenset({1053, 3169})
#: Disk full, table full.
_BUSY_CODES: Final = frozenset({1021, 1114})


class MySQLFamilyKind(WatchingKind):
    """What both drivers' kinds share."""

    def most_connections(self, raw: Any) -> tuple[int, str] | None:
        """The server's limit, and the user's when that is lower."""
        with raw.cursor() as cursor:
            cursor.execute("SELECT @@max_connections, @@max_user_connections")
            server, user = map(int, cursor.fetchone())
        raw.rollback()
        if 0 < user < server:
            return user, f"max_user_connections={user}"
        return server, f"max_connections={server}"

    def begin_stream(self, connection: Connection) -> None:
        """Read only."""
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")

    def left_by_options(self, options: Any) -> str | None:
        """Nothing: an isolation level is a SET, which the connection has noted."""
        del options
        return None

    def is_lost(self, error: BaseException) -> bool:
        """As for any database, and by MySQL's words for a stop and a kill."""
        return self._code_of(error) in _LOST_CODES or super().is_lost(error)

    def is_busy(self, error: BaseException) -> bool:
        """Disk or table full."""
        return self._code_of(error) in _BUSY_CODES

    def undoes_all(self, error: BaseException) -> bool:
        """A deadlock."""
        return self._code_of(error) == DEADLOCK

    def is_conflict(self, error: BaseException) -> bool:
        """Lock wait timeout, deadlock, changed since it was read."""
        return self._code_of(error) in _CONFLICT_CODES

    def _code_of(self, error: BaseException) -> object:
        is_ours = isinstance(error, self.engine.dialect.loaded_dbapi.Error)
        return error.args[0] if is_ours and error.args else None
