"""A connection to a database server over the channel: a transaction begins with its first statement, and one result is open.

```
 idle ──statement, no autocommit──▶ in transaction ──commit(), rollback(), their statements──▶ idle
  └──statement, autocommit──▶ idle: committed when its last row is read
```
"""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Raw

from penstock.channels.db.calls import Chunk, Ran, Run
from penstock.channels.db.parting import is_one
from penstock.channels.dbapi.rows import RowBuffer
from penstock.channels.dbapi.server.control import Beginning, Control, Verb, control_of, merged
from penstock.channels.dbapi.server.session import ServerSession


class ServerConnection(ABC):
    """What is the same for each driver; one thread at a time is in here."""

    count_of_none = -1
    """What the driver counts for a statement that does not deal with rows."""

    def __init__(self, session: ServerSession, *, autocommit: bool) -> None:
        self.session = session
        self.lock = threading.RLock()
        self.is_closed = False
        self.beginning = Beginning()
        """Of all transactions to come."""
        self.failed_by: Exception | None = None
        """What the last statement of this transaction raised."""
        self.is_autocommit = autocommit
        self._next = Beginning()
        self._unread: weakref.ref[RowBuffer] | None = None
        self._is_unread_streamed = False

    def __repr__(self) -> str:
        return f"<Connection over the channel [{'closed' if self.is_closed else repr(self.session)}]>"

    def __del__(self) -> None:
        session = getattr(self, "session", None)
        if session is not None:
            session.is_abandoned = True

    @property
    def in_transaction(self) -> bool:
        """True while a transaction is open, or wanted by a BEGIN."""
        return self.session.in_transaction

    @abstractmethod
    def closed_error(self) -> Exception:
        """What the driver raises for a closed connection."""

    def check(self) -> None:
        """Raises what the driver raises when it is closed."""
        if self.is_closed:
            raise self.closed_error()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """One thread at a time; raises what the driver raises when it is closed."""
        self.check()
        with self.lock:
            yield

    def run(self, statement: str, parameters: Any, *, is_many: bool = False) -> Ran:
        """Run a cursor's statement, in the transaction that the driver would begin for it."""
        if not is_many and not parameters and self._is_obeyed(statement):
            return Ran(None, Chunk([], is_last=True, row_count=self.count_of_none))
        self._keep_unread()
        how = merged(self.beginning, self._next)
        asked = Run(
            statement,
            parameters,
            is_many,
            isolation=how.isolation,
            is_read_only=bool(how.is_read_only),
            is_deferrable=bool(how.is_deferrable),
        )
        try:
            ran = self.session.run(asked, begins=not self.is_autocommit, writes=True)
        except Exception as error:
            self.note_failed(error)
            raise
        self.note_ran()
        if self.session.is_open:
            self._next = Beginning()
        return ran

    @contextmanager
    def whole(self, crossings: Iterator[Raw]) -> Iterator[Iterator[Raw]]:
        """Several crossings of one statement, in autocommit in a transaction: all of them are kept, or none."""
        if not self.is_autocommit or self.in_transaction:
            yield crossings
            return
        is_one_crossing, crossings = is_one(crossings)
        if is_one_crossing:
            yield crossings
            return
        self.session.begin()
        try:
            yield crossings
            self.end(commit=True)
        except BaseException:
            self.end(commit=False)
            raise

    def opened(self, rows: RowBuffer, *, is_streamed: bool) -> None:
        """These are what was asked for last: what follows may not overtake them."""
        self._unread = None if rows.is_whole else weakref.ref(rows)
        self._is_unread_streamed = is_streamed

    def note_ran(self) -> None:
        """A statement succeeded."""
        self.failed_by = None

    def note_failed(self, error: Exception) -> None:
        """A statement failed."""
        self.failed_by = error

    def end(self, *, commit: bool) -> None:
        """Commit or roll back; harmless without a transaction. Raises what the driver raised, and nothing is kept then."""
        self._next = Beginning()
        self.failed_by = None
        if not commit:
            self._unread = None
            self.session.rollback()
            return
        if self._is_unread_streamed and self.session.is_open:
            # As with the driver, a streamed result ends with its transaction.
            self._unread = None
        self._keep_unread()
        self.session.commit()

    def shut(self) -> None:
        """Roll back what is open, and close; harmless when repeated."""
        if not self.is_closed:
            self.is_closed = True
            self._unread = None
            self.session.rollback()
            self.session.close()

    def _keep_unread(self) -> None:
        # The driver has read a result to its end before it can send another statement.
        rows = None if self._unread is None else self._unread()
        self._unread = None
        if rows is not None:
            rows.read_rest()

    def _is_obeyed(self, statement: str) -> bool:
        control = control_of(statement)
        return self.obeys(statement) if control is None else self._obey(control)

    def _obey(self, control: Control) -> bool:
        # False for what the server itself has to hear.
        match control.verb:
            case Verb.BEGIN:
                self.begin_explicitly(control.options)
            case Verb.COMMIT:
                self.end(commit=True)
            case Verb.ROLLBACK:
                self.end(commit=False)
            case Verb.SET_NEXT:
                if self.session.is_open:
                    return False
                self._next = merged(self._next, control.options)
            case Verb.SET_ALL:
                self.beginning = merged(self.beginning, control.options)
        return True

    def obeys(self, statement: str) -> bool:
        """True for another statement of the driver's that the connection carries out by itself."""
        del statement
        return False

    def begin_explicitly(self, how: Beginning) -> None:
        """BEGIN: the next statement begins a transaction, in autocommit too."""
        self._next = merged(self._next, how)
        self.session.begin()
