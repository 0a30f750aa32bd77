"""MySQL and MariaDB, whatever the driver: their limits, what undoes their transactions, what a message leaves on their connections."""

from __future__ import annotations

import re
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.engine import ExceptionContext

from penstock.channels.db.leftovers import IN_FRONT, left_by, parts
from penstock.channels.db.server.codes import (
    BUSY_CODES,
    CONFLICT_CODES,
    LOCK_TIMEOUT,
    LOST_CODES,
    UNDOING_CODES,
)
from penstock.channels.db.server.lengths import FOUND_TOO_LARGE, QUESTION
from penstock.errors import TransactionUndone
from penstock.workers.database.kind import WatchingKind

#: What goes on inside a transaction; whatever else there is may commit it first (DDL, BEGIN, LOCK TABLES, CALL), or says so.
_GOES_ON: Final = re.compile(
    rf"{IN_FRONT}(?:SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH|VALUES|DO|SHOW|EXPLAIN|DESC|DESCRIBE|SAVEPOINT|RELEASE|ROLLBACK)\b",
    re.IGNORECASE,
)
_ROLLS_BACK: Final = re.compile(rf"{IN_FRONT}ROLLBACK\b(?!.*\bTO\b)", re.IGNORECASE | re.DOTALL)


class Watched:
    """What both drivers' connections share: they note what outlives a rollback, and what undid a transaction."""

    #: Attributes of the driver's that the next message finds.
    kept: tuple[str, ...] = ()
    left: str | None = None
    #: Codes of the errors that undo the whole transaction, as the server is set.
    undoing: frozenset[int] = UNDOING_CODES
    #: The error that took the transaction away, until somebody rolls back.
    undone_by: BaseException | None = None
    #: What the server takes in one packet.
    most_bytes: int | None = None
    #: As `look` found it when the connection was opened.
    state: dict[str, Any]

    def look(self) -> dict[str, Any]:
        """What is kept, by name."""
        found = {name: getattr(self, name) for name in self.kept}
        return {name: dict(value) if isinstance(value, dict) else value for name, value in found.items()}

    def note_statement(self, text: str) -> None:
        """This goes to the server now. Raises `TransactionUndone` for what would commit half a transaction."""
        self.left = self.left or left_by(text)
        if self.undone_by is None:
            return
        for part in parts(text):
            if _ROLLS_BACK.match(part):
                self.undone_by = None
            elif self.undone_by is not None and not _GOES_ON.match(part):
                raise TransactionUndone from self.undone_by

    def note_failed(self, error: BaseException) -> None:
        """The server answered with this."""
        if error.args and error.args[0] in self.undoing and self.undone_by is None:
            self.undone_by = error

    def check_undone(self) -> None:
        """Raises `TransactionUndone` when half a transaction would be committed for a whole one."""
        if self.undone_by is not None:
            raise TransactionUndone from self.undone_by


class MySQLFamilyKind(WatchingKind):
    """What both drivers' kinds share."""

    #: True after a statement that the server, or what stands before it, found too long: it ends the connection for that.
    _is_too_long = False
    _undoing = UNDOING_CODES

    def note_opened(self, raw: Any) -> None:
        """As for any that is watched."""
        super().note_opened(raw)
        self._is_too_long = False

    def most_connections(self, raw: Any) -> tuple[int, str] | None:
        """The server's limit, and the user's when that is lower."""
        with raw.cursor() as cursor:
            cursor.execute("SELECT @@max_connections, @@max_user_connections")
            server, user = map(int, cursor.fetchone())
        raw.rollback()
        if 0 < user < server:
            return user, f"max_user_connections={user}"
        return server, f"max_connections={server}"

    def most_bytes(self, raw: Any) -> int | None:
        """The server's own limit."""
        with raw.cursor() as cursor:
            cursor.execute(QUESTION)
            [(most,)] = cursor.fetchall()
        raw.rollback()
        return int(most)

    def autocommits(self, raw: Any) -> bool:
        """As the server's last answer said."""
        return bool(raw.get_autocommit())

    def learn(self, raw: Any) -> None:
        """Whether a lock that is not had in time undoes the whole transaction, or its statement alone."""
        with raw.cursor() as cursor:
            # Not by @@: who stands in between, or has no InnoDB, does not know it.
            cursor.execute("SHOW VARIABLES LIKE 'innodb_rollback_on_timeout'")
            is_on = any(str(value).upper() in ("ON", "1") for _name, value in cursor.fetchall())
        raw.rollback()
        self._undoing = UNDOING_CODES | {LOCK_TIMEOUT} if is_on else UNDOING_CODES

    def begin_stream(self, connection: Connection) -> None:
        """Read only."""
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")

    def left_by_options(self, options: Any) -> str | None:
        """Nothing: an isolation level is a SET, which the connection has noted."""
        del options
        return None

    def is_lost(self, error: BaseException) -> bool:
        """As for any database, and by MySQL's words for a stop and a kill; not when the message is to blame."""
        if self._is_too_long:
            return False
        return self._code_of(error) in LOST_CODES or super().is_lost(error)

    def is_busy(self, error: BaseException) -> bool:
        """Disk or table full."""
        return self._code_of(error) in BUSY_CODES

    def undoes_all(self, error: BaseException) -> bool:
        """A deadlock and the like; a lock not had in time where the server is set so."""
        return self._code_of(error) in self._undoing

    def commits_by_text(self, statement: str) -> bool:
        """As for `Watched`: DDL does, too."""
        return not all(map(_GOES_ON.match, parts(statement)))

    def is_conflict(self, error: BaseException) -> bool:
        """Lock wait timeout, deadlock, changed since it was read."""
        return self._code_of(error) in CONFLICT_CODES

    def _note_error(self, context: ExceptionContext) -> None:
        if self._code_of(context.original_exception) == FOUND_TOO_LARGE:
            self._is_too_long = True
        super()._note_error(context)

    def _code_of(self, error: BaseException) -> object:
        is_ours = isinstance(error, self.engine.dialect.loaded_dbapi.Error)
        return error.args[0] if is_ours and error.args else None
