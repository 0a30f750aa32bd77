"""PostgreSQL by psycopg: a connection that commits nothing half, and words for what its server does to it."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, Final, Self, TypeAlias

import psycopg
import psycopg.sql
from psycopg.pq import ExecStatus, TransactionStatus
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import Pool

from penstock.channels.db.leftovers import left_in_postgresql
from penstock.channels.db.server.codes import LOST_STATES
from penstock.channels.db.server.commits import commits
from penstock.errors import TransactionUndone
from penstock.workers.database.kind import WatchingKind

#: A network that swallows packets would hold the test of an idle connection for a quarter of an hour.
_PING_TIMEOUT_S: Final = 5.0
#: How long a statement that a deadline cut off is asked to end before its connection is closed.
_CANCEL_TIMEOUT_S: Final = 2.0
#: What the server tells unasked, whoever set it: a function of the user's, too. `search_path` since version 18.
_TOLD: Final = (
    "application_name", "client_encoding", "DateStyle", "default_transaction_read_only", "IntervalStyle", "is_superuser",
    "search_path", "session_authorization", "standard_conforming_strings", "TimeZone",
)  # fmt: skip
_ATTRIBUTES: Final = (
    "autocommit", "isolation_level", "read_only", "deferrable", "prepare_threshold", "row_factory", "cursor_factory",
    "server_cursor_factory",
)  # fmt: skip
_STATE: Final = _ATTRIBUTES + _TOLD
_NAMES: Final = tuple(name.encode() for name in _TOLD)
_attributes_of: Final = attrgetter(*_ATTRIBUTES)
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
    """The driver's connection, which refuses to take a rollback for a commit, and notes in `left` what outlives one."""

    undone_by: BaseException | None = None
    left: str | None = None
    #: As `look` found it when the connection was opened.
    state: dict[str, Any]

    def note(self, query: Any) -> None:
        """This goes to the server now. Raises `TransactionUndone` for a commit by text, which it would answer with a rollback."""
        if self.left is None:
            self.left = left_in_postgresql(self._words_of(query))
        if self.pgconn.transaction_status == TransactionStatus.INERROR and commits(self._words_of(query)):
            raise TransactionUndone from self.undone_by

    def _words_of(self, query: Any) -> str:
        if isinstance(query, bytes):
            return query.decode(errors="replace")
        return query if isinstance(query, str) else psycopg.sql.as_string(query, self)

    def look(self) -> dict[str, Any]:
        """Its attributes, and what the server has told of it; asks nobody."""
        told = self.pgconn.parameter_status
        return dict(zip(_STATE, (*_attributes_of(self), *map(told, _NAMES)), strict=True))

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


class WatchedCursor(psycopg.Cursor[Any]):
    """The driver's cursor, whose connection hears what goes to the server."""

    connection: WatchedConnection

    def execute(self, query: Any, *args: Any, **options: Any) -> Self:
        """As the driver's."""
        self.connection.note(query)
        return super().execute(query, *args, **options)

    def executemany(self, query: Any, *args: Any, **options: Any) -> None:
        """As the driver's."""
        self.connection.note(query)
        super().executemany(query, *args, **options)

    def stream(self, query: Any, *args: Any, **options: Any) -> Iterator[Any]:
        """As the driver's."""
        self.connection.note(query)
        return super().stream(query, *args, **options)

    def copy(self, statement: Any, *args: Any, **options: Any) -> Any:
        """As the driver's."""
        self.connection.note(statement)
        return super().copy(statement, *args, **options)


class WatchedServerCursor(psycopg.ServerCursor[Any]):
    """The same on the server, where a query may call a function that stays."""

    connection: WatchedConnection

    def execute(self, query: Any, *args: Any, **options: Any) -> Self:
        """As the driver's."""
        self.connection.note(query)
        return super().execute(query, *args, **options)


class PostgreSQLKind(WatchingKind):
    """PostgreSQL."""

    _raw: WatchedConnection | None = None

    def note_opened(self, raw: Any) -> None:
        """As for any that is watched."""
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

    def is_unreachable(self, error: BaseException) -> bool:
        """As for any database, but for an option that libpq does not know: no server was asked then."""
        is_option = isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None
        return not is_option and super().is_unreachable(error)

    def is_lost(self, error: BaseException) -> bool:
        """By the server's word for it, and by the state of the connection when it had no time for a word."""
        if not isinstance(error, psycopg.Error):
            return False
        state = error.sqlstate
        if state is not None:
            return state in LOST_STATES or state.startswith("08")
        # Not one that the handler closed: its message would come again for ever, charged to nobody.
        return isinstance(error, psycopg.OperationalError) and self._raw is not None and self._raw.broken

    def has_undone(self, raw: Any) -> bool:
        """After any error outside of a savepoint."""
        return bool(raw.pgconn.transaction_status == TransactionStatus.INERROR)

    def commits_by_text(self, statement: str) -> bool:
        """The server answers it with a rollback, in silence."""
        return commits(statement)

    def _create_engine(self, pool: type[Pool]) -> Engine:
        engine = create_engine(self.address.url, poolclass=pool, pool_reset_on_return=None)

        def connect(_dialect: Any, _record: Any, args: list[Any], options: dict[str, Any]) -> Any:
            raw = WatchedConnection.connect(*args, **{**options, "cursor_factory": WatchedCursor})
            raw.server_cursor_factory = WatchedServerCursor
            return raw

        event.listen(engine, "do_connect", connect)
        event.listen(engine, "rollback_savepoint", self._note_savepoint_undone)
        return engine

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
