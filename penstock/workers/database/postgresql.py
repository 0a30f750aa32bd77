"""PostgreSQL by psycopg: a connection that commits nothing half, and words for what its server does to it."""

from __future__ import annotations

import re
import select
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.pq import ExecStatus, TransactionStatus
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import Pool

from penstock.errors import TransactionUndone
from penstock.workers.database.kind import DatabaseKind

#: A network that swallows packets would hold the test of an idle connection for a quarter of an hour.
_PING_TIMEOUT_S: Final = 5.0
#: How long a statement that a deadline cut off is asked to end before its connection is closed.
_CANCEL_TIMEOUT_S: Final = 2.0
#: SQLSTATE of what ends a session: shut down, crashed, starting up, idle too long, in a transaction too long.
_LOST_STATES: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "25P04"})
#: Serialization failure, deadlock, lock not available.
_CONFLICT_STATES: Final = frozenset({"40001", "40P01", "55P03"})
#: Disk full, out of memory.
_BUSY_STATES: Final = frozenset({"53100", "53200"})
_ENDS_WITH_ITS_TRANSACTION: Final = re.compile(r"\s*SET\s+(?:LOCAL|TRANSACTION)\b", re.IGNORECASE)
_LIMITS: Final = """
    SELECT current_setting('max_connections')::int,
           CASE WHEN current_setting('is_superuser') = 'on' THEN 0 ELSE
               current_setting('superuser_reserved_connections')::int
               + coalesce(current_setting('reserved_connections', true)::int, 0) END,
           (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
           (SELECT datconnlimit FROM pg_database WHERE datname = current_database())
"""

_Connection: TypeAlias = psycopg.Connection[Any]


class WatchedConnection(_Connection):
    """The driver's connection, which refuses to take a rollback for a commit."""

    undone_by: BaseException | None = None

    def commit(self) -> None:
        """As the driver's. Raises `TransactionUndone` where the server would answer COMMIT with ROLLBACK, in silence."""
        if self.pgconn.transaction_status == TransactionStatus.INERROR:
            raise TransactionUndone from self.undone_by
        super().commit()
        self.undone_by = None

    def rollback(self) -> None:
        """As the driver's."""
        super().rollback()
        self.undone_by = None


class PostgreSQLKind(DatabaseKind):
    """PostgreSQL."""

    _raw: WatchedConnection | None = None

    def note_opened(self, raw: Any) -> None:
        """As for any database."""
        super().note_opened(raw)
        self._raw = raw

    def most_connections(self, raw: Any) -> tuple[int, str] | None:
        """The server's limit without what it reserves for its superuser, and the role's and the database's when lower."""
        row = raw.execute(_LIMITS).fetchone()
        raw.rollback()
        server, reserved, role, database = map(int, row)
        words = f"max_connections={server}" + (f", {reserved} of them reserved" if reserved else "")
        limits = [
            (server - reserved, words),
            (role, f"the role's CONNECTION LIMIT {role}"),
            (database, f"the database's CONNECTION LIMIT {database}"),
        ]
        return min((limit for limit in limits if limit[0] >= 0), key=lambda limit: limit[0])

    def fault_of(self, raw: Any) -> str | None:
        """What the server said of it since the last message; it costs no question."""
        if raw.closed:
            return "the server has closed it" if raw.broken else "it is closed"
        if raw.pgconn.transaction_status != TransactionStatus.IDLE:
            return "it is amid a statement or a transaction"
        if select.select([raw.pgconn.socket], [], [], 0)[0]:
            # It may be a harmless notice, or the goodbye of a server whose end of the connection is not closed yet.
            try:
                self.ping(raw)
            except psycopg.Error as error:
                return self.words_of(error)
        return None

    def ping(self, raw: Any) -> None:
        """Wait no longer than 5 s for a sign of life."""
        deadline_s = time.monotonic() + _PING_TIMEOUT_S
        raw.pgconn.send_query(b";")
        while raw.pgconn.is_busy():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([raw.pgconn.socket], [], [], left_s)[0]:
                msg = f"no sign of life for {_PING_TIMEOUT_S:g} s"
                raise psycopg.OperationalError(msg)
            raw.pgconn.consume_input()
        while (result := raw.pgconn.get_result()) is not None:
            if result.status != ExecStatus.EMPTY_QUERY:
                raise psycopg.OperationalError(result.error_message.decode(errors="replace"))

    def begin_stream(self, connection: Connection) -> None:
        """Read only."""
        connection.execution_options(postgresql_readonly=True)

    def close_results(self, raw: Any) -> None:
        """Stop the statement that a deadline cut off: the server would go on with it after we have gone."""
        if raw.pgconn.transaction_status == TransactionStatus.ACTIVE:
            raw.cancel_safe(timeout=_CANCEL_TIMEOUT_S)
            msg = "a statement was cut off, by a deadline for example; it was cancelled, and its connection is closed"
            raise psycopg.OperationalError(msg)

    def end_transaction(self, raw: Any, *, commit: bool) -> None:
        """Only when there is one."""
        if raw.pgconn.transaction_status != TransactionStatus.IDLE:
            super().end_transaction(raw, commit=commit)

    def is_lost(self, error: BaseException) -> bool:
        """By the server's word for it, and by the state of the connection when it had no time for a word."""
        if not isinstance(error, psycopg.Error):
            return False
        state = error.sqlstate
        if state is not None:
            return state in _LOST_STATES or state.startswith("08")
        # Not one that the handler closed: its message would come again for ever, charged to nobody.
        return isinstance(error, psycopg.OperationalError) and self._raw is not None and self._raw.broken

    def has_undone(self, raw: Any) -> bool:
        """After any error outside of a savepoint."""
        return bool(raw.pgconn.transaction_status == TransactionStatus.INERROR)

    def is_conflict(self, error: BaseException) -> bool:
        """Serialization failure, deadlock, lock timeout."""
        return isinstance(error, psycopg.Error) and error.sqlstate in _CONFLICT_STATES

    def is_busy(self, error: BaseException) -> bool:
        """Disk full, memory full."""
        return isinstance(error, psycopg.Error) and error.sqlstate in _BUSY_STATES

    def _create_engine(self, pool: type[Pool]) -> Engine:
        engine = super()._create_engine(pool)

        def connect(_dialect: Any, _record: Any, args: list[Any], options: dict[str, Any]) -> Any:
            return WatchedConnection.connect(*args, **options)

        event.listen(engine, "do_connect", connect)
        event.listen(engine, "rollback_savepoint", self._note_savepoint_undone)
        return engine

    def _statement_watcher(self) -> Callable[..., None]:
        watch = super()._statement_watcher()

        def watch_what_lasts(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
            if _ENDS_WITH_ITS_TRANSACTION.match(statement) is None:
                watch(connection, cursor, statement, *rest)

        return watch_what_lasts

    def _note_savepoint_undone(self, _connection: Connection, _name: str, _context: None) -> None:
        # With its savepoint the error was undone, and is not why a later commit is refused.
        if self._raw is not None:
            self._raw.undone_by = None

    def _note_error(self, context: ExceptionContext) -> None:
        super()._note_error(context)
        connection = context.connection
        raw: Any = (
            None if connection is None or connection.invalidated else connection.connection.dbapi_connection
        )
        if raw is not None and raw.broken:
            self.has_lost_connection = True
        # The first error is the reason, those behind it only say that there was one.
        if self._raw is not None and self._raw.undone_by is None:
            self._raw.undone_by = context.sqlalchemy_exception or context.original_exception
