"""An engine or a scoped session that the application has already: adopted as the worker's own, not replaced.

```
 begin ─▶ (handler uses its DBSession, its engine by ctx.connection) ─▶ commit or rollback ─▶ session removed
```
Its pool keeps the connection open between messages, as it always did; here a message is one transaction of it, and the
engine is disposed of at the stop.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib import import_module
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Connection, Engine, Executable, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import NullPool, PoolProxiedConnection
from structlog.typing import FilteringBoundLogger

from penstock.app.current import running_database
from penstock.channels.db.server.lengths import FOUND_TOO_LARGE, TOO_LARGE, length_of, too_long
from penstock.config.database import DatabaseSection
from penstock.errors import ConfigurationError, ConnectionMisused, PenstockError
from penstock.workers.database.cap import check_cap
from penstock.workers.database.checkouts import CheckoutWatch
from penstock.workers.database.faults import chain_of
from penstock.workers.database.kind import DatabaseKind
from penstock.workers.database.kinds import own_kind
from penstock.workers.database.message import MessageConnection, MessageSession
from penstock.workers.database.opening import REOPEN_WAIT_S, open_patiently
from penstock.workers.database.session_guard import SessionGuard
from penstock.workers.database.streaming import RowStream, Streams
from penstock.workers.database.undone import UndoneWatch


class AdoptedDatabase:
    """As `OwnConnection`, over the application's own engine; imports it at `open`, and not before."""

    def __init__(self, section: DatabaseSection, *, log: FilteringBoundLogger) -> None:
        self.before_transaction: Callable[[], None] | None = None
        """Called when a transaction begins."""
        self.while_waiting: Callable[[], AbstractContextManager[None]] = nullcontext
        """As of `OwnConnection`."""
        self._section = section
        self._log = log
        self._scoped: scoped_session[Session] | None = None
        self._engine: Engine | None = None
        self._known: DatabaseKind | None = None
        self._undone: UndoneWatch | None = None
        self._guard: SessionGuard | None = None
        self._connection: MessageConnection | None = None
        self._handler = ""
        self._isolation: str | None = None
        self._is_running = False
        self._is_away = False
        self._most_bytes: int | None = None
        self._is_too_long = False
        self._handlers_with_database: set[str] = set()
        self._streams = Streams(section.stream_connections)
        self._checkouts = CheckoutWatch(self) if section.debug_checkouts else None

    def __repr__(self) -> str:
        return f"<AdoptedDatabase {self._section.session or self._section.engine}>"

    def open(self, *, workers: int = 1) -> None:
        """Import it and see whether the database is there, waiting as long as it takes.

        Raises `ConfigurationError` when the setting names nothing of the kind, and as `OwnConnection.open` does.
        """
        self._engine, self._scoped = find_adopted(self._section)
        self._known = own_kind(with_url_of(self._engine, self._section))
        self._kind.connect = self._connect  # type: ignore[method-assign]
        self._kind.stream_engine = engine_beside(self._engine)
        event.listen(self._kind.stream_engine, "handle_error", self._note_error)
        event.listen(self._engine, "handle_error", self._note_error)
        event.listen(self._engine, "begin", self._note_begin)
        self._undone = UndoneWatch(self._engine, self._kind)
        if self._scoped is not None:
            self._guard = SessionGuard(self._scoped, self._engine, self._is_in_handler)
        if self._section.isolation_level is not None:
            self._kind.check_isolation(self._section.isolation_level, "database.isolation_level")
        held = open_patiently(self._kind, cap_s=self._section.connect_backoff_cap_s, log=self._log)
        if held is not None:
            check_cap(self._kind, held.dbapi_connection, self._section, workers)
            self._most_bytes = self._kind.most_bytes(held.dbapi_connection)
            self._kind.learn(held.dbapi_connection)
            # Into its pool, where the first message finds it.
            self._check_transactions(held)

    def check_isolation(self, handler: str, level: str | None) -> None:
        """As `OwnConnection.check_isolation`."""
        if level is not None:
            self._kind.check_isolation(level, f"handler {handler}: isolation")

    def begin(self, handler: str, isolation: str | None = None) -> None:
        """A message begins; what was begun before it, by an import or a hook, is rolled back.

        After a loss it waits here, 30 s at most, until the server is back: else the messages that follow would fail
        one after the other, as fast as a server that is away refuses them.
        """
        self.rollback()
        self._handler = handler
        self._kind.forget_losses()
        self._is_too_long = False
        if self._is_away and handler in self._handlers_with_database:
            # What it raises is raised again once the handler wants its connection.
            with suppress(ConfigurationError):
                self._wait_until_back()
            self._kind.forget_losses()
        if self._guard is not None:
            self._guard.begin()
        self._is_running = True
        self._isolation = isolation or self._section.isolation_level
        if self._checkouts is not None:
            is_taken = self._isolation is not None and self._scoped is not None
            self._checkouts.begin(
                handler,
                "the session's, taken before the handler began, for its isolation level" if is_taken else "",
            )
        if self._isolation is not None and self._scoped is not None:
            # The application's code takes the session, and asks nobody.
            self._scoped.connection(execution_options={"isolation_level": self._isolation})

    @property
    def _kind(self) -> DatabaseKind:
        if self._known is None:
            msg = "the adopted engine is used before the worker has begun"
            raise ConnectionMisused(msg)
        return self._known

    @property
    def connection(self) -> Connection:
        """The connection of this message's transaction."""
        if self._scoped is not None:
            return self._scoped.connection()
        if self._connection is None:
            assert self._engine is not None
            self._connection = MessageConnection(self._engine, None, None)
            if self._isolation is not None:
                self._connection.execution_options(isolation_level=self._isolation)
        return self._connection

    @property
    def session(self) -> Session:
        """The scoped session's own; with an engine, one on `connection`."""
        if self._scoped is not None:
            return self._scoped()
        connection = self._connection or self.connection
        assert isinstance(connection, MessageConnection)
        if connection.message_session is None:
            connection.message_session = MessageSession(connection)
        return connection.message_session

    def stream(self, statement: str | Executable, parameters: Any = None) -> RowStream:
        """As `OwnConnection.stream`, over a connection beside the adopted pool."""
        with nullcontext() if self._checkouts is None else self._checkouts.ours():
            return self._streams.open(self._kind, self._handler, statement, parameters)

    @property
    def in_transaction(self) -> bool:
        """True once this message has touched the database."""
        has_session = self._scoped is not None and self._scoped.registry.has()
        return has_session or self._connection is not None or self._streams.are_open

    @property
    def sqlite_path(self) -> str | None:
        """The database's file, links resolved; None for a server's database."""
        return None if self._known is None else self._known.path

    def commit(self) -> None:
        """Flush, commit, and give the connection back to its pool. Raises what SQLAlchemy raises, `TransactionUndone` too."""
        self._streams.close()
        if self._scoped is not None and self._scoped.registry.has():
            self._scoped.commit()
            self._is_running = False
            self._scoped.remove()
        if self._connection is not None:
            self._connection.close_stream()
            self._connection.commit()
        self._end()

    def rollback(self) -> None:
        """Undo this message's transaction and give the connection back. Never raises."""
        lost_before = self._known is not None and self._known.has_lost_connection
        # From here on it is not the handler that closes the session.
        self._is_running = False
        self._try(self._streams.close)
        if self._scoped is not None:
            self._try(self._scoped.rollback)
            self._try(self._scoped.remove)
        if self._connection is not None:
            self._try(self._connection.rollback)
        self._end()
        if self._known is not None:
            # What the rollback found is not why the message failed.
            self._known.has_lost_connection = lost_before

    def close(self) -> None:
        """Roll back what is open and close the engine's connections."""
        self.rollback()
        if self._engine is not None:
            self._engine.dispose()
            for name, listener in (("handle_error", self._note_error), ("begin", self._note_begin)):
                if event.contains(self._engine, name, listener):
                    event.remove(self._engine, name, listener)
        if self._undone is not None:
            self._undone.close()
            self._undone = None
        if self._guard is not None:
            self._guard.close()
            self._guard = None
        if self._checkouts is not None:
            self._checkouts.close()
            self._checkouts = None

    def is_lost(self, error: BaseException) -> bool:
        """As `OwnConnection.is_lost`."""
        if self._is_too_long:
            return False
        return self._kind.has_lost_connection or any(self._kind.is_lost(cause) for cause in chain_of(error))

    def is_lost_amid(self, error: BaseException) -> bool:
        """As `OwnConnection.is_lost_amid`."""
        return self._kind.had_connection and self.is_lost(error)

    def is_conflict(self, error: BaseException) -> bool:
        """As `OwnConnection.is_conflict`."""
        return any(self._kind.is_conflict(cause) for cause in chain_of(error))

    def is_busy(self, error: BaseException) -> bool:
        """As `OwnConnection.is_busy`."""
        return any(self._kind.is_busy(cause) for cause in chain_of(error))

    def check_channel_use(self, *, writes: bool) -> None:
        """Raises `ConnectionMisused` when a write through `ctx.db` would wait for this message's own transaction."""
        if writes and self._kind.path is not None and self.in_transaction:
            msg = (
                f"handler {self._handler} writes to {self._kind.path} through ctx.db while its own session or connection may hold "
                "the file's only write lock until the handler returns: use one of the two in a message"
            )
            raise ConnectionMisused(msg)

    def _check_transactions(self, held: PoolProxiedConnection) -> None:
        assert self._engine is not None
        with Connection(self._engine, held) as connection:
            if self._section.isolation_level is not None:
                connection.execution_options(isolation_level=self._section.isolation_level)
            # The engine's own events may begin what its driver does not; SQLite's lock may be somebody else's just now.
            with suppress(DBAPIError), connection.begin():
                whose = f"the engine of {self._section.session or self._section.engine}"
                self._kind.check_transactions(connection.connection.dbapi_connection, whose)

    def _connect(self) -> PoolProxiedConnection:
        assert self._engine is not None
        held = self._engine.raw_connection()
        try:
            # It may have lain in the pool since before the server went.
            self._kind.ping(held.dbapi_connection)
        except BaseException:
            held.invalidate()
            raise
        return held

    def _wait_until_back(self) -> None:
        with nullcontext() if self._checkouts is None else self._checkouts.ours(), self.while_waiting():
            held = open_patiently(
                self._kind,
                cap_s=self._section.connect_backoff_cap_s,
                log=self._log,
                limit_s=REOPEN_WAIT_S,
            )
        if held is not None:
            self._is_away = False
            held.close()

    def _is_in_handler(self) -> bool:
        # Another thread's session is its own.
        return self._is_running and running_database.get() is self

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        self._is_running = False
        if connection is not None:
            self._try(connection.end)
            self._try(connection.give_back)

    def _try(self, end: Callable[[], object]) -> None:
        """What cannot be ended has ended with its connection, which the pool will find out."""
        try:
            end()
        except Exception as error:  # noqa: BLE001 - a driver may raise anything, and more is to be ended
            self._log.debug(
                "the message's session or connection could not be closed in order",
                handler=self._handler,
                error=f"{type(error).__name__}: {error}",
            )

    def _note_error(self, context: ExceptionContext) -> None:
        found, connection = context.original_exception, context.connection
        if self._is_running:
            self._handlers_with_database.add(self._handler)
        if connection is None:
            # It is the connecting that failed, unless we refused it.
            lost = not isinstance(found, PenstockError)
            self._kind.had_connection &= not lost
        else:
            lost = context.is_disconnect or self._kind.is_lost(found)
            self._refuse_too_long(context)
        if lost:
            self._kind.has_lost_connection = self._is_away = True
        elif connection is not None and self._undone is not None:
            self._undone.note(connection, context.sqlalchemy_exception or found, found)

    def _refuse_too_long(self, context: ExceptionContext) -> None:
        # The server ends the connection for it: nobody but the message is to blame, however often it comes again.
        code = next(iter(context.original_exception.args), None)
        words = (
            too_long(length_of(context.statement, context.parameters), self._most_bytes)
            if context.statement
            else None
        )
        if self._most_bytes is None or (
            code != FOUND_TOO_LARGE and (words is None or not context.is_disconnect)
        ):
            return
        self._is_too_long = True
        if words is not None:
            error = self._kind.engine.dialect.loaded_dbapi.DataError(TOO_LARGE, words)
            raise DataError(None, None, error, connection_invalidated=True)

    def _note_begin(self, _connection: Connection) -> None:
        if self._is_running:
            self._handlers_with_database.add(self._handler)
            if self.before_transaction is not None:
                self.before_transaction()


def find_adopted(section: DatabaseSection) -> tuple[Engine, scoped_session[Session] | None]:
    """Import what the settings name, and open nothing. Raises `ConfigurationError` when it is nothing of the kind."""
    if section.session is None:
        return _adopted(str(section.engine), "database.engine", Engine), None
    scoped = _adopted(section.session, "database.session", scoped_session)
    return _engine_of(scoped, section.session), scoped


def with_url_of(engine: Engine, section: DatabaseSection) -> DatabaseSection:
    """The settings as if they named the engine's database."""
    url = SecretStr(engine.url.render_as_string(hide_password=False))
    return section.model_copy(update={"url": url})


def engine_beside(engine: Engine) -> Engine:
    """Connects as the other does, with its `connect_args` and its events, but not by its pool, which may have one to give."""
    pool = engine.pool.recreate()

    def connect() -> DBAPIConnection:
        held = pool.connect()
        raw = held.dbapi_connection
        assert raw is not None
        # Out of the pool: whoever closes it ends it.
        held.detach()
        return raw

    return create_engine(engine.url, poolclass=NullPool, creator=connect)


def _adopted(place: str, setting: str, wanted: type[Any]) -> Any:
    module_name, _, attribute = place.partition(":")
    try:
        found = getattr(import_module(module_name), attribute, None)
    except ImportError as error:
        msg = f"{setting} is {place!r}: {error}; write module:attribute, as for the application"
        raise ConfigurationError(msg) from error
    except Exception as error:
        msg = f"{setting} is {place!r}, and importing {module_name} raised {type(error).__name__}: {error}"
        raise ConfigurationError(msg) from error
    if not isinstance(found, wanted):
        what = "there is nothing of that name" if found is None else f"that is {type(found).__name__}"
        msg = f"{setting} is {place!r}: {what}, and has to be a SQLAlchemy {wanted.__name__}"
        raise ConfigurationError(msg)
    return found


def _engine_of(scoped: scoped_session[Session], place: str) -> Engine:
    try:
        bind = scoped.get_bind()
    except Exception as error:
        msg = f"database.session is {place!r}, which is bound to no engine: {error}"
        raise ConfigurationError(msg) from error
    finally:
        scoped.remove()
    return bind if isinstance(bind, Engine) else bind.engine
