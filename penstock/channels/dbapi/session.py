"""What a connection has open on the loop's side, and its calls there; nothing crosses before it has to.

```
 none ──begin()──▶ wanted ──statement──▶ open ──commit(), rollback()──▶ none
                                          │ ended by the loop: idle too long, connection lost
                                          ▼
                                         lost ──rollback()──▶ none        every statement raises until then
```
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from types import NoneType
from typing import Any, Literal, NoReturn

from msgspec.structs import replace

from penstock.channels.db.calls import Chunk, Failed, Fetch, Ran, Run
from penstock.channels.dbapi.link import Link
from penstock.errors import ChannelClosed, DatabaseError, DeadlineExceeded, FrameError, PenstockError


class DriverSession(ABC):
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

    @property
    def is_lost(self) -> bool:
        """True when the loop has ended the transaction, until a rollback."""
        return self._lost is not None

    @property
    def is_unsettled(self) -> bool:
        """True when a call was cut short, until a rollback."""
        return self._is_unsettled

    def begin(self) -> None:
        """The next statement begins a transaction, whatever it is."""
        self._is_wanted = self._number is None and self._lost is None

    def run(self, asked: Run, *, begins: bool = False, writes: bool) -> Ran:
        """Run a statement; `transaction`, `begins` and `dropped` are filled in here. Raises what the driver raised, as its class."""
        self._check()
        begins = (begins or self._is_wanted) and self._number is None
        self.link.guard(writes=writes or begins)
        asked = replace(asked, transaction=self._number, begins=begins, dropped=self._take_dropped())
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
            self.link.reset(self)
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

    def lose(self) -> None:
        """The loop has rolled it back with the call of another connection, which was cut short."""
        was_open = self._number is not None
        self.forget()
        if was_open:
            self._lost = (
                "the transaction is over: a call of another connection of this worker was cut short, and all that the "
                "worker had open was rolled back"
            )

    def abandon(self) -> None:
        """Roll back and close what nobody holds any more."""
        self.rollback()
        self.close()

    @abstractmethod
    def failure(self, failed: Failed) -> Exception:
        """What the driver raised over there, as an exception of its class."""

    @abstractmethod
    def refusal(self, error: DatabaseError) -> Exception:
        """What the channel itself refused, as an exception of the driver's."""

    @abstractmethod
    def operational(self, text: str) -> Exception:
        """The driver's OperationalError."""

    @abstractmethod
    def too_large(self, text: str) -> Exception:
        """The driver's DataError."""

    def _end(self, method: Literal["commit", "rollback"]) -> None:
        self._is_wanted = False
        number, self._number = self._number, None
        if number is not None:
            self._finish(method, number)
        self._settle()

    def _finish(self, method: str, number: int) -> None:
        self._call(method, number, NoneType)

    def _check(self) -> None:
        if self._is_unsettled:
            raise self.operational("a call of this connection was cut short by a deadline: roll back first")
        if self._lost is not None:
            raise self.operational(f"{self._lost}; call rollback() before the next statement")
        self.link.end_abandoned()

    def _call(self, method: str, arguments: object, result: Any) -> Any:
        self._is_unsettled = True
        self.link.holding.add(self)
        try:
            answer = self.link.call(method, arguments, result)
        except FrameError as error:
            # Refused before it was written.
            self._is_unsettled = False
            raise self.too_large(str(error)) from error
        except DatabaseError as error:
            self._is_unsettled = False
            self._settle()
            raise self.refusal(error) from error
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
        raise self.failure(failed)
