"""A connection as psycopg's, over the channel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Literal, Self

import psycopg
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from penstock.channels.dbapi.postgresql.cursor import Cursor
from penstock.channels.dbapi.postgresql.refusals import REFUSALS
from penstock.channels.dbapi.postgresql.session import Session
from penstock.channels.dbapi.postgresql.transaction import Transaction
from penstock.channels.dbapi.refusals import Refusing
from penstock.channels.dbapi.server.connection import ServerConnection

_LEVELS: Final = {level.name.replace("_", " "): level for level in IsolationLevel}
_NAMES: Final = {level: name for name, level in _LEVELS.items()}
#: "Current transaction is aborted, commands ignored until end of transaction block."
_ABORTED: Final = "25P02"


class Info:
    """As much of `psycopg.ConnectionInfo` as is known here."""

    encoding = "utf-8"
    vendor = "PostgreSQL"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def transaction_status(self) -> TransactionStatus:
        """IDLE, INTRANS, INERROR after an error that the server answered; UNKNOWN when closed."""
        connection = self._connection
        if connection.is_closed:
            return TransactionStatus.UNKNOWN
        if not connection.in_transaction:
            return TransactionStatus.IDLE
        failed = connection.session.is_lost or getattr(connection.failed_by, "sqlstate", None) is not None
        return TransactionStatus.INERROR if failed else TransactionStatus.INTRANS


class Connection(Refusing, ServerConnection):
    """As `psycopg.Connection`; its database is the one in `database.url`."""

    Warning = psycopg.Warning
    Error = psycopg.Error
    InterfaceError = psycopg.InterfaceError
    DatabaseError = psycopg.DatabaseError
    DataError = psycopg.DataError
    OperationalError = psycopg.OperationalError
    IntegrityError = psycopg.IntegrityError
    InternalError = psycopg.InternalError
    ProgrammingError = psycopg.ProgrammingError
    NotSupportedError = psycopg.NotSupportedError

    refusals = REFUSALS
    broken = False
    """The loop has the connections: what breaks is a transaction, which ends with rollback()."""

    def __init__(
        self,
        session: Session,
        *,
        autocommit: bool = False,
        row_factory: Any = None,
        cursor_factory: type[Cursor] = Cursor,
    ) -> None:
        super().__init__(session, autocommit=autocommit)
        self.row_factory: Any = row_factory or tuple_row
        self.cursor_factory = cursor_factory
        self.blocks = 0
        """`transaction()` blocks that are open."""

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self.is_closed

    @property
    def info(self) -> Info:
        """What state it is in."""
        return Info(self)

    @property
    def autocommit(self) -> bool:
        """Each statement is its own transaction; like the next three, it cannot be changed inside a transaction."""
        return self.is_autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        with self._changing("autocommit"):
            self.is_autocommit = bool(value)

    @property
    def isolation_level(self) -> IsolationLevel | None:
        """Of the transactions to come; None is the server's default."""
        return None if self.beginning.isolation is None else _LEVELS[self.beginning.isolation]

    @isolation_level.setter
    def isolation_level(self, value: IsolationLevel | None) -> None:
        with self._changing("isolation_level"):
            name = None if value is None else _NAMES[IsolationLevel(value)]
            self.beginning = replace(self.beginning, isolation=name)

    @property
    def read_only(self) -> bool | None:
        """Transactions to come write nothing."""
        return self.beginning.is_read_only

    @read_only.setter
    def read_only(self, value: bool | None) -> None:
        with self._changing("read_only"):
            self.beginning = replace(self.beginning, is_read_only=None if value is None else bool(value))

    @property
    def deferrable(self) -> bool | None:
        """A serializable transaction that only reads waits until it can do so without a conflict."""
        return self.beginning.is_deferrable

    @deferrable.setter
    def deferrable(self, value: bool | None) -> None:
        with self._changing("deferrable"):
            self.beginning = replace(self.beginning, is_deferrable=None if value is None else bool(value))

    def set_autocommit(self, value: bool) -> None:  # noqa: FBT001 - the driver's signature
        """As the attribute."""
        self.autocommit = value

    def set_isolation_level(self, value: IsolationLevel | None) -> None:
        """As the attribute."""
        self.isolation_level = value

    def set_read_only(self, value: bool | None) -> None:  # noqa: FBT001 - the driver's signature
        """As the attribute."""
        self.read_only = value

    def set_deferrable(self, value: bool | None) -> None:  # noqa: FBT001 - the driver's signature
        """As the attribute."""
        self.deferrable = value

    def cursor(
        self,
        name: str = "",
        *,
        binary: bool = False,
        row_factory: Any = None,
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> Any:
        """A cursor of this connection; with a name its result ends with its transaction, as on the server."""
        del scrollable, withhold
        if binary:
            REFUSALS.refuse("binary")
        self.check()
        if name:
            return Cursor(self, name, row_factory=row_factory)
        return self.cursor_factory(self, row_factory=row_factory)

    def execute(
        self, query: Any, params: Any = None, *, prepare: bool | None = None, binary: bool = False
    ) -> Any:
        """A new cursor, with the statement run."""
        return self.cursor(binary=binary).execute(query, params, prepare=prepare)

    def commit(self) -> None:
        """Commit; harmless without a transaction. Raises what psycopg raises, and nothing is kept then."""
        self._check_outside("commit")
        with self.taken():
            self.end(commit=True)

    def rollback(self) -> None:
        """Roll back; harmless without a transaction."""
        self._check_outside("rollback")
        with self.taken():
            self.end(commit=False)

    def transaction(
        self,
        savepoint_name: str | None = None,
        force_rollback: bool = False,  # noqa: FBT001, FBT002 - the driver's signature
    ) -> Transaction:
        """A block that is a transaction, or inside one a savepoint."""
        self.check()
        return Transaction(self, savepoint_name, force_rollback=force_rollback)

    def close(self) -> None:
        """Roll back what is open, and close; harmless when repeated."""
        with self.lock:
            self.shut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_closed:
            return
        try:
            if kind is None:
                self.commit()
        finally:
            self.close()

    def note_failed(self, error: Exception) -> None:
        """The first error is the reason; those behind it only say that there was one."""
        if getattr(error, "sqlstate", None) != _ABORTED:
            super().note_failed(error)

    def closed_error(self) -> Exception:
        """As psycopg words it."""
        return psycopg.OperationalError("the connection is closed")

    @contextmanager
    def _changing(self, attribute: str) -> Iterator[None]:
        with self.taken():
            status = self.info.transaction_status
            if status != TransactionStatus.IDLE:
                why = (
                    "connection.transaction() context in progress"
                    if self.blocks
                    else f"connection in transaction status {status.name}"
                )
                raise psycopg.ProgrammingError(f"can't change {attribute!r} now: {why}")
            yield

    def _check_outside(self, verb: Literal["commit", "rollback"]) -> None:
        if self.blocks:
            raise psycopg.ProgrammingError(
                f"Explicit {verb}() forbidden within a Transaction context. (Its block ends it.)"
            )
