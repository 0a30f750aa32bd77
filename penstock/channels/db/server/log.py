"""What the operator reads of the channel's server: lost connections, callers that wait, statements that could not be ended.

A line names the caller and the server's number of the connection, never a statement or its parameters. One event is told
at most once a minute; `left_out` says how many like it were not.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from structlog.typing import FilteringBoundLogger

from penstock.channels.db.server.seldom import Seldom
from penstock.channels.db.words import words_of
from penstock.channels.service import Caller


class ServerLog:
    """Writes to `log`, which names the database.

    `scrub` takes the URL's secrets out of a text. An error that is not `is_foreseen` is told by its type and place alone.
    """

    def __init__(
        self,
        log: FilteringBoundLogger,
        *,
        scrub: Callable[[str], str],
        is_foreseen: Callable[[BaseException], bool],
        seldom: Seldom | None = None,
    ) -> None:
        self._log = log
        self._scrub = scrub
        self._is_foreseen = is_foreseen
        self._seldom = Seldom() if seldom is None else seldom
        # Since when the server counts as away, and whether anybody was told.
        self._away_since_s: float | None = None
        self._is_away_told = False
        self._refused = 0

    def lost(self, caller: Caller, error: BaseException, *, is_commit: bool) -> None:
        """A connection ended under a caller."""
        if is_commit:
            event = (
                "the connection to the database server was lost amid a commit: whether it was kept is not known, the "
                "message comes again; the next statement opens another connection"
            )
        else:
            event = (
                "the connection to the database server was lost: the server rolls back what was open on it, the message "
                "comes again uncharged; the next statement opens another connection"
            )
        self._note_away(self._warn(event, caller, why=self.words_of(error)))

    def unreachable(self, caller: Caller, error: BaseException) -> None:
        """A connection could not be opened."""
        self._refused += 1
        event = (
            "the database server cannot be reached: statements over the channel are refused, their messages come again "
            "uncharged; each one tries it again"
        )
        self._note_away(self._warn(event, caller, why=self.words_of(error), refused=self._refused))

    def answers(self) -> None:
        """A connection was lent that lives; told when the server was away before."""
        if self._away_since_s is None:
            return
        away_s, self._away_since_s = time.monotonic() - self._away_since_s, None
        is_told, self._is_away_told = self._is_away_told, False
        refused, self._refused = self._refused, 0
        if is_told:
            self._log.info("the database server answers again", away_s=round(away_s, 3), refused=refused)

    def idle_ended(self) -> None:
        """A connection that nobody used had ended."""
        left_out = self._seldom.left_out("idle")
        if left_out is not None:
            self._log.info(
                "an idle connection to the database server had ended: it is replaced, and cost nobody a statement",
                left_out=left_out,
            )

    def waiting(self, caller: Caller, waited_s: float, connections: int, holders: Sequence[str]) -> None:
        """A caller has been waiting for a connection for some time."""
        self._warn(
            "every connection to the database server is in use: a caller waits for one, up to database.wait_s; look what "
            "the holders do so long, or raise database.server_connections",
            caller,
            waited_s=round(waited_s, 3),
            connections=connections,
            holders=list(holders),
        )

    def refused(self, caller: Caller, waited_s: float, connections: int, holders: Sequence[str]) -> None:
        """It waited in vain."""
        self._warn(
            "every connection to the database server was in use for database.wait_s: a statement is refused, its message "
            "comes again uncharged; look what the holders do so long, or raise database.server_connections",
            caller,
            waited_s=round(waited_s, 3),
            connections=connections,
            holders=list(holders),
        )

    def abandoned(self, caller: Caller) -> None:
        """A transaction was open when its caller went."""
        self._warn(
            "a transaction was open when its worker died or its message was cut short: it is rolled back, nothing of it is "
            "kept; the message's own line says what becomes of it",
            caller,
        )

    def idle(self, caller: Caller, idle_s: float) -> None:
        """A transaction stood still."""
        self._warn(
            "a transaction stood without a statement for database.transaction_idle_s: it is rolled back, and its message "
            "fails at its next statement; do slow work before the transaction, or raise the setting",
            caller,
            idle_s=idle_s,
        )

    def kill_failed(self, caller: Caller, connection: int, error: BaseException) -> None:
        """The server could not be told to end a statement."""
        self._warn(
            "a statement that nobody waits for any more could not be ended: it may run on, and hold its locks, until the "
            "server is done with it; look for the connection in the server's process list, and end it there",
            caller,
            connection=connection,
            error=self.words_of(error),
        )
        self._explain(error)

    def not_ended(self, caller: Caller, connection: int | None, waited_s: float) -> None:
        """The server was told, and the statement goes on."""
        self._warn(
            "a statement that nobody waits for any more has not ended although the server was told to: its connection is "
            "closed from here, and on the server it may hold its locks; look for it in the server's process list",
            caller,
            connection=connection,
            waited_s=waited_s,
        )

    def rollback_failed(self, caller: Caller, error: BaseException) -> None:
        """A connection could not be cleaned for the next caller."""
        self._warn(
            "a rollback failed: the connection is closed, and the server rolls back by itself",
            caller,
            error=self.words_of(error),
        )
        self._explain(error)

    def close_failed(self, caller: Caller, error: BaseException) -> None:
        """A goodbye did not come through."""
        self._warn(
            "a connection to the database server could not be closed in good order: it is dropped; the server may show it "
            "until it notices",
            caller,
            error=self.words_of(error),
        )
        self._explain(error)

    def rest_failed(self, caller: Caller, error: BaseException) -> None:
        """What was left of a result could not be read over."""
        self._warn(
            "the rest of a result that nobody reads could not be passed over: its connection is closed and replaced",
            caller,
            error=self.words_of(error),
        )
        self._explain(error)

    def left_behind(self, count: int, waited_s: float) -> None:
        """The channel closes without waiting any longer."""
        self._log.warning(
            "the database server does not answer: the stop waits for it no longer, and what is still open there it rolls "
            "back by itself",
            left=count,
            waited_s=waited_s,
        )

    def _warn(self, event: str, caller: Caller, **fields: Any) -> bool:
        left_out = self._seldom.left_out(event)
        if left_out is None:
            return False
        self._log.warning(event, caller=caller.name, **fields, left_out=left_out)
        return True

    def _note_away(self, is_told: bool) -> None:  # noqa: FBT001 - what `_warn` returned
        self._is_away_told |= is_told
        if self._away_since_s is None:
            self._away_since_s = time.monotonic()

    def words_of(self, error: BaseException) -> str:
        """What it says, as it may be shown: without the URL's secrets; what is not the driver's own may quote a value."""
        return self._scrub(words_of(error)) if self._is_foreseen(error) else type(error).__name__

    def _explain(self, error: BaseException) -> None:
        """Where it came from, for a fault that nobody has foreseen; its text may quote a value, and stays out."""
        if self._is_foreseen(error):
            return
        event = "a fault of Penstock's own in the database channel: please report it"
        if (left_out := self._seldom.left_out(event)) is not None:
            stack = "".join(traceback.format_tb(error.__traceback__))
            self._log.error(event, error=type(error).__name__, stack=stack, left_out=left_out)
