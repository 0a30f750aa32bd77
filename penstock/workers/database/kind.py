"""What differs between databases, as the worker's connection asks for it; here for any that SQLAlchemy knows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool, Pool, PoolProxiedConnection

from penstock.channels.db.leftovers import left_by
from penstock.channels.db.server.codes import BUSY_STATES, CONFLICT_STATES
from penstock.channels.db.words import words_of
from penstock.config.database import DatabaseSection
from penstock.errors import ConfigurationError
from penstock.workers.database.address import Address
from penstock.workers.database.pool import OneConnection

#: Options of a SQLAlchemy connection that change the driver's own.
_LASTING_OPTIONS: Final = ("isolation_level", "postgresql_readonly", "postgresql_deferrable")


class DatabaseKind:
    """Opens, watches, tests and blames the connections of one engine; holds none itself."""

    #: The file of an SQLite database, links resolved.
    path: str | None = None
    #: False when the worker opens none: then their number has no limit here.
    opens_connections = True

    def __init__(self, address: Address, section: DatabaseSection) -> None:
        self.address = address
        self._section = section
        self._left: str | None = None
        self.has_lost_connection = False
        """Set when a statement found the connection gone, though the handler may have caught that; whoever reads it resets it."""
        self.had_connection = True
        """False when no connection could be opened: then none was lost in the handler's hands. Reset with the other."""
        try:
            self.engine = self._create_engine(OneConnection)
        except (ArgumentError, TypeError, ValueError) as error:
            msg = f"database.url ({address}) has an option that cannot be used: {address.scrub(words_of(error))}"
            raise ConfigurationError(msg) from None
        event.listen(self.engine, "handle_error", self._note_error)
        # Made once: whatever the driver raises for a server that cannot be reached.
        self._unreachable: tuple[type[BaseException], ...] = (
            self.engine.dialect.loaded_dbapi.Error,
            DBAPIError,
            OSError,
        )

    def forget_losses(self) -> None:
        """A message begins."""
        self.has_lost_connection = False
        self.had_connection = self.path is None

    def connect(self) -> PoolProxiedConnection:
        """Open the one connection. Raises what the driver raises."""
        # Also forgets a checkout that an exception cut short.
        self.engine.dispose()
        held = self.engine.raw_connection()
        self.note_opened(held.dbapi_connection)
        return held

    def is_unreachable(self, error: BaseException) -> bool:
        """True when opening failed for a reason that may pass."""
        return isinstance(error, self._unreachable)

    def words_of(self, error: BaseException) -> str:
        """Why opening failed, without secrets."""
        return self.address.scrub(words_of(error))

    def note_opened(self, raw: Any) -> None:
        """A connection was opened: what it is like now is what each message gets."""
        del raw
        self._left = None

    def check_isolation(self, level: str, whose: str) -> None:
        """Raises `ConfigurationError` when the database has no such level."""
        known = [one for one in self.engine.dialect.get_isolation_level_values(None) if one != "AUTOCOMMIT"]  # type: ignore[arg-type]
        if level not in known:
            msg = f"{whose} says {level!r}, which {self.address} does not know; it knows {', '.join(known)}"
            raise ConfigurationError(msg)

    def set_isolation(self, raw: Any, level: str | None) -> None:
        """For the transactions that begin from here on; None is what the connection had when it was opened."""
        if level is None:
            self.engine.dialect.reset_isolation_level(raw)
        else:
            self.engine.dialect.set_isolation_level(raw, level)  # type: ignore[arg-type]
        self.forget_left(raw)

    def forget_left(self, raw: Any) -> None:
        """What is on the connection now is ours."""
        del raw
        self._left = None

    def most_connections(self, raw: Any) -> tuple[int, str] | None:
        """How many connections the server gives us at most, and by which of its settings; None when it has no such limit."""
        del raw
        return None

    def most_bytes(self, raw: Any) -> int | None:
        """How long a statement may be for the server not to end the connection for it; None when it would not."""
        del raw
        return None

    def autocommits(self, raw: Any) -> bool:
        """True when each statement on this connection, as it was opened, is committed by itself."""
        return getattr(raw, "autocommit", False) is True

    def check_transactions(self, raw: Any, whose: str) -> None:
        """Raises `ConfigurationError` for a connection on which a message would be no transaction."""
        if self.autocommits(raw):
            msg = (
                f"{whose} ({self.address}) is set to autocommit: each statement would be committed by itself, and what a "
                "message wrote before it failed would stay. The service does not start: take autocommit (AUTOCOMMIT as the "
                "isolation level) out of it; a handler that wants no transaction has ctx.db"
            )
            raise ConfigurationError(msg)

    def learn(self, raw: Any) -> None:
        """Ask the server how it is set, where that decides what an error means. Raises what the driver raises."""

    def fault_of(self, raw: Any) -> str | None:
        """In words, why a connection that seems open must not be used; asked before each message that uses it."""
        del raw
        return None

    def ping(self, raw: Any) -> None:
        """Ask the database for a sign of life. Raises what the driver raises."""
        self.engine.dialect.do_ping(raw)

    @cached_property
    def stream_engine(self) -> Engine:
        """Opens a connection for each `ctx.stream`, and none before the first."""
        engine = self._create_engine(NullPool)
        event.listen(engine, "handle_error", self._note_error)
        return engine

    def begin_stream(self, connection: Connection) -> None:
        """Begin a transaction that cannot write, where the database knows such a thing."""

    def cut_results(self, raw: Any) -> bool:
        """True when the connection is to be thrown away with the rest of a result, which could only be read to its end."""
        del raw
        return False

    def close_results(self, raw: Any) -> None:
        """End the results that the handler did not read to their end."""

    def end_transaction(self, raw: Any, *, commit: bool) -> None:
        """End a transaction that SQLAlchemy does not know of: the handler spoke to the driver."""
        if commit:
            raw.commit()
        else:
            raw.rollback()

    def left_on(self, raw: Any) -> str | None:
        """In words, what the handler left on the connection; None when the next message may have it."""
        del raw
        return self._left

    def left_by_options(self, options: Any) -> str | None:
        """As `left_on`, for what the handler said in `ctx.connection.execution_options()`."""
        return next((f"the execution option {name}" for name in _LASTING_OPTIONS if name in options), None)

    def is_lost(self, error: BaseException) -> bool:
        """True when this driver error says that the connection is gone."""
        try:
            return isinstance(
                error, self.engine.dialect.loaded_dbapi.Error
            ) and self.engine.dialect.is_disconnect(error, None, None)
        except IndexError:
            # PyMySQL's classification reads args[0]; an error that somebody made by hand may have none.
            return False

    def is_conflict(self, error: BaseException) -> bool:
        """True when this driver error says that another transaction was in the way: run the handler again, here and now."""
        return self._state_of(error) in CONFLICT_STATES

    def undoes_all(self, error: BaseException) -> bool:
        """True when the database has undone the whole transaction with this error, and goes on in a new one."""
        del error
        return False

    def has_undone(self, raw: Any) -> bool:
        """True when the database will answer a commit with a rollback."""
        del raw
        return False

    def commits_by_text(self, statement: str) -> bool:
        """True when this text would commit what is left of a transaction that the database has undone."""
        del statement
        return False

    def is_busy(self, error: BaseException) -> bool:
        """True when this driver error says that the database cannot for now, a full disk for example: come again later."""
        return self._state_of(error) in BUSY_STATES

    def _create_engine(self, pool: type[Pool]) -> Engine:
        engine = create_engine(self.address.url, poolclass=pool, pool_reset_on_return=None)
        event.listen(engine, "before_cursor_execute", self._statement_watcher())
        return engine

    def _note_error(self, context: ExceptionContext) -> None:
        if context.connection is None:
            self.had_connection = False
        if self.is_lost(context.original_exception):
            self.has_lost_connection = True

    def _state_of(self, error: BaseException) -> object:
        if not isinstance(error, self.engine.dialect.loaded_dbapi.Error):
            return None
        # psycopg2 has its own name for it.
        return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)

    def _statement_watcher(self) -> Callable[..., None]:
        def watch(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            self._left = self._left or left_by(statement)

        return watch


class WatchingKind(DatabaseKind):
    """For a driver's connection that notes in `left` what outlives a rollback, and whose `look` says what it is like."""

    def note_opened(self, raw: Any) -> None:
        """Forget what opening did: the driver and SQLAlchemy have set what they need, from here on it is the handler."""
        self.forget_left(raw)

    def forget_left(self, raw: Any) -> None:
        """As the connection notes it."""
        raw.left = None
        raw.state = raw.look()

    def left_on(self, raw: Any) -> str | None:
        """What the connection noted, or what of it is not as it was."""
        left: str | None = raw.left
        if left is None and (now := raw.look()) != raw.state:
            left = next(name for name, value in now.items() if value != raw.state[name])
        return left
