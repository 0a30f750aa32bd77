"""The worker's own database connection: one a process, opened at boot and held until the worker ends.

```
 open ─▶ begin ─▶ (handler touches ctx.connection) ─▶ test when idle ─▶ BEGIN … ─▶ commit ─┐
           ▲                                                               └────▶ rollback ─┤
           │                                                                                ▼
           └──────────────── clean: kept ◀──────── what did the handler leave? ─────────────┤
                             spoilt or broken: closed, a new one for the next message ◀─────┘
```
Exactly one DBAPI connection, in a pool that refuses a second one (`database.pool` says why SQLAlchemy's pools are
not enough). A connection that somebody spoilt is replaced, never repaired: what is on it can only be guessed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, NoReturn

from sqlalchemy import Connection, Executable
from sqlalchemy.orm import Session
from sqlalchemy.pool import PoolProxiedConnection
from structlog.typing import FilteringBoundLogger

from penstock.config.database import DatabaseSection
from penstock.errors import ConfigurationError, ConnectionMisused, DatabaseUnavailable
from penstock.workers.database.address import Address
from penstock.workers.database.cap import check_cap
from penstock.workers.database.checkouts import CheckoutWatch
from penstock.workers.database.faults import chain_of
from penstock.workers.database.kind import DatabaseKind
from penstock.workers.database.kinds import own_kind
from penstock.workers.database.message import MessageConnection, MessageSession
from penstock.workers.database.opening import REOPEN_WAIT_S, open_patiently
from penstock.workers.database.streaming import RowStream, Streams


class OwnConnection:
    """One persistent connection and what happens to it between messages.

    One thread at a time may use it, and not always the same one. Nothing is opened before `open`, and nothing
    at all without `database.url`.
    """

    def __init__(
        self,
        section: DatabaseSection,
        *,
        log: FilteringBoundLogger,
        find_kind: Callable[[DatabaseSection], DatabaseKind] = own_kind,
    ) -> None:
        """`find_kind` says what the connection is: the worker's own, or one over the channel."""
        self._find_kind = find_kind
        self.before_transaction: Callable[[], None] | None = None
        """Called just before a transaction begins; what it raises refuses the transaction."""
        self.while_waiting: Callable[[], AbstractContextManager[None]] = nullcontext
        """Around each wait for a database that may be away: the message's time stands still meanwhile."""
        self._section = section
        self._log = log
        self._kind: DatabaseKind | None = None
        self._held: PoolProxiedConnection | None = None
        self._message: MessageConnection | None = None
        self._handler = ""
        self._handlers_with_database: set[str] = set()
        self._reported: set[tuple[str, str]] = set()
        self._is_closed = False
        self._streams = Streams(section.stream_connections)
        self._checkouts = CheckoutWatch(self) if section.debug_checkouts else None
        self._used_at_s = 0.0
        self._opened_at_s = 0.0
        self._isolation: str | None = None
        self._isolation_now: str | None = None

    def __repr__(self) -> str:
        where = str(self._kind.address) if self._kind else "not open"
        state = "closed" if self._is_closed else "held" if self._held else "none held"
        return f"<OwnConnection {where}, {state}, {'in a message' if self._message else 'idle'}>"

    def open(self, *, workers: int = 1) -> None:
        """Open the connection, waiting for the database as long as it takes; `workers` is how many do the same.

        Raises `ConfigurationError` for what will never work: the URL, the driver, an option, more workers than the
        server has connections for.
        """
        self._is_closed = False
        if self._section.url is None:
            return
        if self._kind is None:
            self._kind = self._find_kind(self._section)
        if self._section.isolation_level is not None:
            self._kind.check_isolation(self._section.isolation_level, "database.isolation_level")
        if self._held is None:
            self._note_held(
                open_patiently(self._kind, cap_s=self._section.connect_backoff_cap_s, log=self._log)
            )
            check_cap(self._kind, self._raw, self._section, workers)
            self._kind.check_transactions(self._raw, "database.url")

    def check_isolation(self, handler: str, level: str | None) -> None:
        """Raises `ConfigurationError` when the database has no such level."""
        if level is not None and self._kind is not None:
            self._kind.check_isolation(level, f"handler {handler}: isolation")

    def begin(self, handler: str, isolation: str | None = None) -> None:
        """A message begins; costs nothing until the handler touches the connection. Never raises.

        When the connection is lost and this handler has wanted it before, it is opened here, so that the wait
        is not taken from the handler's time.
        """
        if self.in_transaction:
            self.rollback()
        self._handler = handler
        self._isolation = isolation or self._section.isolation_level
        if self._checkouts is not None:
            self._checkouts.begin(
                handler, "the worker's own, which it holds since it began; this handler has not used it yet"
            )
        if self._kind is not None:
            self._kind.forget_losses()
        if self._held is None and handler in self._handlers_with_database:
            # What it raises is raised again, and reported, once the handler touches the connection.
            with suppress(ConfigurationError):
                self._reopen()

    @property
    def connection(self) -> Connection:
        """The SQLAlchemy connection, in this message's transaction, which its first statement begins.

        Raises `ConfigurationError` without `database.url`, and `DatabaseUnavailable` when the database was lost
        and could not be reached again within 30 s.
        """
        return self._message or self._take()

    @property
    def session(self) -> Session:
        """An ORM session on `connection`, in the same transaction. Raises as `connection` does."""
        message = self._message or self._take()
        if message.message_session is None:
            message.message_session = MessageSession(message)
        return message.message_session

    def stream(self, statement: str | Executable, parameters: Any = None) -> RowStream:
        """The rows of a large result, over a connection of its own that sees only what is committed.

        Raises `ConnectionMisused` for more at once than `database.stream_connections`, and what SQLAlchemy raises.
        """
        kind = self._kind
        if kind is None:
            self._refuse()
        with nullcontext() if self._checkouts is None else self._checkouts.ours():
            return self._streams.open(kind, self._handler, statement, parameters)

    @property
    def in_transaction(self) -> bool:
        """True once this message has touched the database: `commit` or `rollback` is due."""
        return self._message is not None or self._streams.are_open

    @property
    def sqlite_path(self) -> str | None:
        """The database's file, links resolved; None for a server's database, or before `open`."""
        return self._kind.path if self._kind else None

    def commit(self) -> None:
        """Flush the session, commit, and make the connection ready for the next message.

        Raises what SQLAlchemy raises; the caller then calls `rollback`, as after any other failure.
        """
        self._streams.close()
        message, kind = self._message, self._kind
        if message is None or kind is None:
            return
        raw = self._raw
        message.close_stream()
        if raw is not None:
            kind.close_results(raw)
        message.commit()
        if raw is not None:
            kind.end_transaction(raw, commit=True)
        self._end_message(message, kind)

    def rollback(self) -> None:
        """Undo this message's transaction and make the connection ready for the next one. Never raises."""
        kind = self._kind
        if kind is None:
            return
        lost_before = kind.has_lost_connection
        try:
            self._streams.close()
            message = self._message
            if message is None:
                return
            raw = self._raw
            if raw is not None and kind.cut_results(raw):
                # Without a word: between server and worker there are rows that nobody wants.
                message.invalidate()
                self._discard()
                return
            message.close_stream()
            if raw is not None:
                kind.close_results(raw)
            message.rollback()
            if raw is not None:
                kind.end_transaction(raw, commit=False)
            self._end_message(message, kind)
        except Exception as error:  # noqa: BLE001 - a connection that cannot even roll back is replaced
            self._log.warning(
                "the rollback failed; the connection is replaced, the server rolls back by itself",
                handler=self._handler, error=kind.words_of(error),
            )  # fmt: skip
            self._discard()
        finally:
            # What the rollback found is not why the message failed: a deadline may have cut the connection before.
            kind.has_lost_connection = lost_before

    def close(self) -> None:
        """Roll back what is open and close the connection; once is enough, twice is harmless."""
        if self.in_transaction:
            self.rollback()
        self._discard()
        self._is_closed = True
        if self._checkouts is not None:
            self._checkouts.close()
            self._checkouts = None

    def is_lost(self, error: BaseException) -> bool:
        """True when the message failed because its connection broke or could not be had: nobody's fault but the database's."""
        kind = self._kind
        if kind is None:
            return False
        return kind.has_lost_connection or any(
            isinstance(cause, DatabaseUnavailable) or kind.is_lost(cause) for cause in chain_of(error)
        )

    def is_lost_amid(self, error: BaseException) -> bool:
        """True when it is lost and lived when the handler took it: not for a server that could not be reached, or a file."""
        return self._kind is not None and self._kind.had_connection and self.is_lost(error)

    def is_conflict(self, error: BaseException) -> bool:
        """True when the message failed for another transaction: a deadlock, a serialization failure, a lock not had in time."""
        kind = self._kind
        return kind is not None and any(kind.is_conflict(cause) for cause in chain_of(error))

    def is_busy(self, error: BaseException) -> bool:
        """True when the message failed for SQLite's one lock or a full disk: it may come again later."""
        kind = self._kind
        return kind is not None and any(kind.is_busy(cause) for cause in chain_of(error))

    def check_channel_use(self, *, writes: bool) -> None:
        """Raises `ConnectionMisused` when a write through `ctx.db` would wait for this message's own transaction."""
        own, raw = self.sqlite_path, self._raw
        if writes and own is not None and raw is not None and raw.in_transaction:
            msg = (
                f"handler {self._handler} writes to {own} through ctx.db while ctx.connection (or ctx.session) holds the "
                "file's only write lock until the handler returns: each would wait for the other. Use one of the two in a "
                "message, or call ctx.connection.commit() before ctx.db"
            )
            raise ConnectionMisused(msg)

    def _take(self) -> MessageConnection:
        kind = self._kind
        if kind is None:
            self._refuse()
        self._handlers_with_database.add(self._handler)
        if self._checkouts is not None:
            self._checkouts.note_first()
        self._test(kind)
        held = self._held or self._reopen()
        if held is None:
            kind.had_connection = False
            msg = (
                f"the database {kind.address} cannot be reached; the message was rolled back and comes again, "
                "uncharged. The log says what was tried"
            )
            raise DatabaseUnavailable(msg)
        if self._isolation != self._isolation_now:
            kind.set_isolation(self._raw, self._isolation)
            self._isolation_now = self._isolation
        self._message = message = MessageConnection(kind.engine, held, self.before_transaction)
        return message

    @property
    def _raw(self) -> Any:
        """The driver's connection; None when there is none, or when SQLAlchemy has given it up."""
        held = self._held
        return None if held is None else held.dbapi_connection

    def _refuse(self) -> NoReturn:
        if self._section.url is None:
            Address(self._section)
        msg = "the worker's database connection is used before it was opened"
        raise DatabaseUnavailable(msg)

    def _reopen(self) -> PoolProxiedConnection | None:
        if self._kind is None or self._is_closed:
            return None
        with nullcontext() if self._checkouts is None else self._checkouts.ours(), self.while_waiting():
            held = open_patiently(
                self._kind,
                cap_s=self._section.connect_backoff_cap_s,
                log=self._log,
                limit_s=REOPEN_WAIT_S,
            )
        self._note_held(held)
        return held

    def _note_held(self, held: PoolProxiedConnection | None) -> None:
        self._held = held
        self._isolation_now = None
        self._opened_at_s = self._used_at_s = time.monotonic()

    def _test(self, kind: DatabaseKind) -> None:
        if self._held is None:
            return
        raw = self._raw
        recycle_s = self._section.recycle_s
        if recycle_s and time.monotonic() - self._opened_at_s > recycle_s:
            self._log.debug(
                "the worker's database connection is replaced for its age", database=str(kind.address)
            )
            self._discard()
            return
        fault = "it is closed" if raw is None else kind.fault_of(raw)
        if fault is None and time.monotonic() - self._used_at_s > self._section.idle_test_s:
            try:
                with self.while_waiting():
                    kind.ping(raw)
            except Exception as error:  # noqa: BLE001 - whatever the test raises, the connection is not to be trusted
                fault = kind.words_of(error)
        if fault is not None:
            self._log.warning(
                "the worker's database connection cannot be used; opening a new one",
                database=str(kind.address), reason=fault,
            )  # fmt: skip
            self._discard()

    def _end_message(self, message: MessageConnection, kind: DatabaseKind) -> None:
        message.end()
        held, raw = self._held, self._raw
        if held is None or raw is None:
            self._discard()
            return
        options = message.get_execution_options()
        left = kind.left_on(raw) or (kind.left_by_options(options) if options else None)
        if left is not None:
            self._report(left)
            self._discard()
            return
        held.info.clear()
        self._message = None
        self._used_at_s = time.monotonic()

    def _report(self, left: str) -> None:
        # Once a handler and kind of thing: it is the handler's habit, and each message pays for it.
        if (self._handler, left) not in self._reported:
            self._reported.add((self._handler, left))
            self._log.info(
                "a handler changed the worker's database connection, which is replaced",
                handler=self._handler, left=left,
            )  # fmt: skip

    def _discard(self) -> None:
        message, held, kind = self._message, self._held, self._kind
        self._message = self._held = None
        if kind is None:
            return
        give_back: Callable[[], None] | None = message.give_back if message else held.close if held else None
        if message is not None:
            message.end()
        for step in (give_back, kind.engine.dispose):
            if step is None:
                continue
            try:
                step()
            except Exception as error:  # noqa: BLE001 - it is thrown away in any case, and may well be broken
                self._log.debug(
                    "closing the database connection failed",
                    database=str(kind.address), error=kind.words_of(error),
                )  # fmt: skip
