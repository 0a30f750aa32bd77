"""An interactive transaction: its holder asks step after step, the writer carries them out and watches the clock."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from penstock.channels.db.sqlite.group import Outcome, Statement
from penstock.channels.db.sqlite.opening import GuardedConnection
from penstock.channels.db.sqlite.stepping import Cursors
from penstock.channels.db.statements import shown
from penstock.channels.service import Caller
from penstock.errors import DatabaseError


@dataclass(frozen=True, slots=True)
class Work:
    """Something to do on the writer's thread inside the transaction; what it raises is the asker's."""

    shown: str
    """For the words of errors."""
    function: Callable[[GuardedConnection, Cursors], Any]


Ask: TypeAlias = Statement | Work | Literal["commit", "rollback"]


class Step:
    """One request inside a transaction, waiting for its answer."""

    __slots__ = ("answer", "ask")

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def end(self, outcome: Any) -> None:
        """Answer it, unless whoever asked has gone."""
        if self.answer.done():
            return
        if isinstance(outcome, Exception):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


class OpenTransaction:
    """One caller's transaction; the caller asks on the loop, the writer takes the steps and ends it.

    What bounds it: a caller waits for each answer, and after `database.transaction_idle_s` without a step it ends.
    """

    def __init__(
        self, number: int, caller: Caller, now_s: float, *, on_abandoned: Callable[[], None]
    ) -> None:
        self.number = number
        self.caller = caller
        self.opened_s = now_s
        self.last_statement = "nothing yet"
        self.why_over: str | None = None
        """Words, once it is over."""
        self.is_abandoned = False
        self._on_abandoned = on_abandoned
        self._steps: deque[Step] = deque()
        self._arrived = asyncio.Event()

    def __repr__(self) -> str:
        return f"<OpenTransaction {self.number} of {self.caller.name} [{self.why_over or 'open'}]>"

    async def run(self, statement: Statement) -> Outcome:
        """Run a statement inside it. Raises `DatabaseError` when it fails, or when the transaction is over."""
        self.last_statement = shown(statement.text)
        outcome: Outcome = await self._ask(statement)
        return outcome

    async def perform(self, work: Work) -> Any:
        """Do something inside it. Raises what it raises, and `DatabaseError` when the transaction is over."""
        self.last_statement = work.shown
        return await self._ask(work)

    async def commit(self) -> None:
        """Raises `DatabaseError` when it cannot be committed or was over before; nothing of it is kept then."""
        await self._ask("commit")

    async def roll_back(self) -> None:
        """Harmless when it is over."""
        if self.why_over is None:
            await self._ask("rollback")

    def abandon(self) -> None:
        """Nobody will ask any more: what runs is interrupted, the rest rolled back."""
        if self.why_over is None and not self.is_abandoned:
            self.is_abandoned = True
            self._arrived.set()
            self._on_abandoned()

    async def next_step(self, *, idle_s: float) -> Step | None:
        """The next step; None when it was abandoned. Raises `TimeoutError` when none came in time."""
        while not self.is_abandoned:
            while self._steps:
                step = self._steps.popleft()
                if not step.answer.done():
                    return step
            self._arrived.clear()
            try:
                async with asyncio.timeout(idle_s):
                    await self._arrived.wait()
            except TimeoutError:
                # A step that came in the same turn of the loop came in time.
                if not self._steps and not self.is_abandoned:
                    raise
        return None

    def end(self, why: str) -> None:
        """It is over; whoever still asks is told why."""
        self.why_over = why
        while self._steps:
            self._steps.popleft().end(self._over())

    async def _ask(self, ask: Ask) -> Any:
        if self.why_over is not None:
            raise self._over()
        step = Step(ask)
        self._steps.append(step)
        self._arrived.set()
        return await step.answer

    def _over(self) -> DatabaseError:
        return DatabaseError(f"the transaction is over: {self.why_over}", "OperationalError")
