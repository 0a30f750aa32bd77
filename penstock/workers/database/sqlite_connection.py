"""SQLite: a connection on which everything that a handler does is part of its message, past SQLAlchemy too.

Python's driver begins a transaction by itself before some changes and commits by itself before a script. Here each
change begins one that waits for its turn, and whatever ends one by halves is refused.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, cast
from weakref import ReferenceType, ref

from penstock.channels.db.sqlite.faults import is_locked
from penstock.channels.db.sqlite.guarding import note_lasting_methods, what_stays
from penstock.channels.db.statements import ALONE, GROUPED, READS, statements_of, verb_of
from penstock.errors import TransactionUndone

#: SQLite waits inside C code, where no deadline can reach it, so it waits in pieces of this.
WAIT_PIECE_S: Final = 1.0
_CURSORS_BEFORE_PRUNING: Final = 64
#: Verbs before which a transaction begins; RELEASE would commit a savepoint that began one.
_BEGINS: Final = (GROUPED | ALONE | {"SAVEPOINT"}) - READS
_COMMITS: Final = frozenset({"COMMIT", "END"})

#: PRAGMAs that ask or act and change nothing of the connection, though they take an argument.
_HARMLESS_PRAGMAS: Final = frozenset(
    {
        "application_id", "foreign_key_check", "foreign_key_list", "incremental_vacuum", "index_info", "index_list",
        "index_xinfo", "integrity_check", "optimize", "quick_check", "table_info", "table_list", "table_xinfo",
        "user_version", "wal_checkpoint",
    }
)  # fmt: skip
_DRIVERS_LEVEL: Final[Any] = sqlite3.Connection.__dict__["isolation_level"]
_CursorT = TypeVar("_CursorT", bound=sqlite3.Cursor)


class WatchedConnection(sqlite3.Connection):
    """The driver's connection, noting in `left` what outlives a rollback.

    SQLite tells while it compiles a statement, so a statement that the driver has cached costs nothing; and the
    cache dies with the connection that such a statement has spoilt.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.left: str | None = None
        self.is_autocommit = False
        self.busy_timeout_s = 0.0
        self.undone_by: sqlite3.Error | None = None
        """The error that took the transaction away, until somebody rolls back."""
        self._beginning = super().cursor()
        self._cursors: list[ReferenceType[sqlite3.Cursor]] = []
        self._prune_at = _CURSORS_BEFORE_PRUNING
        sqlite3.Connection.set_authorizer(self, _authorizer(ref(self)))

    def cursor(self, factory: Callable[[sqlite3.Connection], _CursorT] | None = None) -> _CursorT:
        """As the driver's, remembered for as long as somebody holds it."""
        made = super().cursor(WatchedCursor if factory is None else factory)
        self._cursors.append(ref(made))
        if len(self._cursors) > self._prune_at:
            self._cursors = [cursor for cursor in self._cursors if cursor() is not None]
            self._prune_at = max(_CURSORS_BEFORE_PRUNING, 2 * len(self._cursors))
        return cast("_CursorT", made)

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """As the driver's, whose own goes past `cursor`."""
        return self.cursor().execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        """As the driver's."""
        return self.cursor().executemany(*args)

    def executescript(self, *args: Any) -> sqlite3.Cursor:
        """As the cursor's."""
        return self.cursor().executescript(*args)

    def begin(self) -> None:
        """Wait for the write lock. Raises `sqlite3.OperationalError` when it is not to be had in `busy_timeout_s`."""
        try:
            self._beginning.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_locked(error):
                raise
            # Still in here, so that a deadline that comes while waiting has the lock in its context.
            self.patiently(lambda: self._beginning.execute("BEGIN IMMEDIATE"), waited_s=WAIT_PIECE_S)

    def patiently(self, attempt: Callable[[], object], *, waited_s: float = 0.0) -> None:
        """Until nobody else's lock is in the way, or `busy_timeout_s` is over."""
        give_up_at = time.monotonic() + self.busy_timeout_s - waited_s
        while True:
            try:
                attempt()
            except sqlite3.OperationalError as error:
                if not is_locked(error) or time.monotonic() >= give_up_at:
                    raise
                time.sleep(0.005)
            else:
                return

    def prepare(self, statement: object) -> None:
        """What has to be before a statement outside of a transaction, or behind an error that undid one.

        Raises `TransactionUndone` for a commit by text, and as `begin` does.
        """
        verb = verb_of(statement) if isinstance(statement, str) else ""
        if self.undone_by is not None and verb in _COMMITS:
            raise TransactionUndone from self.undone_by
        if verb in _BEGINS and not self.in_transaction and not self.is_autocommit:
            self.begin()

    def commit(self) -> None:
        """As the driver's. Raises `TransactionUndone` when half a transaction would be committed for a whole one."""
        if self.undone_by is not None:
            raise TransactionUndone from self.undone_by
        super().commit()

    def rollback(self) -> None:
        """As the driver's."""
        self.undone_by = None
        super().rollback()

    @property
    def isolation_level(self) -> Any:
        """As the driver's."""
        return _DRIVERS_LEVEL.__get__(self)

    @isolation_level.setter
    def isolation_level(self, level: Any) -> None:
        # What it is already, the driver would take for a reason to commit.
        if level is not None or self.isolation_level is not None:
            _DRIVERS_LEVEL.__set__(self, level)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        # The driver's own goes past `commit`.
        if kind is not None:
            self.rollback()
            return False
        try:
            self.commit()
        except BaseException:
            self.rollback()
            raise
        return False

    def note_failed(self, error: sqlite3.Error) -> None:
        """A statement inside a transaction failed; SQLite undoes all of it with some: OR ROLLBACK, a full disk, an interrupt."""
        if self.in_transaction or self.is_autocommit:
            return
        self.undone_by = error
        # Without a transaction each further statement of the handler would be committed by itself.
        self._beginning.execute("BEGIN")

    def close_cursors(self) -> None:
        """End each result that is still open: it would keep reading the database as it was, and block commits."""
        for cursor in self._cursors:
            alive = cursor()
            if alive is not None:
                alive.close()
        self._cursors.clear()


class WatchedCursor(sqlite3.Cursor):
    """The driver's cursor, which sees to its connection's transaction before a statement, and after one that failed."""

    def execute(self, *args: Any) -> Self:
        """As the driver's."""
        return self._inside(super().execute, args)

    def executemany(self, *args: Any) -> Self:
        """As the driver's."""
        return self._inside(super().executemany, args)

    def executescript(self, *args: Any) -> Self:
        """As the driver's, but in the message's transaction, which the driver would commit before."""
        if self._watched.is_autocommit or not (args and isinstance(args[0], str)):
            super().executescript(*args)
            return self
        for statement in statements_of(args[0]):
            self.execute(statement).fetchall()
        return self

    @property
    def _watched(self) -> WatchedConnection:
        return cast("WatchedConnection", self.connection)

    def _inside(self, run: Callable[..., Self], args: tuple[Any, ...]) -> Self:
        connection = self._watched
        was_inside = connection.in_transaction
        if args and (not was_inside or connection.undone_by is not None):
            connection.prepare(args[0])
        try:
            made = run(*args)
        except sqlite3.Error as error:
            if was_inside:
                connection.note_failed(error)
            raise
        if connection.undone_by is not None and not connection.in_transaction:
            # By text, too, a rollback makes good.
            connection.undone_by = None
        return made


def _authorizer(connection: ReferenceType[WatchedConnection]) -> Callable[..., int]:
    def watch(
        action: int, first: str | None, second: str | None, schema: str | None, _trigger: str | None
    ) -> int:
        left = what_stays(action, first, schema)
        if (
            action == sqlite3.SQLITE_PRAGMA
            and second is not None
            and str(first).lower() not in _HARMLESS_PRAGMAS
        ):
            left = f"PRAGMA {first}"
        if left is not None and (own := connection()) is not None:
            own.left = left
        return sqlite3.SQLITE_OK

    return watch


note_lasting_methods(WatchedConnection)
