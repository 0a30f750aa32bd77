"""What a connection has open on the loop's side, and its calls there; nothing crosses before it has to.

```
 none ──begin()──▶ wanted ──statement──▶ open ──commit(), rollback()──▶ none
                                          │ ended by the loop: idle too long, connection lost
                                          ▼
                                         lost ──rollback()──▶ none        every statement raises until then
```
"""

from __future__ import annotations

import builtins
import sqlite3
from collections import deque
from types import NoneType
from typing import Any, NoReturn

from penstock.channels.db.calls import Chunk, Failed, Fetch, Ran, Run
from penstock.channels.dbapi.link import Link
from penstock.errors import (
    ChannelClosed,
    DatabaseBusy,
    DatabaseError,
    DeadlineExceeded,
    FrameError,
    PenstockError,
)

_BUILTINS = frozenset({"OverflowError", "TypeError", "ValueError"})


class Session:
    """One connection's transaction and cursors; its connection sees to it that one thread at a time is in here."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.is_abandoned = False
        self.dropped: deque[int] = deque()
        """Cursors that nobody holds any more; told with the next call, because a finalizer must not call."""
        self._number: int | None = None
        self._is_wanted = False
        self._lost: str | None = None
        self._is_unsettled = False
        self._cursors: set[int] = set()

    def __repr__(self) -> str:
        state = "lost" if self._lost else "open" if self._number else "wanted" if self._is_wanted else "none"
        return f"<Session [transaction {state}, {len(self._cursors)} cursors]>"

    @property
    def in_transaction(self) -> bool:
        """True from `begin` on."""
        return self._is_wanted or self._number is not None or self._lost is not None

    @property
    def is_open(self) -> bool:
        """True when the transaction has been begun over there."""
        return self._number is not None

    def begin(self) -> None:
        """The next statement begins a transaction, whatever it is."""
        self._is_wanted = self._number is None and self._lost is None

    def run(
        self,
        statement: str,
        parameters: Any = None,
        *,
        is_many: bool = False,
        begins: bool = False,
        has_raw_text: bool = False,
        writes: bool,
    ) -> Ran:
        """Run a statement. Raises what the driver raised, as the driver's class."""
        self._check()
        begins = (begins or self._is_wanted) and self._number is None
        self.link.guard(writes=writes or begins)
        dropped = self._take_dropped()
        asked = Run(statement, parameters, is_many, self._number, begins, has_raw_text, dropped)
        answer = self._call("run", asked, Ran | Failed)
        if isinstance(answer, Failed):
            self._note(answer.transaction)
            self._fail(answer)
        self._note(answer.transaction)
        if answer.cursor is not None:
            self._cursors.add(answer.cursor)
            self.link.holding.add(self)
        ran: Ran = answer
        return ran

    def fetch(self, cursor: int) -> Chunk:
        """More rows. Raises what the driver raised."""
        self._check()
        answer = self._call("fetch", Fetch(cursor), Chunk | Failed)
        if isinstance(answer, Failed):
            self._cursors.discard(cursor)
            if self._number is not None:
                self._note(answer.transaction)
            self._fail(answer)
        if answer.is_last:
            self._cursors.discard(cursor)
            self._settle()
        chunk: Chunk = answer
        return chunk

    def drop(self, cursor: int) -> None:
        """Close a cursor that is not read to its end, now: it holds a connection."""
        if cursor in self._cursors and not self._is_unsettled:
            self._cursors.discard(cursor)
            self._call("drop", [cursor, *self._take_dropped()], NoneType)
            self._settle()

    def commit(self) -> None:
        """Raises what the driver raised; nothing of the transaction is kept then."""
        self._check()
        self._end("commit")

    def rollback(self) -> None:
        """Harmless without a transaction."""
        if self._is_unsettled:
            # Nobody knows what has become of the call that was cut short.
            self.link.reset()
            return
        self._lost = None
        self._end("rollback")

    def close(self) -> None:
        """Close what cursors are open; nothing is asked of it after this."""
        if self._cursors:
            self._call("drop", list(self._cursors), NoneType)
            self._cursors.clear()
        self._settle()

    def forget(self) -> None:
        """The loop has rolled it back, and closed its cursors."""
        self._number = None
        self._is_wanted = self._is_unsettled = False
        self._lost = None
        self._cursors.clear()
        self.dropped.clear()

    def _end(self, method: str) -> None:
        self._is_wanted = False
        number, self._number = self._number, None
        if number is not None:
            try:
                self._call(method, number, NoneType)
            except DatabaseError as error:
                raise self._translated(error) from error
        self._settle()

    def _check(self) -> None:
        if self._is_unsettled:
            raise sqlite3.OperationalError(
                "a call of this connection was cut short by a deadline: roll back first"
            )
        if self._lost is not None:
            raise _lost(self._lost)
        self.link.end_abandoned()

    def _call(self, method: str, arguments: object, result: Any) -> Any:
        self._is_unsettled = True
        self.link.holding.add(self)
        try:
            answer = self.link.call(method, arguments, result)
        except FrameError as error:
            # Refused before it was written.
            self._is_unsettled = False
            raise sqlite3.DataError(str(error)) from error
        except (ChannelClosed, DeadlineExceeded):
            raise
        except PenstockError:
            # An answer too, though a refusal.
            self._is_unsettled = False
            raise
        self._is_unsettled = False
        return answer

    def _note(self, number: int | None) -> None:
        self._is_wanted = False
        self._number = number
        self._settle()

    def _settle(self) -> None:
        if self._number is None and not self._cursors:
            self.link.holding.discard(self)

    def _take_dropped(self) -> list[int]:
        numbers = []
        while self.dropped:
            number = self.dropped.popleft()
            if number in self._cursors:
                self._cursors.discard(number)
                numbers.append(number)
        return numbers

    def _fail(self, failed: Failed) -> NoReturn:
        if failed.is_lost:
            self._lost = failed.text
        raise _exception(failed.name, failed.text, failed.code, failed.code_name)

    def _translated(self, error: DatabaseError) -> Exception:
        if isinstance(error, DatabaseBusy):
            return _exception("OperationalError", str(error), sqlite3.SQLITE_BUSY, "SQLITE_BUSY")
        return _exception(error.kind, str(error), None, None)


def wrong(text: str) -> Exception:
    """What SQLite would have said."""
    return _exception("OperationalError", text, sqlite3.SQLITE_ERROR, "SQLITE_ERROR")


def _exception(name: str, text: str, code: int | None, code_name: str | None) -> Exception:
    found = getattr(builtins if name in _BUILTINS else sqlite3, name, sqlite3.DatabaseError)
    if not (isinstance(found, type) and issubclass(found, Exception)):
        found = sqlite3.DatabaseError
    error = found(text)
    if code is not None and isinstance(error, sqlite3.Error):
        error.sqlite_errorcode = code
        error.sqlite_errorname = code_name or ""
    return error


def _lost(why: str) -> Exception:
    return sqlite3.OperationalError(f"{why}; call rollback() before the next statement")
