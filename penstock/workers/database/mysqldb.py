"""MySQL and MariaDB by mysqlclient (`mysql+mysqldb`): a driver in C, whose waiting no deadline can cut in two.

So a deadline is heard when the statement is over. The driver bounds no single question either: for a server that is
frozen, not gone, write `?read_timeout=60` into the URL.
"""

from __future__ import annotations

import select
from typing import Any

import MySQLdb
from MySQLdb.connections import Connection
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import Pool

from penstock.channels.db.leftovers import left_by
from penstock.errors import TransactionUndone
from penstock.workers.database.mysql_family import DEADLOCK, MySQLFamilyKind


class ClosedError(MySQLdb.InterfaceError):  # type: ignore[misc]
    """Raised for whatever follows a close by the handler."""


class WatchedConnection(Connection):  # type: ignore[misc]
    """The driver's connection, noting in `left` what outlives a rollback."""

    left: str | None = None
    undone_by: BaseException | None = None
    #: True when a transaction may be open.
    is_asked = False
    _was_closed = False

    def close(self) -> None:
        """As the driver's, but twice is harmless: SQLAlchemy closes what it finds broken."""
        if not self._was_closed:
            self._was_closed = True
            super().close()

    def query(self, query: Any) -> None:
        """As the driver's."""
        self._refuse_closed()
        text = query.decode("utf-8", "surrogateescape") if isinstance(query, bytes | bytearray) else query
        self.left = self.left or left_by(text)
        self.is_asked = True
        try:
            super().query(query)
        except MySQLdb.Error as error:
            if error.args and error.args[0] == DEADLOCK:
                self.undone_by = error
            raise

    def commit(self) -> None:
        """As the driver's. Raises `TransactionUndone` when half a transaction would be committed for a whole one."""
        if self.undone_by is not None:
            raise TransactionUndone from self.undone_by
        self._refuse_closed()
        super().commit()
        self.is_asked = False

    def rollback(self) -> None:
        """As the driver's."""
        self.undone_by = None
        self._refuse_closed()
        super().rollback()
        self.is_asked = False

    def autocommit(self, on: bool) -> None:  # noqa: FBT001 - the driver's signature
        """As the driver's."""
        self.left = "autocommit()"
        super().autocommit(on)

    def select_db(self, db: Any) -> None:
        """As the driver's."""
        self.left = "select_db()"
        super().select_db(db)

    def _refuse_closed(self) -> None:
        if self._was_closed:
            raise ClosedError(0, "the connection was closed by the handler")


class MySQLdbKind(MySQLFamilyKind):
    """MySQL and MariaDB by mysqlclient."""

    _raw: WatchedConnection | None = None

    def note_opened(self, raw: Any) -> None:
        """As for the family."""
        super().note_opened(raw)
        self._raw = raw

    def fault_of(self, raw: Any) -> str | None:
        """That the server has said something unasked: a goodbye, or the end of the stream. It costs no question."""
        if raw._was_closed:  # noqa: SLF001 - ours
            return "it is closed"
        # Older versions of the driver do not tell their socket; then the message finds out, uncharged.
        is_over = hasattr(raw, "fileno") and select.select([raw.fileno()], [], [], 0)[0]
        return "the server has closed it" if is_over else None

    def end_transaction(self, raw: Any, *, commit: bool) -> None:
        """Only when the driver was asked for something since the last one ended."""
        if raw.is_asked:
            super().end_transaction(raw, commit=commit)

    def is_lost(self, error: BaseException) -> bool:
        """As for any database, but for a connection that the handler closed.

        Asked when the error comes up (`_note_error`), a connection that is closed was closed on this side.
        """
        is_closed_here = self._raw is not None and self._raw._was_closed  # noqa: SLF001 - ours
        return not is_closed_here and super().is_lost(error)

    def _create_engine(self, pool: type[Pool]) -> Engine:
        engine = create_engine(self.address.url, poolclass=pool, pool_reset_on_return=None)

        def connect(_dialect: Any, _record: Any, args: list[Any], options: dict[str, Any]) -> Any:
            return WatchedConnection(*args, **options)

        event.listen(engine, "do_connect", connect)
        return engine
