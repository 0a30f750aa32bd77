"""A connection over the channel: the driver's transactions, its attributes, and words for what cannot cross."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from sqlite3.dump import _iterdump  # type: ignore[attr-defined]
from types import TracebackType
from typing import Any, Final, Literal, NoReturn, Self

from msgspec import Raw

from penstock.channels import wire
from penstock.channels.db.calls import Chunk, Ran, Run
from penstock.channels.db.parting import is_one
from penstock.channels.db.statements import READS, verb_of
from penstock.channels.dbapi.refusals import Refusing
from penstock.channels.dbapi.sqlite.cursor import Cursor
from penstock.channels.dbapi.sqlite.refusals import REFUSALS
from penstock.channels.dbapi.sqlite.savepoints import Savepoints
from penstock.channels.dbapi.sqlite.session import Session, wrong

LEGACY_TRANSACTION_CONTROL: Final = -1
_LEVELS: Final = frozenset({"", "DEFERRED", "IMMEDIATE", "EXCLUSIVE"})
#: The driver looks at the first word alone: WITH … INSERT begins nothing.
_BEGINS: Final = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE"})
_TAIL: Final = r"(?:\s*;|\s|--[^\n]*|/\*.*?\*/)*"
_HEAD: Final = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
_BEGIN: Final = re.compile(
    rf"{_HEAD}BEGIN(?:\s+(?:DEFERRED|IMMEDIATE|EXCLUSIVE))?(?:\s+TRANSACTION(?:\s+\w+)?)?{_TAIL}",
    re.IGNORECASE | re.DOTALL,
)
_END: Final = re.compile(
    rf"{_HEAD}(?:COMMIT|END|ROLLBACK)(?:\s+TRANSACTION(?:\s+\w+)?)?{_TAIL}", re.IGNORECASE | re.DOTALL
)
_READ_UNCOMMITTED: Final = re.compile(
    rf"{_HEAD}PRAGMA\s+read_uncommitted(?:\s*=\s*(?P<value>\w+))?{_TAIL}", re.IGNORECASE | re.DOTALL
)
_NOTHING: Final = Ran(None, Chunk([], is_last=True))


class Connection(Refusing):
    """As `sqlite3.Connection`; its file is the one in `database.url`."""

    Warning = sqlite3.Warning
    Error = sqlite3.Error
    InterfaceError = sqlite3.InterfaceError
    DatabaseError = sqlite3.DatabaseError
    DataError = sqlite3.DataError
    OperationalError = sqlite3.OperationalError
    IntegrityError = sqlite3.IntegrityError
    InternalError = sqlite3.InternalError
    ProgrammingError = sqlite3.ProgrammingError
    NotSupportedError = sqlite3.NotSupportedError

    refusals = REFUSALS

    def __init__(
        self,
        session: Session,
        *,
        isolation_level: str | None = "",
        check_same_thread: bool = True,
        autocommit: bool | int = LEGACY_TRANSACTION_CONTROL,
    ) -> None:
        self.session = session
        self.lock = threading.RLock()
        self.row_factory: Callable[..., Any] | None = None
        self.text_factory: Callable[[bytes], Any] = str
        self.is_closed = False
        self.is_read_only = False
        """Outside a transaction nothing is written: SQLite itself refuses."""
        self._thread = threading.get_ident() if check_same_thread else None
        self._isolation_level: str | None = None
        self._autocommit = autocommit
        self._changes = 0
        self._is_uncommitted = False
        self._savepoints = Savepoints()
        self._blanks: sqlite3.Connection | None = None
        self._set_level(isolation_level)

    def __repr__(self) -> str:
        return f"<Connection over the channel [{'closed' if self.is_closed else repr(self.session)}]>"

    def __del__(self) -> None:
        session = getattr(self, "session", None)
        if session is not None:
            session.is_abandoned = True
        blanks = getattr(self, "_blanks", None)
        if blanks is not None:
            blanks.close()

    @property
    def in_transaction(self) -> bool:
        """True while a transaction is open."""
        return self.session.in_transaction or self._autocommit is False

    @property
    def total_changes(self) -> int:
        """Rows changed since the connection was made, triggers included."""
        return self._changes

    @property
    def isolation_level(self) -> str | None:
        """`""`, DEFERRED, IMMEDIATE or EXCLUSIVE: changes begin a transaction; None: each statement is its own."""
        return self._isolation_level

    @isolation_level.setter
    def isolation_level(self, level: str | None) -> None:
        self.check()
        if level is None:
            # As the driver: autocommit begins with a commit.
            self.commit()
        self._set_level(level)

    @property
    def autocommit(self) -> bool | int:
        """As in Python 3.12, in every version: False keeps a transaction open, True none."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: bool | int) -> None:
        self.check()
        if value is True:
            self._commit()
        self._autocommit = value

    def cursor(self, factory: Callable[[Connection], Any] = Cursor) -> Any:
        """A cursor of this connection."""
        self.check()
        made = factory(self)
        if not isinstance(made, Cursor):
            msg = f"factory must return a cursor, not {type(made).__name__}"
            raise TypeError(msg)
        return made

    def execute(self, statement: str, parameters: Any = (), /) -> Cursor:
        """A new cursor, with the statement run."""
        cursor: Cursor = self.cursor()
        return cursor.execute(statement, parameters)

    def executemany(self, statement: str, rows: Iterable[Any], /) -> Cursor:
        """A new cursor, with the statement run for each row."""
        cursor: Cursor = self.cursor()
        return cursor.executemany(statement, rows)

    def executescript(self, script: str, /) -> Cursor:
        """A new cursor, with the script run."""
        cursor: Cursor = self.cursor()
        return cursor.executescript(script)

    def begin(self) -> None:
        """Begin a transaction with the next statement, whatever it is: from then on nobody else writes.

        What the driver writes as `execute("BEGIN IMMEDIATE")`, without a crossing.
        """
        self.check()
        with self.lock:
            self.session.begin()

    def commit(self) -> None:
        """Commit; harmless without a transaction. Raises what `sqlite3` raises, and nothing is kept then."""
        self.check()
        with self.lock:
            if self._autocommit is not True:
                self._commit()

    def rollback(self) -> None:
        """Roll back; harmless without a transaction."""
        self.check()
        with self.lock:
            if self._autocommit is not True:
                self._rollback()

    def close(self) -> None:
        """Roll back what is open, and close; harmless when repeated."""
        self.check_thread()
        with self.lock:
            if self.is_closed:
                return
            self.is_closed = True
            if self._blanks is not None:
                self._blanks.close()
            self._rollback()
            self.session.close()

    def iterdump(self) -> Iterator[str]:
        """The database as the SQL that makes it."""
        self.check()
        return _iterdump(self)  # type: ignore[no-any-return]

    def __enter__(self) -> Self:
        self.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if kind is None:
            try:
                self.commit()
            except BaseException:
                self.rollback()
                raise
        else:
            self.rollback()
        return False

    def __call__(self, _statement: str) -> NoReturn:
        """Raises `NotSupportedError`."""
        REFUSALS.refuse("a statement by calling the connection")

    def check(self) -> None:
        """Raises `ProgrammingError` when it is closed, or another thread's."""
        self.check_thread()
        if self.is_closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")

    def check_thread(self) -> None:
        """Raises `ProgrammingError` in another thread than the one that made it, unless `check_same_thread=False`."""
        if self._thread is not None and self._thread != threading.get_ident():
            raise sqlite3.ProgrammingError(
                "SQLite objects created in a thread can only be used in that same thread. The object was created in "
                f"thread id {self._thread} and this is thread id {threading.get_ident()}."
            )

    @contextmanager
    def using(self, cursor: Cursor) -> Iterator[None]:
        """One thread at a time; raises `ProgrammingError` when cursor or connection is closed."""
        self.check()
        if cursor.is_closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed cursor.")
        with self.lock:
            yield

    def run(self, statement: Any, parameters: Any, *, is_many: bool = False, is_script: bool = False) -> Ran:
        """Run a cursor's statement, with the transaction that the driver would begin for it."""
        if not isinstance(statement, str):
            msg = f"execute() argument 1 must be str, not {type(statement).__name__}"
            raise TypeError(msg)
        if "\0" in statement:
            raise sqlite3.ProgrammingError("the query contains a null character")
        verb = verb_of(statement)
        if verb == "PRAGMA" and (found := _READ_UNCOMMITTED.fullmatch(statement)):
            return self._read_uncommitted(found["value"])
        if verb in ("BEGIN", "COMMIT", "END") or (verb == "ROLLBACK" and _END.fullmatch(statement)):
            self._control(statement, verb)
            return _NOTHING
        if verb in ("SAVEPOINT", "RELEASE", "ROLLBACK"):
            return self._savepoint(statement, verb)
        begins = self._begins(statement) and (not is_script or self._autocommit is False)
        has_raw_text = self.text_factory is not str
        asked = Run(statement, parameters, is_many, has_raw_text=has_raw_text, is_read_only=self.is_read_only)
        ran = self.session.run(asked, begins=begins, writes=verb not in READS)
        self._changes += ran.changes
        return ran

    @contextmanager
    def whole(self, statement: Any, crossings: Iterator[Raw]) -> Iterator[Iterator[Raw]]:
        """Several crossings of one statement, in autocommit in a transaction: all of them are kept, or none."""
        if self.session.in_transaction or self._begins(statement):
            yield crossings
            return
        is_one_crossing, crossings = is_one(crossings)
        if is_one_crossing:
            yield crossings
            return
        self.session.begin()
        try:
            yield crossings
            self._commit()
        except BaseException:
            self._rollback()
            raise

    def before_script(self) -> None:
        """What the driver does before a script."""
        if self._autocommit == LEGACY_TRANSACTION_CONTROL:
            self._commit()

    def blank(self, columns: list[str]) -> sqlite3.Cursor:
        """A cursor of the driver's own with these columns."""
        if self._blanks is None:
            self._blanks = sqlite3.connect(":memory:", check_same_thread=False)
        names = ", ".join('NULL AS "{}"'.format(name.replace('"', '""')) for name in columns)
        return self._blanks.execute(f"SELECT {names} WHERE 0")

    def _begins(self, statement: Any) -> bool:
        return self._autocommit is False or (
            self._autocommit == LEGACY_TRANSACTION_CONTROL
            and self._isolation_level is not None
            and isinstance(statement, str)
            and first_word(statement) in _BEGINS
        )

    def _set_level(self, level: Any) -> None:
        if level is not None and not isinstance(level, str):
            msg = "isolation_level must be str or None"
            raise TypeError(msg)
        if level is not None and level.upper() not in _LEVELS:
            msg = "isolation_level string must be '', 'DEFERRED', 'IMMEDIATE', or 'EXCLUSIVE'"
            raise ValueError(msg)
        self._isolation_level = None if level is None else level.upper()

    def _control(self, statement: str, verb: str) -> None:
        if not (_BEGIN if verb == "BEGIN" else _END).fullmatch(statement):
            raise wrong(f"{verb} is written alone, as SQLite knows it: syntax error")
        if verb == "BEGIN":
            if self.in_transaction:
                raise wrong("cannot start a transaction within a transaction")
            self.session.begin()
        elif not self.in_transaction:
            word = "rollback" if verb == "ROLLBACK" else "commit"
            raise wrong(f"cannot {word} - no transaction is active")
        elif verb == "ROLLBACK":
            self._rollback()
        else:
            self._commit()

    def _savepoint(self, statement: str, verb: str) -> Ran:
        name = self._savepoints.name_in(statement)
        if verb == "SAVEPOINT":
            if not self.session.in_transaction:
                # It is a transaction of its own, which ends with its release.
                self._savepoints.begin_with_one()
                self.session.begin()
            ran = self.session.run(Run(statement), writes=True)
            self._savepoints.add(name)
            return ran
        if not self.session.is_open:
            raise wrong(f"no such savepoint: {name}")
        ran = self.session.run(Run(statement), writes=True)
        if verb == "ROLLBACK":
            self._savepoints.roll_back_to(name)
        elif self._savepoints.release(name):
            self._commit()
        return ran

    def _read_uncommitted(self, value: str | None) -> Ran:
        # It means something to connections that share a cache, which none do: kept, so that who asks hears it.
        if value is not None:
            self._is_uncommitted = value.lower() in ("1", "on", "true", "yes")
            return _NOTHING
        row = Raw(wire.encode([[int(self._is_uncommitted)]]))
        return Ran(["read_uncommitted"], Chunk([row], is_last=True))

    def _commit(self) -> None:
        self._savepoints.clear()
        self.session.commit()

    def _rollback(self) -> None:
        self._savepoints.clear()
        self.session.rollback()


def first_word(statement: str) -> str:
    """In capitals; what the driver looks at."""
    found = re.match(rf"{_HEAD}(\w+)", statement, re.DOTALL)
    return found[1].upper() if found else ""
