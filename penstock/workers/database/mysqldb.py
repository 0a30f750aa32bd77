"""MySQL and MariaDB by mysqlclient (`mysql+mysqldb`): a driver in C, whose waiting no deadline can cut in two.

So a deadline is heard when the statement is over. The driver bounds no single question either: for a server that is
frozen, not gone, write `?read_timeout=60` into the URL.
"""

from __future__ import annotations

import functools
import select
from collections.abc import Callable
from typing import Any

import MySQLdb
from MySQLdb.connections import Connection
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import Pool

from penstock.channels.db.server.lengths import check_length
from penstock.workers.database.mysql_family import MySQLFamilyKind, Watched


class ClosedError(MySQLdb.InterfaceError):  # type: ignore[misc]
    """Raised for whatever follows a close by the handler."""


class WatchedConnection(Watched, Connection):  # type: ignore[misc]
    """The driver's connection, noting in `left` what outlives a rollback."""

    kept = ("converter", "cursorclass", "encoders", "encoding")
    #: True when a transaction may be open.
    is_asked = False
    _was_closed = False

    def close(self) -> None:
        """As the driver's, but twice is harmless: SQLAlchemy closes what it finds broken."""
        if not self._was_closed:
            self._was_closed = True
            super().close()

    def query(self, query: Any) -> None:
        """As the driver's. Raises `DataError` for a statement that the server would answer by ending the connection."""
        self._refuse_closed()
        text = query.decode("utf-8", "surrogateescape") if isinstance(query, bytes | bytearray) else query
        sent = query.encode(self.encoding, "surrogateescape") if isinstance(query, str) else query
        check_length(sent, self.most_bytes, MySQLdb.DataError)
        self.note_statement(text)
        self.is_asked = True
        try:
            super().query(query)
        except MySQLdb.Error as error:
            self.note_failed(error)
            raise

    def commit(self) -> None:
        """As the driver's. Raises `TransactionUndone` when half a transaction would be committed for a whole one."""
        self.check_undone()
        self._refuse_closed()
        super().commit()
        self.is_asked = False

    def rollback(self) -> None:
        """As the driver's."""
        self.undone_by = None
        self._refuse_closed()
        super().rollback()
        self.is_asked = False

    def ping(self, *_reconnect: Any) -> None:
        """As the driver's, but it never opens another connection, on which the rest of a message would be committed."""
        super().ping()

    def _refuse_closed(self) -> None:
        if self._was_closed:
            raise ClosedError(0, "the connection was closed by the handler")


def _noting(name: str) -> Callable[..., Any]:
    method = getattr(Connection, name)

    @functools.wraps(method)
    def note(self: WatchedConnection, *args: Any, **options: Any) -> Any:
        self.left = f"{name}()"
        return method(self, *args, **options)

    return note


for _name in ("autocommit", "change_user", "select_db", "set_character_set", "set_server_option"):
    # They do not go by `query`.
    setattr(WatchedConnection, _name, _noting(_name))


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
            raw = WatchedConnection(*args, **options)
            raw.most_bytes = self.most_bytes(raw)
            return raw

        event.listen(engine, "do_connect", connect)
        return engine
